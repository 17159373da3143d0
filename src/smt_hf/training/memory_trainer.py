"""What the trainers of students share: the memories watched, rollouts at evaluation, drift from the teacher."""

import math

from ..batch import IGNORED, Batch
from ..errors import InputError
from ..losses import LossTerm, cross_entropy, effective_rank, memory_variance
from ..rollout import drift, rollout
from .collapse import CollapseWarning
from .terms import at_temperature
from .trainer import TermsTrainer


class MemoryTrainer(TermsTrainer):
    """A [`TermsTrainer`] of a student: it logs the rank and the variance of memories, and rolls the student out."""

    def __init__(self, model, args, **kwargs):
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(CollapseWarning(self.args.collapse_variance, self.args.collapse_rank))
        self._last_memory = None
        self._last_batch = None

    def student(self):
        """The student, unwrapped."""
        raise NotImplementedError

    def watched(self, output):
        """The memories `(..., K, D)` whose rank and variance are logged."""
        return output.memory

    def active_terms(self):
        return [
            at_temperature(term, self.args.kd_temperature) if term.name == "kd" else term
            for term in super().active_terms()
            if term.name != "kd" or self.args.kd_weight
        ]

    def vocab_size(self):
        return self.student().config.vocab_size

    def keep(self, output, step):
        self._last_memory, self._last_batch = self.watched(output).detach(), step.batch

    def further_logs(self):
        logs = {"effective_rank": round(effective_rank(self._last_memory).item(), 3)}
        if self._last_memory.shape[:-2].numel() > 1:
            logs["memory_variance"] = round(memory_variance(self._last_memory).item(), 6)
        return logs

    def further_evaluation(self, batch):
        """Loss of the student's rollout from its initial memory, and with `shift_labels` the share that it gets right."""
        args = self.args
        if not args.eval_rollout_steps or len(self._evaluated.get("cold_start_loss", ())) >= args.eval_rollout_batches:
            return {}
        batch, student = batch.first(self.args.eval_rollout_steps), self.student()
        with self.accelerator.autocast():
            before, after = rollout(student, batch.input_ids, documents=batch.documents)
            if batch.shift_labels is not None:
                logits = student.readout(after)
                right = (logits.argmax(dim=-1) == batch.shift_labels).sum()
                return {
                    "cold_start_loss": cross_entropy(logits, batch.shift_labels),
                    "cold_start_accuracy": LossTerm(right, (batch.shift_labels != IGNORED).sum()),
                }
            labels = batch.labels
            if batch.documents is not None:
                labels = labels.masked_fill(batch.documents < 0, IGNORED)
            return {"cold_start_loss": cross_entropy(student.readout(before), labels)}


class TaughtTrainer(MemoryTrainer):
    """A [`MemoryTrainer`] whose student has a teacher: it logs how far the student's rollout drifts from it."""

    def teacher_model(self):
        """The teacher, to measure drift against."""
        raise NotImplementedError

    def check_backbone(self, teacher) -> None:
        """Checks that the teacher has what the terms need.

        Raises:
            InputError: if there is nothing to distil from.
        """
        if self.args.kd_weight and teacher.config.backbone_config is None:
            raise InputError(
                f"kd_weight={self.args.kd_weight:g} needs a teacher with a backbone, whose predictions are learned: leave it out, or "
                "build the teacher on a causal language model"
            )

    def check_length(self, batch: Batch) -> None:
        """Checks that a segment fits into a window.

        Raises:
            InputError: if it is longer.
        """
        length, segment_length = batch.input_ids.shape[1], self.args.segment_length
        if length < segment_length:
            raise InputError(f"windows of {length} tokens are shorter than segment_length={segment_length}: lower it")

    def segment_noise(self, segment_length: int) -> float:
        """NEFTune's alpha for the segments that the student reads.

        The library's noise shrinks with the root of the length that an embedding sees; every token of a short segment
        should get as much as one of the whole context.
        """
        return self.neftune_noise_alpha * math.sqrt(segment_length / self.args.context_length)

    def further_logs(self):
        logs = super().further_logs()
        if self.args.drift_steps:
            logs["drift"] = round(self._training_drift(), 6)
        return logs

    def _training_drift(self) -> float:
        batch, student = self._last_batch.first(self.args.drift_steps), self.student()
        training = student.training
        student.eval()
        with self.compute_loss_context_manager(), self.accelerator.autocast():
            value = drift(student, self.teacher_model(), batch.input_ids, batch.documents)[-1].item()
        student.train(training)
        return value
