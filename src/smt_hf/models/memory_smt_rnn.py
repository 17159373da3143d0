"""A memory as an object: all that a student remembers of a text, in one small file."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import PushToHubMixin, cached_file

from .cache_smt_rnn import SmtRnnCache
from .fingerprint_smt_rnn import difference, fingerprint, same_student, short
from .layers_smt import squared_distance

MEMORY_FILE = "memory.safetensors"
STATE_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
COUNT_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class SmtMemory(PushToHubMixin):
    """The memory of one or more sequences, and the student that it belongs to.

    [`SmtRnnForCausalLM.read`] creates one from a text, [`SmtMemory.from_cache`] from a cache. `generate(..., memory=memory)`
    continues from it as often as you like, without changing it. The states are meaningful to one student only.

    Args:
        states: `(B, K, D)`, B at least 1; detached from the autograd graph.
        fingerprint: identifies the student, see [`fingerprint`].
        student_name: where the student was loaded from, for messages.
        num_tokens: `(B,)` number of tokens that each state has read; zeros when `None`.

    Raises:
        ValueError: if `states` is not of shape `(B, K, D)`, has no rows, or holds anything but finite floating-point
            numbers; if `num_tokens` is not of shape `(B,)`, or holds anything but non-negative integers.
    """

    def __init__(self, states: torch.Tensor, fingerprint: str, student_name: str = "", num_tokens=None):
        if states.ndim != 3:
            raise ValueError(f"states have shape {tuple(states.shape)}: pass (batch, memory tokens, width)")
        if states.numel() == 0:
            raise ValueError(f"states have shape {tuple(states.shape)} and are empty: pass at least one row")
        if states.dtype not in STATE_DTYPES:
            raise ValueError(f"states have dtype {states.dtype}: pass floating-point numbers of 16 bits or more")
        if not states.isfinite().all():
            raise ValueError(
                "states contain NaN or infinity: read the text again with a student whose weights are finite"
            )
        num_tokens = torch.zeros(len(states), dtype=torch.long) if num_tokens is None else torch.as_tensor(num_tokens)
        if num_tokens.shape != states.shape[:1]:
            raise ValueError(
                f"num_tokens has shape {tuple(num_tokens.shape)}: pass one number for each of {len(states)} states"
            )
        if num_tokens.dtype not in COUNT_DTYPES:
            raise ValueError(f"num_tokens has dtype {num_tokens.dtype}: pass whole numbers")
        if (num_tokens < 0).any():
            raise ValueError(f"num_tokens={num_tokens.tolist()} must not be negative")
        self.states = states.detach()
        self.num_tokens = num_tokens.long().cpu()
        self.fingerprint = fingerprint
        self.student_name = student_name

    @classmethod
    def from_cache(cls, student, cache: SmtRnnCache) -> "SmtMemory":
        """Copies the memory of a cache.

        The cache that `generate(..., return_dict_in_generate=True)` returns has not read the last token of the sequence.
        Continue with `generate(sequences[:, -1:], memory=memory)`, with an `attention_mask` if that token is padding.

        Raises:
            ValueError: if the cache is empty or its memory is not finite.
        """
        if cache.memory is None:
            raise ValueError("the cache is empty: run the student on at least one token first")
        name = student.name_or_path
        if os.path.isdir(name):  # only the folder's name, not its path
            name = os.path.basename(os.path.abspath(name))
        return cls(cache.memory.clone(), fingerprint(student), name, cache.num_tokens)

    def to_cache(self, student) -> SmtRnnCache:
        """A cache from which the student continues; all tokens given to it next are new.

        Raises:
            ValueError: if the memory belongs to another student or has another shape.
        """
        relative, tolerance = difference(self.fingerprint, fingerprint(student))
        if not relative <= tolerance:
            raise ValueError(
                f"this memory belongs to the student {self.student_name or 'of unknown origin'!r}, not to "
                f"{student.name_or_path or 'this one'!r}, or to it with other weights or adapters: their results for the "
                f"same tokens differ by {relative:.2%}, rounding explains {tolerance:.2%}; read the text again with this "
                "student, or load the student that read it"
            )
        sizes = (student.config.num_memory_tokens, student.config.hidden_size)
        if self.states.shape[1:] != sizes:
            raise ValueError(
                f"the memory has shape {tuple(self.states.shape[1:])}, but the student's has {sizes}: its file is damaged"
            )
        device = self.states.device if student.device.type == "meta" else student.device  # offloaded: hooks move it
        return SmtRnnCache(self.states.to(device, student.dtype), 0, self.num_tokens.to(device))

    def save_pretrained(self, save_directory: str | os.PathLike, filename: str = MEMORY_FILE, **kwargs) -> None:
        """Saves the memory to one safetensors file in a folder; `push_to_hub=True` and `repo_id=...` also upload it."""
        os.makedirs(save_directory, exist_ok=True)
        tensors = {"states": self.states.contiguous(), "num_tokens": self.num_tokens}
        metadata = {"format": "pt", "fingerprint": self.fingerprint, "student_name": self.student_name}
        save_file(tensors, os.path.join(save_directory, filename), metadata)
        if kwargs.pop("push_to_hub", False):
            self.push_to_hub(**kwargs)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, filename: str = MEMORY_FILE, **kwargs) -> "SmtMemory":
        """Loads a memory from a folder or a Hub repository.

        Args:
            name_or_path: folder or Hub id.
            filename: name of the file.
            kwargs: `revision`, `token`, `cache_dir` and the other arguments of `transformers.utils.cached_file`.

        Raises:
            OSError: if there is no such folder, repository or file.
            ValueError: if the file is not a memory, is damaged or has an earlier version.
        """
        path = _find(os.path.expanduser(name_or_path), filename, **kwargs)
        try:
            return cls.from_file(path)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "SmtMemory":
        """Loads a memory from one file.

        Raises:
            ValueError: if the file is not a memory, is damaged or has an earlier version; the message is worded to follow
                the name of the file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                states, num_tokens = file.get_tensor("states"), file.get_tensor("num_tokens")
                owner = metadata["fingerprint"]
        except (SafetensorError, KeyError) as error:
            raise ValueError("contains no memory: choose one that SmtMemory.save_pretrained wrote") from error
        except OSError as error:
            raise ValueError(f"cannot be read: {error}") from error
        try:
            difference(owner, owner)
            return cls(states, owner, metadata.get("student_name", ""), num_tokens)
        except ValueError as error:
            raise ValueError(f"contains no memory to continue from: {error}") from error

    @classmethod
    def cat(cls, memories: Sequence["SmtMemory"]) -> "SmtMemory":
        """Joins memories of one student into one batch.

        Raises:
            ValueError: if there are none, or they belong to different students.
        """
        owners: list[SmtMemory] = []
        for memory in memories:
            if not any(same_student(memory.fingerprint, owner.fingerprint) for owner in owners):
                owners.append(memory)
        if len(owners) != 1:
            names = ", ".join(f"{owner.student_name!r} {short(owner.fingerprint)}" for owner in owners)
            raise ValueError(f"the memories belong to {len(owners)} students ({names}): pass those of one student")
        states = torch.cat([memory.states.to(memories[0].states) for memory in memories])
        num_tokens = torch.cat([memory.num_tokens for memory in memories])
        return cls(states, memories[0].fingerprint, memories[0].student_name, num_tokens)

    def distance(self, other: "SmtMemory") -> torch.Tensor:
        """Mean squared difference, the unit of drift: `(B,)`. Either memory may have a single row.

        Raises:
            ValueError: if the two belong to different students, or have different numbers of rows and neither has 1.
        """
        if not same_student(self.fingerprint, other.fingerprint):
            owners = (
                f"{self.student_name!r} {short(self.fingerprint)}, {other.student_name!r} {short(other.fingerprint)}"
            )
            raise ValueError(f"memories of two students ({owners}) cannot be compared: pass those of one student")
        if len(self) != len(other) and 1 not in (len(self), len(other)):
            raise ValueError(f"{len(self)} and {len(other)} rows cannot be compared: pass as many, or one")
        return squared_distance(self.states, other.states.to(self.states.device))

    def to(self, *args, **kwargs) -> "SmtMemory":
        """A copy with the states on another device or in another dtype; takes the arguments of `torch.Tensor.to`."""
        return type(self)(self.states.to(*args, **kwargs), self.fingerprint, self.student_name, self.num_tokens)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows) -> "SmtMemory":
        """Selects rows by an integer of any type, a slice, or a list or array of integers or booleans.

        Raises:
            IndexError: for rows that do not exist.
            ValueError: if no row is left.
        """
        rows = rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        try:
            chosen = np.atleast_1d(np.arange(len(self))[rows])
        except IndexError as error:
            raise IndexError(f"memory[{rows}] of {len(self)} rows: {error}") from error
        if chosen.ndim != 1:
            raise IndexError(f"memory[{rows}] selects more than rows: use an integer, a slice, or a list of integers")
        chosen = torch.from_numpy(chosen.copy())
        states = self.states[chosen.to(self.states.device)]
        return type(self)(states, self.fingerprint, self.student_name, self.num_tokens[chosen])

    def __repr__(self) -> str:
        batch, tokens, width = self.states.shape
        return (
            f"SmtMemory({batch} of {tokens} x {width}, {self.states[0].nbytes} bytes each, after "
            f"{self.num_tokens.tolist()} tokens, student {self.student_name!r} {short(self.fingerprint)})"
        )


def _find(name: str, filename: str, **kwargs) -> str:
    """The path of a file in a folder or, if there is no such folder, in a Hub repository.

    Raises:
        OSError: if there is no such file, with a one-line message.
    """
    if os.path.isfile(name):
        folder, file = os.path.split(os.path.abspath(name))
        raise NotADirectoryError(f"{name} is a file: pass its folder, {folder!r}, and filename={file!r}")
    if os.path.isdir(name):
        path = os.path.join(name, kwargs.get("subfolder") or "", filename)
        if not os.path.exists(path):
            raise FileNotFoundError(
                f"there is no memory {filename!r} in {name!r}: pass a folder that save_pretrained wrote"
            )
        return path
    try:
        validate_repo_id(name)
        return cached_file(name, filename, **kwargs)
    except HFValidationError as error:
        raise FileNotFoundError(f"there is no folder {name!r}: pass one that save_pretrained wrote") from error
    except OSError as error:
        reason = " ".join(str(error).split())
        raise OSError(
            f"there is no memory {filename!r} in {name!r}, which is neither a folder nor on the Hub: {reason}"
        ) from error
