"""Keeps memories by the tokens that they have read, so that nothing is read twice."""

import hashlib
import secrets
from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np
import torch

SMALLEST = 64  # while a prompt is read, snapshots are taken at this position and at every doubling of it
OVERHEAD = 600  # approximate bytes of an entry besides its memory


class Found(NamedTuple):
    """A memory `(K, D)` and the number of tokens that it has read."""

    memory: torch.Tensor
    length: int


class PrefixCache:
    """A cache of the memories of prefixes; the least recently used are dropped first.

    A memory is looked up by the hash of its tokens and returned only if their digest matches. The tokens themselves are not
    kept.

    Args:
        max_bytes: limit on the size of all memories together, overhead included.
        owner: distinguishes students that share a cache, for example by their fingerprint.
    """

    def __init__(self, max_bytes: int = 256 << 20, owner: str = ""):
        self.max_bytes = max_bytes
        self.owner = owner
        self.num_bytes = 0
        self.entries: OrderedDict[tuple[int, int], tuple[bytes, torch.Tensor]] = OrderedDict()
        self.lengths: Counter[int] = Counter()
        self.base = np.uint64(secrets.randbits(63) | 1)  # so that no outsider can make two prefixes collide
        self.powers = np.ones(1, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, ids: np.ndarray) -> Found | None:
        """The memory of the longest known prefix of the tokens, which may be all of them."""
        if not self.entries or not len(ids):
            return None
        hashes = self._hashes(ids)
        for length in sorted((length for length in self.lengths if length <= len(ids)), reverse=True):
            key = (length, int(hashes[length - 1]))
            entry = self.entries.get(key)
            if entry is not None and entry[0] == self._digest(ids[:length]):
                self.entries.move_to_end(key)
                return Found(entry[1], length)
        return None

    def keep(self, ids: np.ndarray, memory: torch.Tensor) -> None:
        """Stores a copy of the memory `(K, D)` that has read these tokens and nothing before them."""
        size = memory.numel() * memory.element_size() + OVERHEAD
        if not len(ids) or size > self.max_bytes:
            return
        key = (len(ids), int(self._hashes(ids)[-1]))
        if key in self.entries:
            self.entries.move_to_end(key)
            return
        self.entries[key] = (self._digest(ids), memory.clone())
        self.lengths[key[0]] += 1
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            (length, _), _ = self.entries.popitem(last=False)
            self.num_bytes -= size
            self.lengths[length] -= 1
            if not self.lengths[length]:
                del self.lengths[length]

    def _hashes(self, ids: np.ndarray) -> np.ndarray:
        """Hashes of all prefixes: sums of (token + 1) times powers of the base, modulo 2**64."""
        if len(self.powers) < len(ids):
            size = 1 << len(ids).bit_length()
            factors = np.full(size, self.base, dtype=np.uint64)
            factors[0] = 1
            self.powers = np.multiply.accumulate(factors)
        return np.add.accumulate((ids.astype(np.uint64) + np.uint64(1)) * self.powers[: len(ids)])

    def _digest(self, ids: np.ndarray) -> bytes:
        digest = hashlib.blake2b(self.owner.encode(), digest_size=16)
        digest.update(np.ascontiguousarray(ids, dtype=np.int64))
        return digest.digest()


def is_milestone(position: int) -> bool:
    """Whether a snapshot is taken after `position` tokens of a prompt."""
    return position >= SMALLEST and position & (position - 1) == 0
