"""What all trainers share: exact averaging, a clock, logs of every term, rollouts at evaluation, a stop on NaN."""

import json
import logging
import time
from collections import defaultdict

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import ProgressCallback, Trainer, get_scheduler

from ..data import TokenCache, collate, without_special_tokens
from ..errors import InputError
from ..hub import write_card
from ..losses import IGNORED, LossTerm, cross_entropy, effective_rank, memory_variance
from ..models.documents_smt import separate_padding
from ..models.pretrained_smt import first_of, missing_weights
from ..rollout import rollout
from .callbacks import ClockProgress, DatasetEpoch, TrainClock
from .collapse import CollapseWarning
from .optimizers import MuonAndAdamW
from .resume import STATE, check_settings, checkpoint_to_resume, settings_of, write_manifest
from .sampling import step_generator
from .supported import SHARDING, check_callables, check_supported, schedule_options

logger = logging.getLogger(__name__)


class MemoryTrainer(Trainer):
    """A `Trainer` whose loss is a weighted sum of terms, each averaged over all items of the optimiser step.

    A subclass says which columns a step looks at (`draw_plan`), how many items each term has (`count_items`), and what
    the terms are (`loss_terms`).
    """

    counted = "transitions"  # what `num_transitions` counts, for the logs
    loss_is_scaled_for_ga = True  # every term is divided by its items in the whole accumulated batch

    def __init__(self, model, args, **kwargs):
        check_supported(args)
        check_callables(kwargs, args.muon)
        kwargs["data_collator"] = kwargs.get("data_collator") or collate
        reads_text = isinstance(getattr(kwargs.get("train_dataset"), "cache", None), TokenCache)
        if reads_text and kwargs.get("processing_class") is not None:  # is saved as it was used
            kwargs["processing_class"] = without_special_tokens(kwargs["processing_class"])
        super().__init__(model=model, args=args, **kwargs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError(f"accelerate is configured for FSDP or DeepSpeed: {SHARDING['fsdp']}")
        self._given_schedule = self.lr_scheduler is not None
        if self._given_schedule and args.max_train_seconds is not None:
            raise InputError("optimizers: max_train_seconds has a schedule of its own: give the optimizer alone")
        if self.args.n_gpu > 1:
            logger.warning("using one of %d GPUs: start with `accelerate launch` to use them all", self.args.n_gpu)
            self.args._n_gpu = 1
        self.clock = TrainClock(self.args.max_train_seconds, self.args.train_clock)
        self.add_callback(self.clock)
        self.add_callback(DatasetEpoch())
        self.add_callback(CollapseWarning(self.args.collapse_variance, self.args.collapse_rank))
        if self.args.max_train_seconds is not None and self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ClockProgress(self.clock))
        self._draw = (self.args.seed, 0)  # what the columns of the current step depend on
        self._logged = defaultdict(float)
        self._steps_with = defaultdict(int)  # steps in which a term had anything to average
        self._num_transitions = 0
        self._log_time = time.monotonic()
        self._num_steps = 0
        self._last_memory = None
        self._last_inputs = None
        self._settings = None  # of the run, for its checkpoints
        self.changes = []  # what was changed when the run was resumed

    # ---- what a subclass defines -----------------------------------------------------------------------------------

    def draw_plan(self, inputs: dict, generator: torch.Generator) -> dict:
        """The columns of a batch that an optimiser step looks at; the same for all batches of one length."""
        raise NotImplementedError

    def count_items(self, inputs: dict, plan: dict) -> dict[str, torch.Tensor]:
        """The number of items of every averaged term in one batch."""
        raise NotImplementedError

    def loss_terms(self, model, inputs: dict, plan: dict) -> tuple[dict, dict, torch.Tensor]:
        """The averaged terms (`LossTerm`), the other terms (scalars), and the memories `(..., K, D)` to watch."""
        raise NotImplementedError

    def num_transitions(self, inputs: dict, plan: dict) -> int:
        """Steps of the student that a batch trains."""
        raise NotImplementedError

    def student(self):
        """The student, unwrapped."""
        raise NotImplementedError

    def weight(self, name: str) -> float:
        """The weight of a term in the loss."""
        return getattr(self.args, f"{name}_weight")

    def further_settings(self) -> dict:
        """What the outcome depends on besides the arguments, the model's sizes and the data, for resumed runs to compare."""
        return {}

    def further_logs(self) -> dict[str, float]:
        """What is logged besides the terms, their speed, and the rank and the variance of the memories."""
        return {}

    # ---- resuming ------------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """As [`Trainer.train`]; a run goes on from a whole checkpoint and with its settings, or not at all.

        Raises:
            InputError: for a checkpoint that is damaged, incomplete or of other settings, each named.
        """
        self._settings = settings_of(self)
        if not resume_from_checkpoint:
            return super().train(None, *args, **kwargs)
        folder, manifest = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir)
        saved, accepted = manifest["settings"], self.args.accept_changes
        changed = check_settings(folder, saved, self._settings, accepted)
        step = json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"]
        self.changes = manifest["changes"]
        if changed:
            self.changes = [*self.changes, {"step": step, "settings": changed}]
            listed = ", ".join(f"{name}={new!r} (before: {old!r})" for name, (old, new) in changed.items())
            logger.warning("resumed from step %d with %s", step, listed)
        self._rate_change = self._settings["learning_rate"] / (saved["learning_rate"] or 1.0)
        return super().train(str(folder), *args, **kwargs)

    def _run_epoch(self, **kwargs):
        finished = self.state.global_step >= self.state.max_steps or self.clock.progress() >= 1.0
        if finished:  # resumed at its end: the library would train one step more
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self._rate_change != 1.0:
            self._scale_learning_rate(self._rate_change)

    def _scale_learning_rate(self, factor: float) -> None:
        """Makes a restored schedule go on at `factor` times its learning rates."""
        for group in self.optimizer.param_groups:
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] = group[name] * factor
        for name in ("base_lrs", "_last_lr"):
            if hasattr(self.lr_scheduler, name):
                setattr(self.lr_scheduler, name, [rate * factor for rate in getattr(self.lr_scheduler, name)])

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self.save_further_state(output_dir)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(output_dir, self._settings, self.changes)

    def save_further_state(self, output_dir: str) -> None:
        """Writes what else a resumed run needs into a checkpoint; called on every process."""

    # ---- the loss --------------------------------------------------------------------------------------------------

    def _plan(self, inputs) -> dict:
        return self.draw_plan(inputs, step_generator(*self._draw))

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self._draw = (self.args.seed, self.state.global_step)
        self._num_steps += 1
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def _get_num_items_in_batch(self, batch_samples, device):
        if not batch_samples:
            return None
        for batch in batch_samples:
            check_token_ids(batch, self.student().config.vocab_size)
        counts = [self.count_items(batch, self._plan(batch)) for batch in batch_samples]
        total = torch.stack([sum(count[name] for count in counts) for name in counts[0]]).to(device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        for name, count in zip(counts[0], total.tolist(), strict=True):
            self._steps_with[name] += count > 0
        return dict(zip(counts[0], total, strict=True))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        plan = self._plan(inputs)
        averaged, others, memory = self.loss_terms(model, inputs, plan)
        world_size = self.args.world_size
        share = 1 / (self.current_gradient_accumulation_steps * world_size)
        parts = {}
        for name, term in averaged.items():
            count = term.count if num_items_in_batch is None else num_items_in_batch[name]
            part = term.total / count.clamp(min=1)
            parts[name] = part if num_items_in_batch is not None else part * share
        for name, value in others.items():
            parts[name] = value * share
        loss = sum(self.weight(name) * part for name, part in parts.items())
        if not torch.isfinite(loss):
            values = ", ".join(f"{name}={part.item():.4g}" for name, part in parts.items())
            raise FloatingPointError(
                f"the loss became {loss.item()} at step {self.state.global_step + 1} ({values}): lower learning_rate "
                f"(now {self._get_learning_rate():.3g}) or max_grad_norm, and resume from the last checkpoint"
            )
        for name, part in parts.items():
            self._logged[name] += part.detach()
        self._num_transitions += self.num_transitions(inputs, plan)
        self._last_memory, self._last_inputs = memory.detach(), inputs
        return loss * world_size  # the processes' gradients are averaged

    # ---- logs ------------------------------------------------------------------------------------------------------

    def log(self, logs, start_time=None):
        if "train_loss" in logs and self.state.global_step == self._initial_global_step:
            return  # resumed at its end: nothing was trained
        if "loss" in logs and self._num_steps:
            steps, now = self._num_steps, time.monotonic()
            names = sorted(self._logged)
            values = torch.stack(
                [self._logged[name].float() for name in names]
                + [torch.tensor(float(self._num_transitions), device=self.args.device)]
            )
            values = self.accelerator.reduce(values, "sum")
            for name, value in zip(names, values[:-1].tolist(), strict=True):
                counted = self._steps_with.get(name, steps)
                if counted:  # a term of few labels may have had none
                    logs[name] = round(value / counted, 6)
            logs[f"{self.counted}_per_second"] = round(values[-1].item() / max(now - self._log_time, 1e-9), 1)
            logs["effective_rank"] = round(effective_rank(self._last_memory).item(), 3)
            if self._last_memory.shape[:-2].numel() > 1:
                logs["memory_variance"] = round(memory_variance(self._last_memory).item(), 6)
            logs.update(self.further_logs())
            self._logged.clear()
            self._steps_with.clear()
            self._num_transitions, self._num_steps, self._log_time = 0, 0, time.monotonic()
        super().log(logs, start_time)

    # ---- evaluation ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        inputs = self._prepare_inputs(inputs)
        self._draw = (0, 0)  # always the same columns, so that evaluations compare
        with self.accelerator.autocast():
            averaged, others, _ = self.loss_terms(model, inputs, self._plan(inputs))
        terms = averaged | {name: LossTerm(value, torch.ones_like(value)) for name, value in others.items()}
        loss = sum(self.weight(name) * term.mean for name, term in terms.items())
        if self.args.eval_rollout_steps and len(self._evaluated["cold_start_loss"]) < self.args.eval_rollout_batches:
            terms |= self._cold_start_terms(inputs)
        for name, term in terms.items():
            self._evaluated[name].append(torch.stack([term.total.detach().float(), term.count.float()]))
        return loss.detach(), None, None

    def _cold_start_terms(self, inputs) -> dict[str, LossTerm]:
        """Loss of the student's rollout from its initial memory, and with `shift_labels` the share that it gets right."""
        input_ids, documents = first_columns(inputs, self.args.eval_rollout_steps)
        student, length = self.student(), input_ids.shape[1]
        with self.accelerator.autocast():
            before, after = rollout(student, input_ids, document_ids=documents)
            if "shift_labels" in inputs:
                logits, targets = student.readout(after), inputs["shift_labels"][:, :length]
                right = (logits.argmax(dim=-1) == targets).sum()
                return {
                    "cold_start_loss": cross_entropy(logits, targets),
                    "cold_start_accuracy": LossTerm(right, (targets != IGNORED).sum()),
                }
            labels = inputs.get("labels", inputs["input_ids"])[:, :length]
            if documents is not None:
                labels = labels.masked_fill(documents < 0, IGNORED)
            return {"cold_start_loss": cross_entropy(student.readout(before), labels)}

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        self._evaluated = defaultdict(list)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        for name, values in self._evaluated.items():
            total, count = self.accelerator.reduce(torch.stack(values).sum(dim=0), "sum").tolist()
            if count:  # nothing is said of a term that no window of the evaluation has
                output.metrics[f"{metric_key_prefix}_{name}"] = total / count
        return output

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def _issue_warnings_after_load(self, load_result):
        """What the library warns of is an error, but for the names of tied weights that stand there under others."""
        faults = {
            "lacks": missing_weights(self.model, load_result.missing_keys),
            "holds besides": load_result.unexpected_keys,
        }
        for fault, names in faults.items():
            if names:
                raise InputError(f"the checkpoint {fault} {first_of(names)}: give one that this model wrote")

    # ---- sharing ---------------------------------------------------------------------------------------------------

    def predict(self, *args, **kwargs):
        """Not for these trainers.

        Raises:
            InputError: always; an evaluation here gathers losses and no predictions.
        """
        raise InputError(
            "predict() cannot be honoured: use evaluate() for losses, or the student's own forward or generate()"
        )

    def create_model_card(self, **kwargs):
        """Fills the card from the output folder, see [`smt_hf.hub.write_card`]; called by `push_to_hub`."""
        if self.is_world_process_zero():
            write_card(self.args.output_dir, self.hub_model_id, kwargs.get("license"))

    # ---- optimiser and schedule ------------------------------------------------------------------------------------

    def create_optimizer(self, model=None):
        if not self.args.muon or self.optimizer is not None:
            return super().create_optimizer(model)
        args = self.args
        self.optimizer = MuonAndAdamW(
            self.model if model is None else model,
            lr=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            eps=args.adam_epsilon,
            weight_decay=args.weight_decay,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self._given_schedule:
            return self.lr_scheduler
        timed = self.args.max_train_seconds is not None
        resolution = 100_000 if timed else num_training_steps  # with a clock: shares of the time instead of steps
        optimizer = self.optimizer if optimizer is None else optimizer
        warmup_steps = self.args.get_warmup_steps(resolution)
        if warmup_steps >= resolution and warmup_steps > 1:
            raise InputError(
                f"warmup_steps={self.args.warmup_steps:g} is as long as the training of {resolution} steps: lower it"
            )
        self.lr_scheduler = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=warmup_steps,
            num_training_steps=resolution,
            scheduler_specific_kwargs=schedule_options(self.args.lr_scheduler_kwargs or {}, resolution),
        )
        if timed:
            factors = self.lr_scheduler.lr_lambdas
            self.lr_scheduler = LambdaLR(
                optimizer,
                [lambda _, factor=factor: factor(int(self.clock.progress() * resolution)) for factor in factors],
            )
        self._created_lr_scheduler = True
        return self.lr_scheduler


