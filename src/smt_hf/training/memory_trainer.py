"""The base of the student trainers: logs of memories, carried memory, evaluation rollouts, drift from the teacher."""

import math
from typing import Any

from torch.utils.data import SequentialSampler

from ..batch import IGNORED, Batch
from ..data import TextStream
from ..errors import InputError
from ..losses import LossTerm, cross_entropy, effective_rank, memory_variance
from ..rollout import drift, rollout
from .collapse import CollapseWarning
from .terms import at_temperature
from .trainer import TermsTrainer


class MemoryTrainer(TermsTrainer):
    """A [`TermsTrainer`] for a student, which logs the rank and variance of memories and evaluates rollouts."""

    carried: Any = None  # what is carried from one optimiser step to the next, see `carry`

    def __init__(self, model, args, **kwargs):
        self._windows = kwargs.get("train_dataset")
        if getattr(args, "carry_memory", False) and self._windows is not None:
            kwargs["train_dataset"], self.carried = self.carry(self._windows, args, args.per_device_train_batch_size)
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
        """Loss of the student's rollout from its initial memory and, with `shift_labels`, its accuracy."""
        args = self.args
        if not args.eval_rollout_steps or len(self._evaluated.get("cold_start_loss", ())) >= args.eval_rollout_batches:
            return {}
        batch = batch.first(self.args.eval_rollout_steps)
        with self.accelerator.autocast():
            return self.gathered(lambda: self._cold_start(batch))

    def _cold_start(self, batch: Batch) -> dict[str, LossTerm]:
        student = self.student()
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

    # ---- the memory carried from step to step ----------------------------------------------------------------------

    def carry(self, dataset, args, batch_size: int) -> tuple:
        """The data set that the rows of a step read, and the object that keeps their memories.

        Args:
            dataset: the training data.
            args: the trainer's arguments.
            batch_size: rows of a batch of one process.

        Raises:
            InputError: if a memory cannot be carried through the data.
        """
        raise NotImplementedError

    def _get_train_sampler(self, train_dataset=None):
        if self.carried is None or isinstance(self.train_dataset, TextStream):
            return super()._get_train_sampler(train_dataset)
        return SequentialSampler(self.train_dataset)

    def _update_auto_batch_size(self, batch_size):
        super()._update_auto_batch_size(batch_size)
        if self.carried is not None:  # the training starts over, with fewer rows
            self.train_dataset, self.carried = self.carry(self._windows, self.args, batch_size)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self.carried is not None:
            self.carried.rewind()
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def save_further_state(self, output_dir):
        super().save_further_state(output_dir)
        if self.carried is not None:
            self.carried.save(output_dir, self.accelerator)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        if self.carried is not None and checkpoint is not None:
            self.carried.load(checkpoint, self.args)


class TaughtTrainer(MemoryTrainer):
    """A [`MemoryTrainer`] whose student has a teacher; it logs how far the student's rollout drifts from it."""

    def teacher_model(self):
        """The teacher that drift is measured against."""
        raise NotImplementedError

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

        The library's noise shrinks with the square root of the length of the input. Every token of a short segment should get
        as much noise as a token of the whole context.
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
            steps = self.gathered(lambda: drift(student, self.teacher_model(), batch.input_ids, batch.documents))
        student.train(training)
        return steps[-1].item()


def check_backbone(args, teacher) -> None:
    """Checks that the teacher has what the terms need.

    Raises:
        InputError: if there is nothing to distil from.
    """
    if args.kd_weight and teacher.config.backbone_config is None:
        raise InputError(
            f"kd_weight={args.kd_weight:g} needs a teacher with a backbone, whose predictions the student learns: leave it out, or "
            "build the teacher on a causal language model"
        )
