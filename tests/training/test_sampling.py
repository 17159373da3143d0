"""What a step looks at depends on the seed and the step alone, and covers everything in time."""

import pytest
import torch

from smt_hf.training.smt import add_pinned, sample_decoded, sample_segments
from smt_hf.training.terms import step_generator


def test_a_step_is_reproducible_and_steps_differ():
    draws = [sample_segments(64, 1, 8, step_generator(3, step)).tolist() for step in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("context, length, number", [(64, 1, 8), (64, 16, 4), (64, 16, 99), (10, 10, 1), (7, 3, 2)])
def test_segments_fit_and_start_cold(context, length, number):
    for step in range(50):
        starts = sample_segments(context, length, number, step_generator(0, step))
        assert starts[0] == 0 or number == 1
        assert len(starts) <= number
        assert starts.tolist() == sorted(set(starts.tolist()))
        assert starts[-1] + length <= context
        assert starts.min() >= 0
        assert (starts[1:] % length).unique().numel() <= 1


def test_a_single_segment_may_lie_anywhere():
    starts = {int(sample_segments(6, 2, 1, step_generator(0, step))[0]) for step in range(100)}
    assert starts == {0, 1, 2, 3, 4}


def test_every_column_is_trained_in_time():
    seen = set()
    for step in range(400):
        for start in sample_segments(40, 4, 3, step_generator(0, step)).tolist():
            seen.update(range(start, start + 4))
    assert seen == set(range(40))


def test_decoded_positions_are_encoded_ones():
    positions = torch.tensor([-1, 2, 3, 9])
    assert set(sample_decoded(positions, 2, step_generator(0, 0)).tolist()) <= {-1, 2, 3, 9}
    assert sample_decoded(positions, 9, step_generator(0, 0)).tolist() == [-1, 2, 3, 9]


def test_pinned_columns_are_always_among_the_segments():
    starts = torch.tensor([0, 8, 20])
    assert add_pinned(starts, [-1], 1, 32).tolist() == [0, 8, 20, 31]
    assert add_pinned(starts, [23, -1], 4, 32).tolist() == [0, 8, 20, 28]
    assert add_pinned(starts, [1], 4, 32).tolist() == [0, 8, 20]  # no segment begins before the window
