"""The server's life: it starts on a socket, and at a signal it finishes what runs and lets the process end as usual."""

import asyncio
import gc
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from ..inference import Engine, PrefixCache, TeacherReader
from ..models.fingerprint_smt_rnn import fingerprint
from .app import build_app
from .requests import Limits
from .running import deliver

SECONDS_TO_FINISH = 5  # for requests that run when the signal comes; then they are told that the server stops
SECONDS_TO_STOP = 15  # then the connections are cut
SECONDS_OF_SILENCE = (
    75  # of a connection; clients let go of theirs after 5 or 60, and must not meet a server that just does
)
SWITCH_SECONDS = 0.0005  # the engine's thread and the event loop hand the interpreter on this often


@dataclass
class ServerOptions:
    """How a student is served, see [`build_app`] and [`Engine`]."""

    limits: Limits = field(default_factory=Limits)
    max_rows: int = 256
    max_waiting: int = 1024
    prefix_cache_bytes: int = 256 << 20
    memory_key: bytes | None = None
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    api_key: str | None = None
    max_body_bytes: int = 8 << 20
    log_level: str = "info"


class StudentServer(uvicorn.Server):
    """A uvicorn server that finishes what the engine has at hand before it cuts connections."""

    def __init__(self, config: uvicorn.Config, engine: Engine):
        super().__init__(config)
        self.engine = engine

    async def shutdown(self, sockets=None):
        """Stops the engine while the connections are still there to be answered."""
        stops = asyncio.create_task(asyncio.to_thread(self.engine.stop, SECONDS_TO_FINISH))
        await super().shutdown(sockets)
        await stops


def make_engine(
    student, tokenizer, options: ServerOptions, backend=None, teacher: TeacherReader | None = None
) -> Engine:
    """The engine behind a server."""
    return Engine.of(
        student,
        tokenizer,
        backend=backend,
        max_rows=options.max_rows,
        max_waiting=options.max_waiting,
        prefixes=PrefixCache(options.prefix_cache_bytes) if options.prefix_cache_bytes else None,
        teacher=teacher,
        deliver=deliver,
    )


def make_app(
    student, tokenizer, name: str, options: ServerOptions, backend=None, teacher: TeacherReader | None = None
) -> FastAPI:
    """The application for one student on a started engine of its own, for any ASGI server; see [`serve`] for the arguments.

    `app.state.api.engine.stop()` ends the engine's thread.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    return build_app(
        make_engine(student, tokenizer, options, backend, teacher).start(),
        tokenizer,
        name,
        options.limits,
        options.memory_key,
        fingerprint(student),
        options.hosts,
        options.cors_origins,
        options.api_key,
        options.max_body_bytes,
    )


def uvicorn_config(app, log_level: str, **more) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        log_level=log_level,
        timeout_graceful_shutdown=SECONDS_TO_STOP,
        timeout_keep_alive=SECONDS_OF_SILENCE,
        lifespan="off",
        server_header=False,
        **more,
    )


def address_of(listener: socket.socket) -> str:
    """Where clients find what listens on a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def serve(
    student,
    tokenizer,
    name: str,
    listener: socket.socket,
    options: ServerOptions,
    backend=None,
    teacher: TeacherReader | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Answers requests until SIGTERM or SIGINT.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode on its device.
        tokenizer: its tokenizer, a fast one.
        name: what clients call the model.
        listener: a bound socket.
        options: how.
        backend: what computes the steps; the student itself when `None`.
        teacher: reads the beginning of prompts for requests that ask for it.
        ready: called when clients may connect; says where by default.
    """
    app = make_app(student, tokenizer, name, options, backend, teacher)
    engine = app.state.api.engine
    config = uvicorn_config(app, options.log_level)
    gc.freeze()  # what is loaded stays: no collection looks at it again, nor does the end of the process, for seconds
    listener.listen(1024)  # who reads the next line may connect at once
    if ready is None:
        print(f"{name} answers at {address_of(listener)}", flush=True)
    else:
        ready()
    # uvicorn stops at a signal and then raises it again: this handler takes it, so that the process ends as usual.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        StudentServer(config, engine).run(sockets=[listener])
    finally:
        engine.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
