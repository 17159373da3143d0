"""Running text for BPTT whose memory is carried from one optimiser step to the next."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..errors import InputError
from ..utils.epochs import EpochDataset
from . import TokenCache
from .windows import window_at

CARRIED_FILE = "carried_memory.safetensors"


class TokenStreams(EpochDataset):
    """A corpus read by several streams at once: row r of a step continues row r of the step before.

    The corpus is a ring of segments, and every stream reads an equal arc of it. Item i is segment `i // num_streams` of stream
    `i % num_streams`, so that consecutive batches are consecutive optimiser steps. Where the arcs and the segments begin
    depends on the seed and the epoch. An item is `input_ids` and `documents`, both `(segment_length + 1,)`, whose last token
    is only a target, and the bool `continued`: whether the memory of the segment before is carried into it.

    Args:
        cache: the corpus.
        segment_length: tokens that a step reads.
        num_streams: rows of a step, over all processes and accumulated batches.
        seed: seed of the beginnings.

    Raises:
        InputError: if the corpus is too short for one segment per stream.
    """

    def __init__(self, cache: TokenCache, segment_length: int, num_streams: int, seed: int = 0):
        super().__init__()
        self.cache = cache
        self.window_length = segment_length
        self.num_streams = num_streams
        self.seed = seed
        self.num_segments = (cache.num_tokens - 1) // segment_length // num_streams
        if self.num_segments < 1:
            raise InputError(
                f"the corpus has {cache.num_tokens} tokens but {num_streams} streams of {segment_length} take "
                f"{num_streams * segment_length + 1}: use more text, or lower the batch size or bptt_horizon"
            )

    def identity(self) -> dict:
        """Identifies these streams; see [`smt_hf.training.resume.data_identity`]."""
        return {
            "kind": "TokenStreams",
            "tokens": self.cache.digest,
            "segment_length": self.window_length,
            "num_streams": self.num_streams,
            "seed": self.seed,
        }

    def __len__(self) -> int:
        return self.num_segments * self.num_streams

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        segment, stream = divmod(range(len(self))[index], self.num_streams)
        turn, shift = np.random.SeedSequence((self.seed, self.epoch)).generate_state(2, np.uint64)
        spare = self.cache.num_tokens - 1 - len(self) * self.window_length
        place = (stream * self.num_segments + segment + int(turn) % len(self)) % len(self)
        first = place * self.window_length + int(shift) % (min(spare, self.window_length - 1) + 1)
        continued = segment > 0 and place > 0 and not self._is_start(first)
        return {**window_at(self.cache, first, self.window_length + 1), "continued": torch.tensor(continued)}

    def _is_start(self, token: int) -> bool:
        starts = self.cache.document_starts
        found = int(np.searchsorted(starts, token))
        return found < len(starts) and int(starts[found]) == token


class CarriedMemory:
    """The memories `(B, K, D)` that the accumulated batches of one process carry into the next optimiser step.

    Args:
        by_process: whether a step's rows are divided process by process, as those of a [`TextStream`] are, each with all of its
            accumulated batches; otherwise batch by batch, the processes in turn.
    """

    def __init__(self, by_process: bool = False):
        self.by_process = by_process
        self.memories = []
        self.batch = 0

    def rewind(self) -> None:
        """Makes the next batch the first of an optimiser step."""
        self.batch = 0

    def take(self, continued: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """The memory before the next batch: the carried one where `continued`, bool `(B,)`, else `start` `(B, K, D)`."""
        if self.batch == len(self.memories):
            return start
        return torch.where(continued[:, None, None], self.memories[self.batch].to(start.dtype), start)

    def put(self, memory: torch.Tensor) -> None:
        """Keeps the memory after the batch."""
        self.memories[self.batch : self.batch + 1] = [memory.detach().clone()]
        self.batch += 1

    def save(self, folder: str, accelerator) -> None:
        """Writes the memories of all processes to a checkpoint, in the order of the streams: `(streams, K, D)`."""
        memories = [accelerator.gather(memory) for memory in self.memories]  # batch by batch, the processes in turn
        if memories and accelerator.is_main_process:
            memory = torch.stack(memories).unflatten(
                1, (accelerator.num_processes, -1)
            )  # (batches, processes, B, K, D)
            if self.by_process:
                memory = memory.transpose(0, 1)
            save_file({"memory": memory.flatten(0, 2).cpu().contiguous()}, Path(folder) / CARRIED_FILE)

    def load(self, folder: str, args) -> None:
        """Reads the memories of this process from a checkpoint, however the streams were divided before.

        Raises:
            InputError: if the checkpoint has no memories, or those of another number of streams.
        """
        file = Path(folder) / CARRIED_FILE
        if not file.is_file():
            raise InputError(f"{folder!r} has no {CARRIED_FILE}: resume without carry_memory, as it was saved")
        memory = load_file(file)["memory"]
        batches = memory.split(args.per_device_train_batch_size)
        expected = args.gradient_accumulation_steps * args.world_size
        if len(batches) != expected or len(batches[-1]) != args.per_device_train_batch_size:
            raise InputError(
                f"{folder!r} carries the memories of {len(memory)} streams, a step has {expected} batches of "
                f"{args.per_device_train_batch_size}: resume with as many rows per step"
            )
        own = batches[args.process_index :: args.world_size]
        if self.by_process:
            first = args.process_index * args.gradient_accumulation_steps
            own = batches[first : first + args.gradient_accumulation_steps]
        self.memories = [batch.to(args.device) for batch in own]
