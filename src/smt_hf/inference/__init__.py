"""The engine behind everything that writes: it steps rows of memories together, in pure Python and torch, without a server."""

from .backends import Backend, CudaGraphBackend, TorchBackend, backend_for
from .engine import Engine
from .many import write_many
from .prefixes import PrefixCache
from .requests import Answer, EngineFull, EngineStopped, Piece, Request, Ticket
from .sampling import SamplingParams, TokenLogprob
from .teachers import TeacherReader
from .text import TextStream

__all__ = [
    "Answer",
    "Backend",
    "CudaGraphBackend",
    "Engine",
    "EngineFull",
    "EngineStopped",
    "Piece",
    "PrefixCache",
    "Request",
    "SamplingParams",
    "TeacherReader",
    "TextStream",
    "Ticket",
    "TokenLogprob",
    "TorchBackend",
    "backend_for",
    "write_many",
]
