"""`smt-hf serve`: serve a student over HTTP."""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Literal

import torch

from ..checkpoints import check_pair, check_vocabulary, load_student, load_teacher
from ..data import load_tokenizer
from ..errors import InputError, one_line
from ..hub import read_stages
from ..inference import TeacherReader
from ..utils.imports import asked_for, load_module
from .parsing import Command, parse

PACKAGES = ("fastapi", "prometheus_client", "uvicorn")
TRAINED_CONTEXT = 256  # tokens, for a teacher whose record gives no context_length
SECRETS = {"api_key": "SMT_HF_API_KEY", "memory_key": "SMT_HF_MEMORY_KEY"}  # other users can see command lines


@dataclass
class ServeOptions:
    """What to serve, where, and to whom."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    onnx: str | None = field(
        default=None,
        metadata={"help": "Folder written by `smt-hf export MODEL`: ONNX Runtime then computes the steps."},
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of the student's SMT run or teacher, which reads the prompts of requests with use_teacher=true."
        },
    )
    last_tokens: int = field(
        default=32, metadata={"help": "Tokens at the end of such a prompt that the student reads itself."}
    )
    context_length: int | None = field(
        default=None, metadata={"help": "Most tokens that the teacher reads; by default, as in its training."}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 lets other machines in."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one and prints it."})
    workers: int = field(
        default=1, metadata={"help": "Processes that answer, each with its own student and limits (Linux only)."}
    )
    device: str = field(
        default="auto", metadata={"help": "cpu, cuda, cuda:1, ...; auto: an accelerator if there is one."}
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto: as they were saved."}
    )
    api_key: str | None = field(
        default=None, metadata={"help": "Key that clients must send; $SMT_HF_API_KEY by default."}
    )
    cors_origin: list[str] | None = field(
        default=None, metadata={"help": "Origins of web pages that may use the server; * allows all."}
    )
    allowed_host: list[str] | None = field(
        default=None, metadata={"help": "Names of the server, besides localhost, its host name and its addresses."}
    )
    max_tokens: int = field(default=4096, metadata={"help": "Longest answer that a request may ask for, in tokens."})
    max_prompt_tokens: int = field(default=131072, metadata={"help": "Longest prompt, in tokens."})
    max_batch_size: int = field(default=256, metadata={"help": "Most answers written at the same time."})
    max_queue_size: int = field(
        default=1024, metadata={"help": "Most requests that may wait; further ones get status 429."}
    )
    max_body_mb: float = field(default=8.0, metadata={"help": "Largest request body, in megabytes."})
    timeout: float = field(default=600.0, metadata={"help": "Seconds that a request may take."})
    prefix_cache_mb: float = field(
        default=256.0,
        metadata={"help": "Megabytes of memories to keep for known beginnings of prompts; 0 keeps none."},
    )
    memory_key: str | None = field(
        default=None,
        metadata={
            "help": "Secret shared by servers that hand conversations over to each other; $SMT_HF_MEMORY_KEY by default."
        },
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"help": "How much to log; info: one line per request."}
    )


COMMAND = Command(
    name="serve",
    kinds=[ServeOptions],
    description="""Answer OpenAI-style requests with a trained student: /v1/completions, /v1/chat/completions (for a tokenizer
with a chat template), /v1/models, /health and /metrics. All requests are answered together, one token each at a time. SIGTERM
or Ctrl-C finishes the running requests and stops the server.""",
    example=r"""example:
  smt-hf serve runs/dmt --port 8000
  curl http://127.0.0.1:8000/v1/completions \
      -H 'Content-Type: application/json' \
      -d '{"prompt": "Once upon a time", "max_tokens": 200}'""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student"},
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {', '.join(missing)}: pip install 'smt-hf[serve]'")
    if options.workers > 1:
        return serve_together(options)
    from ..serving.server import serve

    with bind(options.host, options.port) as listener:
        student, tokenizer, backend, teacher = load_all(options)
        serve(student, tokenizer, options.model, listener, server_options(options), backend, teacher)


