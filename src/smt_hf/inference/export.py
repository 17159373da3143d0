"""Exports a student as a folder that runs without torch: graphs, initial memory, tokenizer and generation settings."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from google.protobuf.message import EncodeError
from torch import nn

from ..checkpoints import check_vocabulary
from ..errors import InputError
from ..models import SmtMemory
from ..models.fingerprint_smt_rnn import fingerprint
from ..utils.digests import file_digest
from .graphs import OPSET, WEIGHT_DTYPES, float_copy, step_graphs, store_weights
from .onnx_backend import EXPORT, FORMAT, INITIAL_MEMORY, READOUT, UPDATE, OnnxBackend

# The largest difference of a logit accepted after one step. Trained students of every cell stay below a tenth of it.
MAX_DIFFERENCES = {"float32": 1e-3, "float16": 0.1, "int8": 1.0}
ROWS, LENGTH = 4, 128  # shape of the text to compare on


@dataclass
class Verification:
    """How an export differs from its student on a text.

    Attributes:
        num_tokens: Tokens read.
        max_difference: The largest absolute difference of a logit after one step from a state of the student. On its own states
            the export may diverge, as two machines may: a recurrence can amplify rounding.
        loss: The student's mean loss from the initial memory, in nats per token.
        exported_loss: The export's mean loss on its own states.
    """

    num_tokens: int
    max_difference: float
    loss: float
    exported_loss: float


def export_onnx(
    student,
    tokenizer,
    output_dir: str | os.PathLike,
    text: str,
    dtype: str = "float32",
    max_difference: float | None = None,
    overwrite: bool = False,
) -> Verification:
    """Exports a student for ONNX Runtime, and compares the export with it.

    Args:
        student: an [`SmtRnnForCausalLM`] with any cell, in any precision; it is not changed.
        tokenizer: its tokenizer.
        output_dir: the folder to write; it appears once everything in it is written and compared.
        text: the text to compare on; its first 512 tokens are read.
        dtype: how the matrices are stored, `"float32"`, `"float16"` or `"int8"`. All of them compute in float32.
        max_difference: the largest accepted difference of a logit; [`MAX_DIFFERENCES`] by default.
        overwrite: replace an earlier export in `output_dir`.

    Raises:
        InputError: if the folder is not empty, the student does not fit its tokenizer, its graphs are larger than 2 GB, or the
            export differs by more than `max_difference`.
    """
    input_ids = check_export(student, tokenizer, text, dtype)
    with new_folder(output_dir, overwrite) as folder:
        return write_export(student, tokenizer, folder, input_ids, dtype, max_difference)


def check_export(student, tokenizer, text: str, dtype: str) -> torch.Tensor:
    """Checks that a student can be exported, and returns the beginning of the text to compare on as token ids `(B, T)`.

    Raises:
        InputError: for an unknown dtype, a tokenizer that does not fit the student, or a text that is too short.
    """
    if dtype not in WEIGHT_DTYPES:
        raise InputError(f"dtype={dtype!r} is not one of {', '.join(WEIGHT_DTYPES)}")
    check_vocabulary(student, tokenizer)
    return rows_of(text, tokenizer)


def write_export(
    student, tokenizer, folder: Path, input_ids: torch.Tensor, dtype: str, max_difference: float | None
) -> Verification:
    """Writes an export to an empty folder, and compares it with its student. Raises the errors of [`export_onnx`]."""
    reference = float_copy(student)
    write_graphs(reference, folder, dtype)
    memory = SmtMemory(reference.initial_memory[None], fingerprint(student), _name(student))
    memory.save_pretrained(folder, filename=INITIAL_MEMORY)
    # Only the owner may read what safetensors writes, and a web server may run as another user.
    (folder / INITIAL_MEMORY).chmod(0o644)
    tokenizer.save_pretrained(folder)
    student.generation_config.save_pretrained(folder)
    write_manifest(student, folder, dtype)
    found = verify(reference, OnnxBackend(folder), input_ids)
    bound = MAX_DIFFERENCES[dtype] if max_difference is None else max_difference
    if not found.max_difference <= bound:
        remedy = "export it as float32" if dtype != "float32" else "raise max_difference if the losses are acceptable"
        raise InputError(
            f"the export differs from its student by {found.max_difference:.2g} in a logit, more than "
            f"max_difference={bound:g} (loss {found.exported_loss:.4f}, the student's {found.loss:.4f}): {remedy}"
        )
    write_manifest(student, folder, dtype, found)
    return found


def rows_of(text: str, tokenizer) -> torch.Tensor:
    """The beginning of a text as token ids `(B, T)`.

    Raises:
        InputError: if it has fewer than two tokens.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"][: ROWS * LENGTH]
    if len(ids) < 2:
        raise InputError(f"the text to compare on has {len(ids)} tokens: pass at least two")
    rows = ROWS if len(ids) >= ROWS * 2 else 1
    return torch.tensor(ids[: len(ids) // rows * rows]).view(rows, -1)


def write_graphs(student, folder: Path, dtype: str) -> None:
    """Writes both graphs of a float32 student, with their matrices stored in `dtype`.

    Raises:
        InputError: for a graph that is too large for ONNX's file format.
    """
    for name, graph in zip((UPDATE, READOUT), step_graphs(student), strict=True):
        store_weights(graph, dtype)
        try:
            (folder / name).write_bytes(graph.SerializeToString())
        except (EncodeError, ValueError) as error:
            raise InputError(f"{name} would be larger than 2 GB, the limit of its format: export as int8") from error


def write_manifest(student, folder: Path, dtype: str, verification: Verification | None = None) -> None:
    """Writes `export.json`: the contents of the folder, its student, and how the two compare."""
    config = student.config
    files = {
        file.name: {"bytes": file.stat().st_size, "digest": file_digest(file)}
        for file in sorted(folder.iterdir())
        if file.name != EXPORT
    }
    manifest = {
        "format": FORMAT,
        "student": _name(student),
        "fingerprint": fingerprint(student),
        "num_parameters": student.num_parameters(),
        "vocab_size": config.vocab_size,
        "num_memory_tokens": config.num_memory_tokens,
        "hidden_size": config.hidden_size,
        "cell_type": config.cell_type,
        "dtype": dtype,
        "opset": OPSET,
        "versions": {name: version(name) for name in ("smt-hf", "torch", "onnx", "onnxruntime")},
        "verification": None if verification is None else asdict(verification),
        "files": files,
    }
    (folder / EXPORT).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def verify(student, backend: OnnxBackend, input_ids: torch.Tensor) -> Verification:
    """Compares a student and its export on token ids `(B, T)`."""
    memory = step = student.initial_memory.expand(len(input_ids), -1, -1)
    exported = backend.initial_memory.expand(len(input_ids), -1, -1)
    differences, losses, exported_losses = [], [], []
    for ids in input_ids.T:
        logits = student.readout(memory)
        differences.append((logits - backend.readout(step)).abs().max())
        losses.append(nn.functional.cross_entropy(logits, ids))
        exported_losses.append(nn.functional.cross_entropy(backend.readout(exported), ids))
        step, exported = backend.update(memory, ids), backend.update(exported, ids)
        memory = student.update(memory, ids)
    largest = torch.stack(differences).max().item()  # NaN if any is NaN
    loss, exported_loss = (torch.stack(each).mean().item() for each in (losses, exported_losses))
    return Verification(input_ids.numel(), largest, loss, exported_loss)


@contextmanager
def new_folder(output_dir: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """A folder to write to, which replaces `output_dir` once it is complete.

    Raises:
        InputError: if `output_dir` is not empty; with `overwrite`, if what it holds is not an export.
    """
    place = Path(output_dir).expanduser()
    if place.exists() and not place.is_dir():
        raise InputError(f"output_dir={str(output_dir)!r} is a file: pass a folder")
    if place.is_dir() and any(place.iterdir()):
        if not overwrite:
            raise InputError(f"output_dir={str(output_dir)!r} is not empty: choose another, or pass --overwrite")
        if not (place / EXPORT).is_file():
            raise InputError(f"output_dir={str(output_dir)!r} contains something other than an export: choose another")
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as draft:
        folder = Path(draft) / place.name
        folder.mkdir()
        yield folder
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(folder, place)


def _name(student) -> str:
    """The name of a student; for a folder, its name without the path."""
    return os.path.basename(os.path.abspath(student.name_or_path)) if student.name_or_path else ""
