"""What SMT and DMT share besides: a teacher to measure the student against."""

import math

from ..rollout import drift
from .trainer import MemoryTrainer, first_columns


class TaughtTrainer(MemoryTrainer):
    """A [`MemoryTrainer`] whose student has a teacher: it logs how far the student's rollout drifts from it."""

    def teacher_model(self):
        """The teacher, to measure drift against."""
        raise NotImplementedError

    def segment_noise(self, segment_length: int) -> float:
        """NEFTune's alpha for the segments that the student reads.

        The library's noise shrinks with the root of the length that an embedding sees; every token of a short segment
        should get as much as one of the whole context.
        """
        return self.neftune_noise_alpha * math.sqrt(segment_length / self.args.context_length)

    def further_logs(self):
        return {"drift": round(self._training_drift(), 6)} if self.args.drift_steps else {}

    def _training_drift(self) -> float:
        input_ids, documents = first_columns(self._last_inputs, self.args.drift_steps)
        student = self.student()
        training = student.training
        student.eval()
        with self.compute_loss_context_manager(), self.accelerator.autocast():
            value = drift(student, self.teacher_model(), input_ids, documents)[-1].item()
        student.train(training)
        return value
