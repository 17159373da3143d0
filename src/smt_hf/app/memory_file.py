"""The memory as a file that a visitor can save and restore."""

import tempfile
from pathlib import Path

from ..errors import InputError
from ..models.cache_smt_rnn import SmtRnnCache
from ..models.memory_smt_rnn import MEMORY_FILE, SmtMemory
from .writing import Writing


def save(student, writing: Writing) -> bytes:
    """The bytes of the file that [`SmtMemory.save_pretrained`] writes."""
    memory = SmtMemory.from_cache(student, SmtRnnCache(writing.memory, writing.num_tokens))
    with tempfile.TemporaryDirectory() as folder:
        memory.save_pretrained(folder)
        return (Path(folder) / MEMORY_FILE).read_bytes()


def restore(student, data: bytes | None) -> Writing:
    """An empty page with the memory of a file. The draws start from the seed again.

    Args:
        student: the [`SmtRnnForCausalLM`] that continues from it.
        data: the bytes of the file; `None` if the visitor chose none.

    Raises:
        InputError: if there is no file, or if it holds no memory, a damaged one, several, or that of another student.
    """
    if data is None:
        raise InputError("no file was chosen: choose one that Save memory wrote")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MEMORY_FILE
        path.write_bytes(data)
        try:
            memory = SmtMemory.from_file(path)
        except ValueError as error:
            raise InputError(f"this file {error}") from error
    if len(memory) != 1:
        raise InputError(
            f"this file contains {len(memory)} memories: save one of them with memory[row].save_pretrained"
        )
    try:
        return Writing(memory.to_cache(student).memory, int(memory.num_tokens[0]))
    except ValueError as error:
        raise InputError(str(error)) from error