def serve_together(options: ServeOptions) -> None:
    """Serves on one port with several processes, until SIGTERM or SIGINT.

    Raises:
        InputError: on systems that do not distribute connections; if the port is taken, or a worker cannot start.
    """
    if not sys.platform.startswith("linux"):
        raise InputError(
            f"workers={options.workers} needs Linux, which distributes connections among them: start servers on ports of their "
            "own, with one SMT_HF_MEMORY_KEY, behind a proxy"
        )
    from ..serving.server import address_of
    from ..serving.workers import run_workers

    with bind(
        options.host, options.port
    ) as probe:  # refuses a port that others listen on, even if they would share it
        port = probe.getsockname()[1]
    with bind(options.host, port, shared=True) as reserved:
        settings = server_options(options)
        settings.memory_key = settings.memory_key or secrets.token_bytes(32)
        work = partial(serve_as_one, replace(options, port=port), settings, tuple(asked_for))
        run_workers(
            work, options.workers, lambda: print(f"{options.model} answers at {address_of(reserved)}", flush=True)
        )


def serve_as_one(options: ServeOptions, settings, modules: Sequence[str], ready: Callable[[], None]) -> None:
    """Runs one of several workers."""
    from ..serving.server import serve

    for module in modules:
        load_module(module)
    torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
    with bind(options.host, options.port, shared=True) as listener:
        student, tokenizer, backend, teacher = load_all(options)
        serve(student, tokenizer, options.model, listener, settings, backend, teacher, ready)


def load_all(options: ServeOptions):
    """Loads the student, its tokenizer, the backend of its steps, and its teacher: see [`load`], [`onnx_backend`], [`teacher_reader`]."""
    student, tokenizer = load(options)
    backend = None if options.onnx is None else onnx_backend(options.onnx, student)
    return student, tokenizer, backend, None if options.teacher is None else teacher_reader(options, student)


def teacher_reader(options: ServeOptions, student) -> TeacherReader:
    """Loads the teacher that reads prompts for the student.

    Raises:
        InputError: if there is no teacher, or it is not the student's.
    """
    teacher = load_teacher(options.teacher, dtype=options.dtype).eval().requires_grad_(False)
    check_pair(teacher, student)
    trained = [stage["recipe"].get("context_length") for stage in read_stages(options.teacher)]
    length = options.context_length or next(filter(None, trained), TRAINED_CONTEXT)
    return TeacherReader(teacher.to(student.device), options.last_tokens, length)


def server_options(options: ServeOptions):
    """Turns the options of the command into those of the server."""
    from ..serving.requests import Limits
    from ..serving.server import ServerOptions

    given = {name: getattr(options, name) or os.environ.get(variable) for name, variable in SECRETS.items()}
    return ServerOptions(
        limits=Limits(options.max_tokens, options.max_prompt_tokens, options.max_batch_size, options.timeout),
        max_rows=options.max_batch_size,
        max_waiting=options.max_queue_size,
        prefix_cache_bytes=int(options.prefix_cache_mb * 1e6),
        memory_key=given["memory_key"].encode() if given["memory_key"] else None,
        hosts=(options.host, *(options.allowed_host or ())),
        cors_origins=tuple(options.cors_origin or ()),
        api_key=given["api_key"] or None,
        max_body_bytes=int(options.max_body_mb * 1e6),
        log_level=options.log_level,
    )


def onnx_backend(folder: str, student):
    """Opens an export of the student, to compute its steps.

    Raises:
        InputError: if onnxruntime is missing, or if the folder holds no export or that of another student.
    """
    if find_spec("onnxruntime") is None:
        raise InputError("onnx needs onnxruntime: pip install 'smt-hf[onnx]'")
    from ..inference.onnx_backend import OnnxBackend

    backend = OnnxBackend(folder)
    backend.check_student(student)
    return backend


def bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """Binds a socket to an address; clients are let in once the model is loaded. Processes of this user may join a shared one.

    Raises:
        InputError: if the address is in use, or is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host={host!r} is not an address ({error.strerror}): pass one of this machine") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise InputError(
            f"cannot listen on host={host!r}, port={port} ({error.strerror}): pass another --port or --host"
        ) from error
    return listener


def load(options: ServeOptions):
    """Loads the student onto its device, in evaluation mode, and its tokenizer.

    Raises:
        InputError: if the model is not a student, does not fit its tokenizer, or cannot be put on the device.
    """
    student = load_student(options.model, dtype=options.dtype).eval().requires_grad_(False)
    tokenizer = load_tokenizer(options.model)
    check_vocabulary(student, tokenizer)
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {options.model!r} is a slow one, which cannot stream: save a fast one")
    device = options.device
    if device == "auto":
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    try:
        return student.to(device), tokenizer
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={options.device!r} cannot be used ({one_line(error)}): try --device cpu") from error
