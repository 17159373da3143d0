"""An exported student in ONNX Runtime."""

import json
import os
from pathlib import Path

import onnxruntime
import torch

from ..errors import InputError, one_line
from ..models import SmtMemory
from ..models.fingerprint_smt_rnn import difference, fingerprint
from ..utils.digests import file_digest

FORMAT = 1  # version of the folder's format
EXPORT, UPDATE, READOUT = "export.json", "update.onnx", "readout.onnx"
INITIAL_MEMORY = "initial_memory.safetensors"


class OnnxBackend:
    """The step and the readout of a student exported by `smt-hf export`: torch tensors in and out, ONNX Runtime in between.

    Every row of a batch gives the same result as alone.

    Args:
        folder: the folder that `smt-hf export` wrote.
        num_threads: number of threads for ONNX Runtime; torch's number by default.

    Attributes:
        initial_memory: `(K, D)` float32.
        vocab_size: number of token ids V.
        fingerprint: the student's fingerprint.
        manifest: the content of `export.json`.

    Raises:
        InputError: if the folder holds no export, a damaged one, or one of another version.
    """

    def __init__(self, folder: str | os.PathLike, num_threads: int | None = None):
        self.folder = Path(folder).expanduser()
        self.manifest = read_manifest(self.folder)
        self.vocab_size = self.manifest["vocab_size"]
        self.fingerprint = self.manifest["fingerprint"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if num_threads is None else num_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores between steps
        try:
            self._update = self._session(UPDATE, options)
            self._readout = self._session(READOUT, options)
        except Exception as error:  # ONNX Runtime has its own exceptions
            raise InputError(f"{str(folder)!r} cannot be run ({one_line(error)[:300]}): export it again") from error
        self.initial_memory = SmtMemory.from_pretrained(self.folder, filename=INITIAL_MEMORY).states[0]

    def _session(self, name: str, options) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(str(self.folder / name), options, providers=["CPUExecutionProvider"])

    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """One step of the recurrence: `(B, K, D)` float32 and `(B,)` int64 token ids -> `(B, K, D)`."""
        inputs = {"memory": memory.detach().contiguous().numpy(), "input_ids": input_ids.contiguous().numpy()}
        return torch.from_numpy(self._update.run(None, inputs)[0])

    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """The logits of the next token from the memory alone: `(B, K, D)` float32 -> `(B, V)`."""
        return torch.from_numpy(self._readout.run(None, {"memory": memory.detach().contiguous().numpy()})[0])

    def check_student(self, student) -> None:
        """Checks that this is the export of `student`.

        Raises:
            InputError: if it is the export of another student.
        """
        relative, tolerance = difference(self.fingerprint, fingerprint(student))
        if not relative <= tolerance:
            raise InputError(
                f"{str(self.folder)!r} is the export of the student {self.manifest['student'] or 'of unknown name'!r}, not of "
                f"{student.name_or_path or 'this one'!r}, or of it with other weights: export this student"
            )


def read_manifest(folder: Path) -> dict:
    """Checks every file of an export, and returns the content of its `export.json`.

    Raises:
        InputError: if a file is missing or damaged; the message names it.
    """
    try:
        manifest = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
        written, files = manifest["format"], manifest["files"]
        if written != FORMAT:
            raise InputError(f"{str(folder)!r} is an export of version {written}, not {FORMAT}: export it again")
        for name, file in files.items():
            if file_digest(folder / name) != file["digest"]:
                raise InputError(f"{name} of {str(folder)!r} is damaged: export it again")
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise InputError(f"{str(folder)!r} contains no {name}: pass a folder that smt-hf export wrote") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{EXPORT} of {str(folder)!r} is damaged ({one_line(error)[:200]}): export it again"
        ) from error
    return manifest
