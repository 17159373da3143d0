"""Runs the server: it starts on a socket, and on a signal it finishes running requests and lets the process end as usual."""

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

SECONDS_TO_FINISH = 5  # for requests that run when the signal comes; then they are told that the server is stopping
SECONDS_TO_STOP = 15  # after that, connections are closed
# Idle time of a connection. Clients close theirs after 5 or 60, and must not use one that the server is just closing.
SECONDS_OF_SILENCE = 75
SWITCH_SECONDS = 0.0005  # how often the engine's thread and the event loop hand over the interpreter


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
    """A uvicorn server that lets the engine finish its requests before it closes connections."""

    def __init__(self, config: uvicorn.Config, engine: Engine):
        super().__init__(config)
        self.engine = engine

    async def shutdown(self, sockets=None):
        """Stops the engine while the connections are still open for its answers."""
        stops = asyncio.create_task(asyncio.to_thread(self.engine.stop, SECONDS_TO_FINISH))
        await super().shutdown(sockets)
        await stops


def make_engine(
    student, tokenizer, options: ServerOptions, backend=None, teacher: TeacherReader | None = None
) -> Engine:
    """Builds the engine behind a server."""
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
    """Builds the application for one student, with its own started engine, for any ASGI server. See [`serve`] for the arguments.

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
    """The uvicorn configuration that runs the application."""
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
    """The URL at which clients reach a bound socket."""
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
        tokenizer: its fast tokenizer.
        name: the model's name in requests.
        listener: a bound socket.
        options: the server's options.
        backend: the backend that computes the steps; the student itself when `None`.
        teacher: reads the beginning of prompts, for requests that ask for it.
        ready: called once clients may connect; by default, prints the address.
    """
    app = make_app(student, tokenizer, name, options, backend, teacher)
    engine = app.state.api.engine
    config = uvicorn_config(app, options.log_level)
    gc.freeze()  # what is loaded stays: neither later collections nor the end of the process spend seconds on it
    listener.listen(1024)  # whoever reads the next line may connect at once
    if ready is None:
        print(f"{name} answers at {address_of(listener)}", flush=True)
    else:
        ready()
    # uvicorn stops on a signal and then raises it again: this handler catches it, so that the process ends as usual.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        StudentServer(config, engine).run(sockets=[listener])
    finally:
        engine.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
