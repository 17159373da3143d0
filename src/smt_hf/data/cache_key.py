"""Where the token cache of a corpus is stored: its name changes with everything that the cache depends on."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..utils.digests import value_digest
from .shards import Shard


@dataclass(frozen=True)
class CacheKey:
    """What a token cache holds, and therefore where it is stored.

    Attributes:
        source: the name of the corpus.
        fingerprint: JSON-ready values that decide what the cache holds.
        shard: the part of the corpus that it holds; `None` for all of it.
    """

    source: str
    fingerprint: dict
    shard: Shard | None = None

    @property
    def stem(self) -> str:
        """The beginning of the folder's name."""
        return re.sub(r"[^\w.]+", "_", self.source)[-40:].lstrip(".")

    def path(self, cache_dir: str | os.PathLike | None = None) -> Path:
        """The folder of the cache, in `cache_dir` or [`default_cache_dir`]."""
        whole = {name: value for name, value in self.fingerprint.items() if name != "shard"}
        suffix = "" if self.shard is None else self.shard.suffix
        folder = Path(cache_dir or default_cache_dir()).expanduser()
        return folder / f"{self.stem}-{value_digest(whole)[:16]}{suffix}"

    def of(self, shard: Shard | None) -> "CacheKey":
        """The key of one shard of the corpus."""
        if shard is None:
            return self
        return replace(self, shard=shard, fingerprint={**self.fingerprint, "shard": vars(shard)})


def default_cache_dir() -> Path:
    """`$SMT_HF_CACHE`, else `$HF_HOME/smt_hf`, else `~/.cache/smt_hf`."""
    hugging_face_home = os.environ.get("HF_HOME") or "~/.cache"
    return Path(os.environ.get("SMT_HF_CACHE") or Path(hugging_face_home) / "smt_hf").expanduser()
