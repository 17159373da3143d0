"""The student's cache: one memory state per sequence, of constant size."""

from dataclasses import fields

import torch
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

# The name of the cache field in model outputs: "past_key_values" up to transformers 5.23, "cache" since.
CACHE_NAME = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


class SmtMemoryLayer(CacheLayerMixin):
    """Holds the memory `(B, K, D)`, the number of columns seen so far, and the number of tokens read in each row, `(B,)`.

    After `generate()`, `ends_in_padding` `(B,)` tells which rows had ended before the last column, which is not read yet.

    It has the interface of a key-value cache that `generate()` needs, but its size is constant.
    """

    is_compileable = False
    is_croppable = False
    is_sliding = False
    supports_early_init = False

    def __init__(
        self,
        memory: torch.Tensor | None = None,
        num_columns: int = 0,
        num_tokens: torch.Tensor | None = None,
    ):
        super().__init__()
        self.memory = memory
        self.num_columns = num_columns
        self.num_tokens = num_tokens
        self.ends_in_padding = None
        if memory is not None and num_tokens is None:
            self.num_tokens = torch.full((len(memory),), num_columns, device=memory.device)
        self.is_initialized = memory is not None

    def lazy_initialization(self, key_states, value_states):
        raise NotImplementedError("a memory state has no keys and values")

    def update(self, key_states, value_states, *args, **kwargs):
        raise NotImplementedError("a memory state has no keys and values")

    def write(self, memory: torch.Tensor, num_columns: int, num_tokens: torch.Tensor | int) -> None:
        """Replaces the memory with `memory` `(B, K, D)`, detached, after reading more columns.

        Args:
            memory: `(B, K, D)`.
            num_columns: number of columns read.
            num_tokens: `(B,)`, how many of them were tokens; the rest were padding.
        """
        self.memory = memory.detach()
        self.num_columns += num_columns
        if self.num_tokens is None:
            self.num_tokens = torch.zeros(len(memory), dtype=torch.long, device=memory.device)
        self.num_tokens = self.num_tokens.to(memory.device) + num_tokens
        self.ends_in_padding = None
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self.num_columns

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.num_columns + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.memory, self.num_columns, self.num_tokens, self.is_initialized = None, 0, None, False
        self.ends_in_padding = None

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        if self.memory is not None:
            self.batch_select_indices(beam_idx.to(self.memory.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.memory is not None:
            self.memory = self.memory.repeat_interleave(repeats, dim=0)
            self.num_tokens = self.num_tokens.repeat_interleave(repeats)
            if self.ends_in_padding is not None:
                self.ends_in_padding = self.ends_in_padding.repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if self.memory is not None:
            self.memory = self.memory[indices]
            self.num_tokens = self.num_tokens[indices]
            if self.ends_in_padding is not None:
                self.ends_in_padding = self.ends_in_padding[indices]

    def crop(self, tokens_to_remove: int) -> None:
        raise NotImplementedError("a recurrent memory cannot forget its last tokens: keep a copy of the earlier cache")

    def offload(self) -> None:
        if self.memory is not None:
            self.device = self.memory.device
            self.memory = self.memory.to("cpu", non_blocking=True)

    def prefetch(self) -> None:
        if self.memory is not None and self.memory.device != getattr(self, "device", self.memory.device):
            self.memory = self.memory.to(self.device, non_blocking=True)


class SmtRnnCache(Cache):
    """The state that `SmtRnnForCausalLM` carries from one call to the next.

    Args:
        memory: Memory `(B, K, D)` to start from; `None` starts from the learned initial memory.
        num_columns: Columns of the current sequence that `memory` has seen; 0 to treat `memory` as the beginning.
        num_tokens: `(B,)` tokens that each row of `memory` has ever read; `num_columns` when `None`.
    """

    def __init__(
        self,
        memory: torch.Tensor | None = None,
        num_columns: int = 0,
        num_tokens: torch.Tensor | None = None,
    ):
        super().__init__(layers=[SmtMemoryLayer(memory, num_columns, num_tokens)])

    @property
    def memory(self) -> torch.Tensor | None:
        """The memory `(B, K, D)`, or `None` before the first token."""
        return self.layers[0].memory

    @property
    def batch_size(self) -> int | None:
        """Number of rows of the memory, or `None` before the first token."""
        return None if self.memory is None else self.memory.shape[0]

    @property
    def num_tokens(self) -> torch.Tensor | None:
        """Number of tokens `(B,)` that each row has read, without padding; `None` before the first token."""
        return self.layers[0].num_tokens

    @property
    def ends_in_padding(self) -> torch.Tensor | None:
        """Bool `(B,)`: after `generate()`, the rows that had ended before the last column, which no row has read; else `None`."""
        return self.layers[0].ends_in_padding

    @ends_in_padding.setter
    def ends_in_padding(self, rows: torch.Tensor | None) -> None:
        self.layers[0].ends_in_padding = rows

    def write(self, memory: torch.Tensor, num_columns: int, num_tokens: torch.Tensor | int) -> None:
        """See [`SmtMemoryLayer.write`]."""
        self.layers[0].write(memory, num_columns, num_tokens)


def check_cache(cache) -> SmtRnnCache:
    """Returns the cache itself, if it is an [`SmtRnnCache`].

    Raises:
        TypeError: if it is a cache of keys and values.
    """
    if not hasattr(cache, "memory"):  # not isinstance: a model loaded as remote code has its own class
        raise TypeError(f"cache is a {type(cache).__name__}: pass an SmtRnnCache or None")
    return cache
