"""The memory as a file that a visitor keeps, and brings back."""

import tempfile
from pathlib import Path

from safetensors import SafetensorError

from ..errors import InputError
from ..models.memory_smt_rnn import MEMORY_FILE, SmtMemory, fingerprint
from .writing import Writing


def save(student, writing: Writing) -> bytes:
    """The bytes of the file that [`SmtMemory.save_pretrained`] writes."""
    memory = SmtMemory(writing.memory, fingerprint(student), student.name_or_path, [writing.num_tokens])
    with tempfile.TemporaryDirectory() as folder:
        memory.save_pretrained(folder)
        return (Path(folder) / MEMORY_FILE).read_bytes()


def restore(student, data: bytes) -> Writing:
    """An empty page whose memory is that of a file; the draws start from the seed again.

    Raises:
        InputError: if the file holds no memory, more than one, or the memory of another student.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MEMORY_FILE).write_bytes(data)
        try:
            memory = SmtMemory.from_pretrained(folder)
        except (ValueError, SafetensorError) as error:
            raise InputError("this file holds no memory: choose one that Save memory wrote") from error
    if len(memory) != 1:
        raise InputError(f"this file holds {len(memory)} memories: save one of them with memory[row].save_pretrained")
    try:
        states = memory.to_cache(student).memory
    except ValueError as error:
        raise InputError(str(error)) from error
    expected = (1, student.config.num_memory_tokens, student.config.hidden_size)
    if states.shape != expected:
        raise InputError(f"this memory has shape {tuple(states.shape)}, the student's has {expected}: save it again")
    return Writing(states, int(memory.num_tokens[0]))
