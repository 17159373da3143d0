"""`smt-hf tokenize`: encode a corpus into its token cache, on one machine or in shards on several."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data import ProcessingOptions, Shard, TextOptions, TokenCache
from ..errors import InputError
from .options import processing_for
from .parsing import Command, parse


@dataclass
class TokenizeOptions(TextOptions, ProcessingOptions):
    """What to encode, how, and which part of it."""

    model: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of a model; its tokenizer or image processor is used instead."},
    )
    num_shards: int | None = field(
        default=None, metadata={"help": "Number of shards to cut the corpus into, one per machine."}
    )
    shard_index: int | None = field(
        default=None, metadata={"help": "The shard to encode here, from 0 to num_shards - 1."}
    )
    merge: bool = field(
        default=False, metadata={"help": "Merge all shards, which must exist, into one cache, and remove them."}
    )

    def __post_init__(self):
        self.shard = None
        if self.num_shards is None:
            if self.shard_index is not None or self.merge:
                given = "merge" if self.merge else f"shard_index={self.shard_index}"
                raise InputError(f"{given} needs the number of shards: pass --num_shards")
            return
        if self.merge == (self.shard_index is not None):
            given = f"shard_index={self.shard_index} and merge" if self.merge else f"num_shards={self.num_shards}"
            raise InputError(f"{given}: pass --shard_index on each machine, or --merge true once all shards are there")
        if not self.merge:
            self.shard = Shard(self.num_shards, self.shard_index)


COMMAND = Command(
    name="tokenize",
    kinds=[TokenizeOptions],
    description="""Encode text or images into the token cache that every other command finds when it is given the same data, tokenizer
and cache_dir. Several machines can encode one shard each; the merged cache is byte for byte that of a single machine.""",
    example="""example:
  smt-hf tokenize stories.txt
  smt-hf tokenize corpus/ --num_shards 2 --shard_index 0   # one machine
  smt-hf tokenize corpus/ --num_shards 2 --shard_index 1   # another one
  smt-hf tokenize corpus/ --num_shards 2 --merge true      # when both are done""",
    positionals=["dataset"],
    required={"dataset": "a text file, a folder of them, images, or a Hub dataset id"},
)


def main(argv: Sequence[str]) -> TokenCache:
    """Runs the command and returns the cache."""
    (options,) = parse(COMMAND, argv)
    tokenizer = processing_for(options)
    options.check_honoured(tokenizer)
    if options.merge:
        cache = options.merged(tokenizer, options.num_shards)
    else:
        cache = options.tokens(tokenizer, options.shard)
    what = "" if options.shard is None else f"{options.shard}: "
    print(f"{what}{cache.num_tokens:,} tokens in {cache.num_documents:,} documents\n{cache.path}")
    return cache
