"""`smt-hf serve`: a student over HTTP."""

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
TRAINED_CONTEXT = 256  # tokens, of a teacher whose record says nothing else
SECRETS = {"api_key": "SMT_HF_API_KEY", "memory_key": "SMT_HF_MEMORY_KEY"}  # command lines can be seen by others


@dataclass
class ServeOptions:
    """What to serve, where, and to whom."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    onnx: str | None = field(
        default=None, metadata={"help": "Folder that `smt-hf export MODEL` wrote: ONNX Runtime computes the steps."}
    )
    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of the student's SMT run or teacher, which reads prompts for requests with use_teacher=true."
        },
    )
    last_tokens: int = field(
        default=32, metadata={"help": "Tokens at the end of such a prompt that the student reads itself."}
    )
    context_length: int | None = field(
        default=None, metadata={"help": "Tokens that the teacher reads at most; as it was trained by default."}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 lets other machines in."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one and prints it."})
    workers: int = field(
        default=1, metadata={"help": "Processes that answer, each with a student and limits of its own (Linux)."}
    )
    device: str = field(default="auto", metadata={"help": "cpu, cuda, cuda:1 ...; auto: an accelerator if there is."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto: as they were saved."}
    )
    api_key: str | None = field(
        default=None, metadata={"help": "Key that clients must send; the environment's SMT_HF_API_KEY by default."}
    )
    cors_origin: list[str] | None = field(
        default=None, metadata={"help": "Origins of web pages that may use the server; * lets all."}
    )
    allowed_host: list[str] | None = field(
        default=None, metadata={"help": "Names of the server besides localhost, its host name and addresses."}
    )
    max_tokens: int = field(default=4096, metadata={"help": "The longest answer that a request may ask for."})
    max_prompt_tokens: int = field(default=131072, metadata={"help": "The longest prompt."})
    max_batch_size: int = field(default=256, metadata={"help": "Answers that are written at once."})
    max_queue_size: int = field(default=1024, metadata={"help": "Requests that wait; further ones get status 429."})
    max_body_mb: float = field(default=8.0, metadata={"help": "The largest body of a request, in megabytes."})
    timeout: float = field(default=600.0, metadata={"help": "Seconds that a request may take."})
    prefix_cache_mb: float = field(
        default=256.0, metadata={"help": "Memories of known beginnings to keep, in megabytes; 0 keeps none."}
    )
    memory_key: str | None = field(
        default=None,
        metadata={
            "help": "Secret of servers that hand conversations on to each other; SMT_HF_MEMORY_KEY of the environment by default."
        },
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"help": "How much is logged; info: a line per request."}
    )


COMMAND = Command(
    name="serve",
    kinds=[ServeOptions],
    description="""Answer OpenAI-style requests with a trained student: /v1/completions, /v1/chat/completions (for a tokenizer
with a chat template), /v1/models, /health and /metrics. All requests are answered together, a token each at a time; SIGTERM or
Ctrl-C finishes what runs and stops the server.""",
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
    """Lets several processes answer on one port, until SIGTERM or SIGINT.

    Raises:
        InputError: on systems that do not share out connections; if the port is taken, or a worker cannot start.
    """
    if not sys.platform.startswith("linux"):
        raise InputError(
            f"workers={options.workers} needs Linux, which shares out connections: start servers on ports of their own, "
            "with one SMT_HF_MEMORY_KEY, behind a proxy"
        )
    from ..serving.server import address_of
    from ..serving.workers import run_workers

    with bind(
        options.host, options.port
    ) as probe:  # a port that others listen on is refused, also if they would share it
        port = probe.getsockname()[1]
    with bind(options.host, port, shared=True) as reserved:
        settings = server_options(options)
        settings.memory_key = settings.memory_key or secrets.token_bytes(32)
        work = partial(serve_as_one, replace(options, port=port), settings, tuple(asked_for))
        run_workers(
            work, options.workers, lambda: print(f"{options.model} answers at {address_of(reserved)}", flush=True)
        )


def serve_as_one(options: ServeOptions, settings, modules: Sequence[str], ready: Callable[[], None]) -> None:
    """What each of several workers does."""
    from ..serving.server import serve

    for module in modules:
        load_module(module)
    torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
    with bind(options.host, options.port, shared=True) as listener:
        student, tokenizer, backend, teacher = load_all(options)
        serve(student, tokenizer, options.model, listener, settings, backend, teacher, ready)


def load_all(options: ServeOptions):
    """The student, its tokenizer, what computes its steps, and its teacher: see [`load`], [`onnx_backend`], [`teacher_reader`]."""
    student, tokenizer = load(options)
    backend = None if options.onnx is None else onnx_backend(options.onnx, student)
    return student, tokenizer, backend, None if options.teacher is None else teacher_reader(options, student)


def teacher_reader(options: ServeOptions, student) -> TeacherReader:
    """What reads prompts beside the student.

    Raises:
        InputError: if there is no teacher, or it is not the student's.
    """
    teacher = load_teacher(options.teacher, dtype=options.dtype).eval().requires_grad_(False)
    check_pair(teacher, student)
    trained = [stage["recipe"].get("context_length") for stage in read_stages(options.teacher)]
    length = options.context_length or next(filter(None, trained), TRAINED_CONTEXT)
    return TeacherReader(teacher.to(student.device), options.last_tokens, length)


def server_options(options: ServeOptions):
    """The options of the server behind those of the command."""
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
    """The steps of an export, which must be that of the student.

    Raises:
        InputError: if onnxruntime is missing, or the folder holds no export or another student's.
    """
    if find_spec("onnxruntime") is None:
        raise InputError("onnx needs onnxruntime: pip install 'smt-hf[onnx]'")
    from ..inference.onnx_backend import OnnxBackend

    backend = OnnxBackend(folder)
    backend.check_student(student)
    return backend


def bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket at that address; clients are let in when the model is there. A shared one lets others of this user join in.

    Raises:
        InputError: if the address is in use, or no address of this machine.
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
    """The student on its device, in evaluation mode, and its tokenizer.

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
