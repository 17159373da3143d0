"""What a training step looks at: which segments, which futures, which rollouts.

Drawn from the seed and the optimiser step alone, so that every micro-batch and every process of a step looks at the same
columns, and a resumed run at those of an uninterrupted one.
"""

import torch


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator that belongs to one optimiser step of one run."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def sample_segments(context_length: int, segment_length: int, num_segments: int, generator) -> torch.Tensor:
    """Draws where the student's segments start.

    Args:
        context_length: T; segments lie within columns 0..T-1.
        segment_length: J <= T.
        num_segments: S, at most; fewer where they would not fit side by side.
        generator: a CPU generator.

    Returns:
        Sorted columns `(S,)` a multiple of J apart, so that one's end is another's start; when there are several, the
        first is column 0, the cold start.
    """
    if num_segments == 1:
        return torch.randint(context_length - segment_length + 1, (1,), generator=generator)
    offset = int(torch.randint(segment_length, (1,), generator=generator))
    places = range(offset or segment_length, context_length - segment_length + 1, segment_length)
    starts = torch.tensor(places, dtype=torch.long)
    chosen = torch.randperm(len(starts), generator=generator)[: num_segments - 1]
    return torch.cat([torch.zeros(1, dtype=torch.long), starts[chosen].sort().values])


def add_pinned(starts: torch.Tensor, columns: list[int], segment_length: int, context_length: int) -> torch.Tensor:
    """Adds the segments that end in given columns to the drawn ones.

    Args:
        starts: columns `(S,)` where segments start.
        columns: columns in 0..T-1, or negative ones, counted from T.
        segment_length: J.
        context_length: T.

    Returns:
        Sorted columns, each once.
    """
    ends = torch.tensor(columns, dtype=torch.long) % context_length
    return torch.cat([starts, (ends + 1 - segment_length).clamp(min=0)]).unique()


def sample_decoded(positions: torch.Tensor, num_decoded: int, generator) -> torch.Tensor:
    """Draws `num_decoded` of the encoded positions `(P,)`, all when there are no more: `(M,)`, sorted."""
    return positions[torch.randperm(len(positions), generator=generator)[:num_decoded].sort().values]
