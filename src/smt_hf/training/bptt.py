"""BPTT: the student alone, by back-propagation through time, full or truncated."""

import torch
from torch.utils.data import SequentialSampler

from ..data.streams import CarriedMemory, TokenStreams
from ..errors import InputError
from ..losses import IGNORED, LossTerm, cross_entropy, first_targets, next_targets
from ..models.cache_smt_rnn import SmtRnnCache
from .trainer import MemoryTrainer, target_columns


class BpttTrainer(MemoryTrainer):
    """Trains an [`SmtRnnForCausalLM`] on the next token, from new weights or from a checkpoint: SMT's rival and finisher.

    Data items are dictionaries of `input_ids` `(T,)` and, as needed, `labels` (ids at their own positions, -100 is ignored:
    what every language-modelling collator gives), `shift_labels` (targets that are aligned already: number t is read from the
    memory after token t), `attention_mask` and `document_ids`, all `(T,)`. Documents start from the initial memory; padding
    moves no memory.

    Args:
        model: the student.
        args: [`BpttTrainingArguments`].
        **kwargs: those of `transformers.Trainer`. With `carry_memory` the training data are `TokenWindows`, whose text is
            read in streams.

    Raises:
        InputError: if the data are not what the arguments need.
        FloatingPointError: when a loss is no finite number, before it reaches the weights.
    """

    counted = "tokens"

    def __init__(self, model, args, **kwargs):
        self.carried, self._windows = None, kwargs.get("train_dataset")
        if args.carry_memory and self._windows is not None:
            kwargs["train_dataset"] = streams(self._windows, args, args.per_device_train_batch_size)
            self.carried = CarriedMemory()
        super().__init__(model=model, args=args, **kwargs)

    def student(self):
        return self.accelerator.unwrap_model(self.model)

    def weight(self, name):
        return 1.0  # the next-token loss is all there is

    def draw_plan(self, inputs, generator):
        if "shift_labels" not in inputs and inputs["input_ids"].shape[1] < 2:
            raise InputError("windows of 1 token have no next token: give longer ones, or shift_labels")
        return {}

    def _read(self, inputs) -> tuple[dict, torch.Tensor, torch.Tensor | None]:
        """What the student reads, `(B, T')`, the target after each of these tokens, and the targets of the initial memory."""
        columns = target_columns(inputs)
        read = {name: columns[name] for name in ("input_ids", "attention_mask", "document_ids") if name in columns}
        targets = next_targets(**columns)[:, 1:]
        if "shift_labels" in columns:
            return read, targets, None
        first = None
        if self.args.train_start:
            masks, labels = {**read}, columns.get("labels", read["input_ids"])
            del masks["input_ids"]
            begins = inputs.get("begins")
            first = first_targets(labels, **masks, continued=None if begins is None else ~begins)
            if begins is not None:
                first[:, -1] = IGNORED  # the next segment's first token
        return {name: ids[:, :-1] for name, ids in read.items()}, targets[:, :-1], first

    def count_items(self, inputs, plan):
        _, targets, first = self._read(inputs)
        count = (targets != IGNORED).sum()
        return {"readout": count if first is None else count + (first != IGNORED).sum()}

    def num_transitions(self, inputs, plan):
        read, _, _ = self._read(inputs)
        return read["attention_mask"].sum() if "attention_mask" in read else read["input_ids"].numel()

    def loss_terms(self, model, inputs, plan):
        read, targets, first = self._read(inputs)
        student = self.accelerator.unwrap_model(model)
        options = {}
        if "begins" in inputs:
            start = student.model.start_memory(len(inputs["begins"]))
            options["cache"] = SmtRnnCache(self.carried.take(inputs["begins"], start))
        if model.training and self.args.checkpoint_steps is not None:
            options["checkpoint_steps"] = self.args.checkpoint_steps
        output = model(**read, **options, bptt_horizon=self.args.bptt_horizon, output_memory=True, use_cache=False)
        if "begins" in inputs:
            self.carried.put(output.memory[:, -1])
        term = cross_entropy(output.logits, targets)
        if first is not None:
            with self.accelerator.autocast():
                logits = student.readout(student.initial_memory).float()
            total = -logits.log_softmax(dim=-1)[first[first != IGNORED]].sum()
            term = LossTerm(term.total + total, term.count + (first != IGNORED).sum())
        return {"readout": term}, {}, output.memory

    # ---- the memory that goes from step to step --------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset=None):
        if self.carried is None:
            return super()._get_train_sampler(train_dataset)
        return SequentialSampler(self.train_dataset)

    def _update_auto_batch_size(self, batch_size):
        super()._update_auto_batch_size(batch_size)
        if self.carried is not None:  # the training begins again, with fewer rows
            self.train_dataset = streams(self._windows, self.args, batch_size)
            self.carried = CarriedMemory()

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if self.carried is not None:
            self.carried.rewind()
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def save_further_state(self, output_dir):
        if self.carried is not None:
            self.carried.save(output_dir, self.accelerator)

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        if self.carried is not None and checkpoint is not None:
            self.carried.load(checkpoint, self.args)


def streams(dataset, args, batch_size: int) -> TokenStreams:
    """The text of `TokenWindows` in as many streams as an optimiser step has rows, `batch_size` a process and batch.

    Raises:
        InputError: if the data are something else, or too short.
    """
    if not hasattr(dataset, "cache"):
        raise InputError(
            f"carry_memory reads running text, not a {type(dataset).__name__}: give TokenWindows, or leave carry_memory out"
        )
    rows = batch_size * args.gradient_accumulation_steps * args.world_size
    seed = args.seed if args.data_seed is None else args.data_seed
    return TokenStreams(dataset.cache, args.bptt_horizon, rows, seed=seed)
