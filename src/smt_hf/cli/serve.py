"""`smt-hf serve`: a student over HTTP."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

import torch

from ..checkpoints import check_vocabulary, load_student
from ..data import load_tokenizer
from ..errors import InputError, one_line
from .parsing import Command, parse

PACKAGES = ("fastapi", "openai", "pydantic", "uvicorn")


@dataclass
class ServeOptions:
    """What to serve, and where."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 lets other machines in."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one and prints it."})
    device: str = field(default="auto", metadata={"help": "cpu, cuda, cuda:1 ...; auto: an accelerator if there is."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto: as they were saved."}
    )
    max_tokens: int = field(default=4096, metadata={"help": "The longest answer that a request may ask for."})
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata={"help": "How much is logged; info: a line per request."}
    )


COMMAND = Command(
    name="serve",
    kinds=[ServeOptions],
    description="""Answer OpenAI-style requests with a trained student: /v1/completions, /v1/chat/completions (for a tokenizer
with a chat template), /v1/models and /health. Requests are answered one after another; SIGTERM or Ctrl-C stops the server.""",
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
    try:
        from ..serving.server import serve
    except ImportError as error:
        raise InputError(f"serving does not fit this transformers ({error}): pip install 'smt-hf[serve]'") from error
    with bind(options.host, options.port) as listener:
        student, tokenizer = load(options)
        serve(student, tokenizer, options.model, options.max_tokens, listener, options.log_level)


def bind(host: str, port: int) -> socket.socket:
    """A socket at that address; clients are let in when the model is there.

    Raises:
        InputError: if the address is in use, or no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"host={host!r} is not an address ({error.strerror}): pass one of this machine") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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
