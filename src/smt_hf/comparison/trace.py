"""Measuring a student on the way through its training."""

import time

from transformers import TrainerCallback


class Trace(TrainerCallback):
    """Measures the student at even shares of a training's time, which does not count the measuring.

    A training without a time limit is measured at even shares of its steps.

    Args:
        clock: the trainer's [`TrainClock`].
        measure: a function without arguments that returns a dictionary of numbers.
        num_points: measurements, the last of them at the end.
    """

    def __init__(self, clock, measure, num_points: int):
        self.clock = clock
        self.measure = measure
        self.num_points = num_points
        self.points = []
        self.wall_seconds = 0.0
        self._shares = 0
        self._since = None

    def on_train_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        now = time.monotonic()
        self.wall_seconds += now - self._since
        timed = self.clock.max_seconds is not None
        progress = self.clock.progress() if timed else state.global_step / state.max_steps
        shares = int(progress * self.num_points)
        if shares > self._shares or control.should_training_stop:
            self._shares = shares
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