def first_columns(inputs: dict, length: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first tokens of a batch and their document ids, padding being a document of its own."""
    documents = separate_padding(inputs["input_ids"], inputs.get("attention_mask"), inputs.get("document_ids"))
    return inputs["input_ids"][:, :length], None if documents is None else documents[:, :length]


def target_columns(inputs: dict) -> dict[str, torch.Tensor]:
    """What [`smt_hf.losses.next_targets`] makes the targets of a batch from."""
    names = ("input_ids", "labels", "shift_labels", "attention_mask", "document_ids")
    return {name: inputs[name] for name in names if inputs.get(name) is not None}


def check_token_ids(inputs: dict, vocab_size: int) -> None:
    """Checks that every token id of a batch has an embedding, and every label a logit.

    Raises:
        InputError: naming the id.
    """
    for name in ("labels", "shift_labels"):
        labels = inputs.get(name)
        if labels is None:
            continue
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= vocab_size))]
        if len(wrong):
            raise InputError(
                f"{name} hold {int(wrong[0])}, which is neither {IGNORED} nor one of the model's {vocab_size} ids: correct the "
                "labels"
            )
    low, high = (int(value) for value in torch.aminmax(inputs["input_ids"]))
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the model's vocabulary of {vocab_size} ids: use the "
            "tokenizer that the model was made for, or make the model with a larger vocab_size"
        )
