"""Callbacks of the trainers."""

import time

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}


class TrainClock(TrainerCallback, ExportableState):
    """Counts the seconds of training, without evaluation, and stops the training when the time is used up.

    The count is saved in checkpoints, so that a resumed run continues with the time left.
    """

    def __init__(self, max_seconds: float | None = None, clock: str = "wall", elapsed: float = 0.0):
        self.max_seconds = max_seconds
        self.clock = clock
        self.elapsed = elapsed
        self._since = None

    def progress(self) -> float:
        """The fraction of the time that has been used, between 0 and 1; 0 without a limit."""
        return 0.0 if self.max_seconds is None else min(self.elapsed / self.max_seconds, 1.0)

    def on_train_begin(self, args, state, control, **kwargs):
        # The Trainer itself restores this state only with restore_callback_states_from_checkpoint.
        self.elapsed = state.stateful_callbacks[type(self).__name__]["args"]["elapsed"]
        self._since = CLOCKS[self.clock]()

    def on_step_end(self, args, state, control, **kwargs):
        now = CLOCKS[self.clock]()
        self.elapsed += now - self._since
        self._since = now
        if self.progress() >= 1.0:
            control.should_training_stop = True
            control.should_log = True
            if args.save_strategy == SaveStrategy.STEPS:  # as the library does at the end of max_steps
                control.should_save = True

    def skip(self) -> None:
        """Restarts the clock, so that the time since the last step is not counted."""
        self._since = CLOCKS[self.clock]()

    def on_evaluate(self, args, state, control, **kwargs):
        self.skip()

    def state(self) -> dict:
        return {
            "args": {"max_seconds": self.max_seconds, "clock": self.clock, "elapsed": self.elapsed},
            "attributes": {},
        }


class DatasetEpoch(TrainerCallback):
    """Tells the training data the epoch, so that windows move; Accelerate tells only samplers that ask for it."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = getattr(train_dataloader, "dataset", None)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int((state.epoch or 0) + 1e-6))


class ClockProgress(ProgressCallback):
    """The progress bar for a training with a time limit: in seconds, with the step next to it."""

    def __init__(self, clock: TrainClock):
        super().__init__()
        self.clock = clock

    def on_train_begin(self, args, state, control, **kwargs):
        self.shown = self.clock.elapsed
        if state.is_world_process_zero:
            form = "{desc}{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
            self.training_bar = tqdm(
                total=self.clock.max_seconds, initial=self.shown, dynamic_ncols=True, bar_format=form
            )

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            elapsed = min(self.clock.elapsed, self.clock.max_seconds)
            self.training_bar.set_postfix(step=state.global_step, refresh=False)
            self.training_bar.update(elapsed - self.shown)
            self.shown = elapsed
