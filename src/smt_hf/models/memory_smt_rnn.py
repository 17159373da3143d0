"""A memory as an object: what a student has read, in one small file."""

import hashlib
import os
from collections.abc import Sequence

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils import PushToHubMixin, cached_file

from .cache_smt_rnn import SmtRnnCache

MEMORY_FILE = "memory.safetensors"


def fingerprint(student) -> str:
    """A short hash of every weight of a student: whose memory is whose.

    The weights are rounded to bfloat16 first, so that a student has one fingerprint in float32 and in bfloat16.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(student.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


class SmtMemory(PushToHubMixin):
    """The memory of one or many sequences, and the student that it belongs to.

    [`SmtRnnForCausalLM.read`] makes one from a text, [`SmtMemory.from_cache`] from a run; `generate(..., memory=memory)`
    goes on from it as often as you like: it never changes. The states mean something to one student only.

    Args:
        states: `(B, K, D)`, cut from the autograd graph.
        fingerprint: the student's, see [`fingerprint`].
        student_name: where the student was loaded from, for messages.
        num_tokens: `(B,)` tokens that each state has read.

    Raises:
        ValueError: if `states` is not of shape `(B, K, D)` and floating point, or `num_tokens` not of shape `(B,)`.
    """

    def __init__(self, states: torch.Tensor, fingerprint: str, student_name: str = "", num_tokens=None):
        if states.ndim != 3:
            raise ValueError(f"states have shape {tuple(states.shape)}: give (batch, memory tokens, width)")
        if not states.is_floating_point():
            raise ValueError(f"states have dtype {states.dtype}: give floating-point numbers")
        num_tokens = torch.zeros(len(states), dtype=torch.long) if num_tokens is None else torch.as_tensor(num_tokens)
        if num_tokens.shape != states.shape[:1]:
            raise ValueError(
                f"num_tokens has shape {tuple(num_tokens.shape)}: give one number for {len(states)} states"
            )
        self.states = states.detach()
        self.num_tokens = num_tokens.cpu()
        self.fingerprint = fingerprint
        self.student_name = student_name

    @classmethod
    def from_cache(cls, student, cache: SmtRnnCache) -> "SmtMemory":
        """A copy of what a run has in its cache.

        The cache that `generate(..., return_dict_in_generate=True)` returns has not read the last token of the sequence:
        go on with `generate(sequences[:, -1:], memory=memory)`.

        Raises:
            ValueError: if the cache has read nothing.
        """
        if cache.memory is None:
            raise ValueError("the cache is empty: run the student on at least one token first")
        name = student.name_or_path
        if os.path.isdir(name):  # not where folders lie at home
            name = os.path.basename(os.path.abspath(name))
        return cls(cache.memory.clone(), fingerprint(student), name, cache.num_tokens)

    def to_cache(self, student) -> SmtRnnCache:
        """A cache from which the student goes on; the tokens that it is given next are all new.

        Raises:
            ValueError: if the memory belongs to another student or has another shape.
        """
        found = fingerprint(student)
        if found != self.fingerprint:
            raise ValueError(
                f"this memory belongs to the student {self.student_name or 'of unknown origin'!r} (fingerprint "
                f"{self.fingerprint}), not to {student.name_or_path or 'this one'!r} ({found}): read the text again with "
                "the student at hand, or load the student that read it"
            )
        sizes = (student.config.num_memory_tokens, student.config.hidden_size)
        if self.states.shape[1:] != sizes:
            raise ValueError(
                f"the memory is {tuple(self.states.shape[1:])}, the student's {sizes}: its file is damaged"
            )
        return SmtRnnCache(self.states.to(student.device, student.dtype), 0, self.num_tokens.to(student.device))

    def save_pretrained(self, save_directory: str | os.PathLike, filename: str = MEMORY_FILE, **kwargs) -> None:
        """Writes one safetensors file into a folder; with `push_to_hub=True` and `repo_id=...` uploads it too."""
        os.makedirs(save_directory, exist_ok=True)
        tensors = {"states": self.states.contiguous(), "num_tokens": self.num_tokens}
        metadata = {"format": "pt", "fingerprint": self.fingerprint, "student_name": self.student_name}
        save_file(tensors, os.path.join(save_directory, filename), metadata)
        if kwargs.pop("push_to_hub", False):
            self.push_to_hub(**kwargs)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, filename: str = MEMORY_FILE, **kwargs) -> "SmtMemory":
        """Loads a memory from a folder or a repository of the Hub.

        Args:
            name_or_path: folder or Hub id.
            filename: the file in it.
            kwargs: `revision`, `token`, `cache_dir` and what else `transformers.utils.cached_file` takes.

        Raises:
            OSError: if there is no such file.
            ValueError: if the file holds something else.
        """
        path = cached_file(name_or_path, filename, **kwargs)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                states, num_tokens = file.get_tensor("states"), file.get_tensor("num_tokens")
                owner = metadata["fingerprint"]
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} holds no memory: give a file that SmtMemory.save_pretrained wrote") from error
        return cls(states, owner, metadata.get("student_name", ""), num_tokens)

    @classmethod
    def cat(cls, memories: Sequence["SmtMemory"]) -> "SmtMemory":
        """One batch from the memories of one student.

        Raises:
            ValueError: if there are none, or they belong to different students.
        """
        owners = {memory.fingerprint: memory.student_name for memory in memories}
        if len(owners) != 1:
            raise ValueError(f"the memories belong to {len(owners)} students ({owners}): give those of one student")
        states = torch.cat([memory.states.to(memories[0].states) for memory in memories])
        num_tokens = torch.cat([memory.num_tokens for memory in memories])
        return cls(states, memories[0].fingerprint, memories[0].student_name, num_tokens)

    def distance(self, other: "SmtMemory") -> torch.Tensor:
        """Mean squared difference, the unit of drift: `(B,)`, or one of the two may have a single row.

        Raises:
            ValueError: if the two belong to different students.
        """
        if self.fingerprint != other.fingerprint:
            raise ValueError(f"memories of two students ({self.fingerprint}, {other.fingerprint}) cannot be compared")
        return (self.states.float() - other.states.to(self.states.device).float()).square().mean(dim=(-2, -1))

    def to(self, *args, **kwargs) -> "SmtMemory":
        """A copy whose states have another device or dtype, as `torch.Tensor.to` takes them."""
        return type(self)(self.states.to(*args, **kwargs), self.fingerprint, self.student_name, self.num_tokens)

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows) -> "SmtMemory":
        rows = [rows] if isinstance(rows, int) else rows
        return type(self)(self.states[rows], self.fingerprint, self.student_name, self.num_tokens[rows])

    def __repr__(self) -> str:
        batch, tokens, width = self.states.shape
        return (
            f"SmtMemory({batch} of {tokens} x {width}, {self.states[0].nbytes if batch else 0} bytes each, after "
            f"{self.num_tokens.tolist()} tokens, student {self.student_name!r} {self.fingerprint})"
        )
