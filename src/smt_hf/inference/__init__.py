"""One engine for everything that writes: rows of memories stepped together. Pure Python and torch; no server in it."""

from .backends import Backend, TorchBackend
from .engine import Engine
from .many import write_many
from .prefixes import PrefixCache
from .requests import Answer, EngineFull, EngineStopped, Piece, Request, Ticket
from .sampling import SamplingParams, TokenLogprob
from .text import TextStream

__all__ = [
    "Answer",
    "Backend",
    "Engine",
    "EngineFull",
    "EngineStopped",
    "Piece",
    "PrefixCache",
    "Request",
    "SamplingParams",
    "TextStream",
    "Ticket",
    "TokenLogprob",
    "TorchBackend",
    "write_many",
]
