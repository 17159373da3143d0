"""Stopping a training on a signal, with a checkpoint of the current step."""

import os
import signal
import threading

from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy


class StopAtSignal(TrainerCallback):
    """A context in which SIGINT and SIGTERM let a training finish its step, save a checkpoint and stop.

    A second signal, or a signal during evaluation, ends the training at once with what it has saved. So does any signal if
    there are several processes, which would stop at different steps.

    Attributes:
        number: the signal that was received, or `None`.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.number = None
        self._before = {}
        self._parent = os.getpid()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        self.trainer.add_callback(self)
        return self

    def __exit__(self, kind, error, traceback):
        self.trainer.remove_callback(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, _Now):
            self.number = error.number
            return True
        return None

    def _handle(self, number, frame):
        if os.getpid() != self._parent:  # a data worker that was forked with this handler; the training will end it
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.number is not None or self.trainer.args.world_size > 1:
            raise _Now(number)
        self.number = number

    def on_prediction_step(self, args, state, control, **kwargs):
        if self.number is not None:
            raise _Now(self.number)

    def on_step_end(self, args, state, control, **kwargs):
        if self.number is not None:
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = args.save_strategy != SaveStrategy.NO


class _Now(BaseException):
    def __init__(self, number: int):
        super().__init__(number)
        self.number = number
