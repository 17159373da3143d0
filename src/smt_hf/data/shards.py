"""The parts that a corpus is cut into, one per machine."""

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class Shard:
    """One of the contiguous parts of a corpus, as `datasets.Dataset.shard(num_shards, index, contiguous=True)` cuts them.

    Args:
        num_shards: number of parts.
        index: number of this part, from 0.

    Raises:
        InputError: for an index outside 0..num_shards-1.
    """

    num_shards: int
    index: int

    def __post_init__(self):
        if not 0 <= self.index < self.num_shards:
            raise InputError(
                f"shard_index={self.index} is out of range for num_shards={self.num_shards}: shards are numbered from 0 to "
                f"{self.num_shards - 1}"
            )

    def __str__(self) -> str:
        return f"shard {self.index} of {self.num_shards}"

    @property
    def suffix(self) -> str:
        """The suffix of a file or folder of this shard, as in the file names of datasets."""
        return f"-{self.index:05}-of-{self.num_shards:05}"

    def part(self, length: int) -> slice:
        """Its part of `length` things in order; the lengths of the parts differ by one at most."""
        each, more = divmod(length, self.num_shards)
        start = self.index * each + min(self.index, more)
        return slice(start, start + each + (self.index < more))

    def part_of_all(self, length: int, name: str, what: str) -> slice:
        """The same, but every part must have something.

        Args:
            length: number of things.
            name: name of the corpus, for the message.
            what: what the things are, for the message.

        Raises:
            InputError: if there are fewer things than shards.
        """
        if length < self.num_shards:
            raise InputError(f"num_shards={self.num_shards} exceeds the {length} {what} of {name}: lower it")
        return self.part(length)
