"""Measures a student during its training."""

import time
from bisect import bisect_right
from collections.abc import Sequence

from transformers import TrainerCallback

FIRST_SHARE = 1 / 64  # where logarithmic distances begin


def even_shares(num_points: int) -> list[float]:
    """Shares of a training at even distances; the last is its end."""
    return [point / num_points for point in range(1, num_points + 1)]


def logarithmic_shares(num_points: int) -> list[float]:
    """Shares of a training from `FIRST_SHARE` to its end, each the same multiple of the one before."""
    return [FIRST_SHARE ** (point / max(num_points - 1, 1)) for point in reversed(range(num_points))]


class Trace(TrainerCallback):
    """Measures the student at shares of a training's time, which does not include the measuring.

    A training without a time limit is measured at these shares of its steps.

    Args:
        clock: the trainer's [`TrainClock`].
        measure: a function without arguments that returns a dictionary of numbers.
        shares: when to measure, rising to 1. The end is measured in any case.
    """

    def __init__(self, clock, measure, shares: Sequence[float]):
        self.clock = clock
        self.measure = measure
        self.shares = shares
        self.points = []
        self.wall_seconds = 0.0
        self._reached = 0
        self._since = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.monotonic()
        self.wall_seconds += now - self._since
        timed = self.clock.max_seconds is not None
        progress = self.clock.progress() if timed else state.global_step / state.max_steps
        reached = bisect_right(self.shares, progress)
        if reached > self._reached or control.should_training_stop:
            self._reached = reached
            self.points.append(
                {
                    "steps": state.global_step,
                    "cpu_seconds": round(self.clock.elapsed, 3),
                    "wall_seconds": round(self.wall_seconds, 3),
                    **self.measure(),
                }
            )
            self.clock.skip()
            now = time.monotonic()
        self._since = now
