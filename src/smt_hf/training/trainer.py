"""The base of all trainers: exact averaging, a clock, logs of every term, a stop on NaN."""

import functools
import logging
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from accelerate.utils import convert_outputs_to_fp32
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import ProgressCallback, get_scheduler

from ..batch import IGNORED, Batch
from ..data import TextStream, TokenCache, collate, without_special_tokens
from ..data.collation import CheckedCollator, check_vocabulary, check_whole_numbers
from ..data.stream_loader import StreamBatches
from ..errors import InputError
from ..hub import write_card
from ..losses import LossTerm
from .callbacks import ClockProgress, DatasetEpoch, TrainClock
from .data_checks import check_endless, check_loader, check_rows, some_batch
from .finite import FiniteLoss
from .optimizers import MuonAndAdamW
from .resumable import ResumableTrainer
from .sharding import gathered, is_sharded
from .supported import check_callables, check_launch, check_supported, schedule_options
from .terms import Step, Term, step_generator

logger = logging.getLogger(__name__)


class TermsTrainer(ResumableTrainer):
    """A `Trainer` whose loss is a weighted sum of terms, each averaged over all items of the optimiser step.

    A subclass defines a list of terms, the columns that a step uses (`draw_plan`), and the output that the terms are computed
    from (`run`). Every micro-batch becomes one [`Step`] before the optimiser step begins.
    """

    terms: tuple[Term, ...] = ()
    counted = "transitions"  # the unit of `num_counted`, for the logs
    recurrent = True  # whether the model is called in a loop over time
    loss_is_scaled_for_ga = True  # every term is divided by the number of its items in the whole accumulated batch

    def __init__(self, model, args, **kwargs):
        check_supported(args)
        check_callables(kwargs, args.muon)
        kwargs["data_collator"] = kwargs.get("data_collator") or collate
        dataset = kwargs.get("train_dataset")
        check_endless(dataset, args)
        reads_text = isinstance(getattr(dataset, "cache", dataset), (TokenCache, TextStream))
        if reads_text and kwargs.get("processing_class") is not None:  # saved as it was used
            kwargs["processing_class"] = without_special_tokens(kwargs["processing_class"])
        super().__init__(model=model, args=args, **kwargs)
        check_launch(self.accelerator, args, self.recurrent)
        if self.is_fsdp_enabled:
            # as in one process: weights in float32, forward under autocast
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = None
            self.autocast_forward(self.model)
            # nothing that a model returns is modified in place
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        self._given_schedule = self.lr_scheduler is not None
        if self._given_schedule and args.max_train_seconds is not None:
            raise InputError("optimizers: max_train_seconds has its own schedule: pass the optimizer alone")
        if self.args.n_gpu > 1:
            logger.warning("using one of %d GPUs: start with `accelerate launch` to use them all", self.args.n_gpu)
            self.args._n_gpu = 1
        self.clock = TrainClock(self.args.max_train_seconds, self.args.train_clock)
        self.add_callback(self.clock)
        self.finite_loss = FiniteLoss()
        self.add_callback(self.finite_loss)
        self.add_callback(DatasetEpoch())
        if self.args.max_train_seconds is not None and self.pop_callback(ProgressCallback) is not None:
            self.add_callback(ClockProgress(self.clock))
        self.changes = []
        self._stream, self._stream_from = None, None  # the batches of a `TextStream`, and where they resume from
        self._logged = defaultdict(float)
        self._steps_with = defaultdict(int)  # steps in which a term had anything to average
        self._num_counted = 0
        self._log_time = time.monotonic()
        self._num_steps = 0

    # ---- what a subclass defines -----------------------------------------------------------------------------------

    def draw_plan(self, batch: Batch, generator: torch.Generator):
        """Draws the columns of a batch that an optimiser step uses; the same for all batches of one length."""
        raise NotImplementedError

    def run(self, model, step: Step):
        """Runs the model and returns the output from which the terms are computed."""
        raise NotImplementedError

    def num_counted(self, step: Step) -> int:
        """How many items, in the unit `counted`, a micro-batch trains."""
        raise NotImplementedError

    def vocab_size(self) -> int:
        """The number of token ids that the data may contain."""
        return self.accelerator.unwrap_model(self.model).config.get_text_config().vocab_size

    def active_terms(self) -> list[Term]:
        """The terms of this training."""
        return list(self.terms)

    def weight(self, name: str) -> float:
        """The weight of a term in the loss."""
        return getattr(self.args, f"{name}_weight")

    def keep(self, output, step: Step) -> None:
        """Keeps what `further_logs` needs from a training step."""

    def further_logs(self) -> dict[str, float]:
        """Further values to log, besides the terms and the speed."""
        return {}

    def further_evaluation(self, batch: Batch) -> dict[str, LossTerm]:
        """Further values to measure on an evaluation batch, besides the terms."""
        return {}

    # ---- sharded weights (FSDP2) ---------------------------------------------------------------------------------------

    def gathered(self, function: Callable[[], Any]) -> Any:
        """Calls a function that reads the weights outside the model's forward; every process has to call it."""
        return gathered(self.model, function)

    def replicated(self, model):
        """Prepares a model that is not trained; every process gets it whole, because each uses it when its own rows need it."""
        if not self.is_fsdp_enabled:
            return self.accelerator.prepare_model(model, evaluation_mode=True)
        self.autocast_forward(model)
        return model.to(self.args.device)

    def autocast_forward(self, model) -> None:
        """Runs a model under autocast in mixed precision, as accelerate does for models that it does not shard."""
        if not self.accelerator.native_amp:
            return
        forward = model.forward

        @functools.wraps(forward)
        def autocast(*args, **kwargs):
            with self.accelerator.autocast():
                return forward(*args, **kwargs)

        model.forward = convert_outputs_to_fp32(autocast)

    # ---- a streamed corpus ------------------------------------------------------------------------------------------

    def get_train_dataloader(self):
        if not isinstance(self.train_dataset, TextStream):
            check_rows("train_dataset", self.train_dataset)
            return check_loader("train_dataset", super().get_train_dataloader())
        args = self.args
        loading = {"prefetch_factor": args.dataloader_prefetch_factor} if args.dataloader_num_workers else {}
        self._stream = StreamBatches(
            self.train_dataset,
            self._train_batch_size,
            args.gradient_accumulation_steps,
            args.process_index,
            args.world_size,
            args.dataloader_num_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            **loading,
        )
        if self._stream_from is not None:
            self._stream.go_on(*self._stream_from)
        return DataLoader(
            self._stream, batch_size=None, pin_memory=args.dataloader_pin_memory and args.device.type != "cpu"
        )

    def _get_dataloader(self, *args, **kwargs):
        """As in the library; batches that accelerate moves to another device are checked before, see [`batch_of`]."""
        if self.args.device.type == "cpu":
            return super()._get_dataloader(*args, **kwargs)
        given = self.data_collator
        self.data_collator = CheckedCollator(given, self.vocab_size())
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.data_collator = given

    def get_eval_dataloader(self, eval_dataset=None):
        return check_loader("eval_dataset", super().get_eval_dataloader(eval_dataset))

    def save_further_state(self, output_dir):
        if self._stream is not None:
            self._stream.save(output_dir, self.accelerator.is_main_process)

    def load_further_state(self, folder, step):
        if isinstance(self.train_dataset, TextStream):
            self._stream_from = folder, step

    # ---- a step ----------------------------------------------------------------------------------------------------

    def make_step(self, inputs, draw: tuple[int, int]) -> Step:
        """Makes a [`Step`] from a micro-batch; `draw` is the seed and the optimiser step."""
        batch = self.batch_of(inputs)
        return self.step_of(batch, self.draw_plan(batch, step_generator(*draw)), draw)

    def batch_of(self, inputs) -> Batch:
        """Makes a [`Batch`] on the trainer's device from the output of a data collator.

        Ids are checked here if they are still on the host, whatever loader they come from; elsewhere a check would wait.
        """
        check_whole_numbers(inputs)
        if inputs["input_ids"].device.type == "cpu":
            check_vocabulary(inputs, self.vocab_size())
        return Batch.of(self._prepare_inputs(inputs))

    def step_of(self, batch: Batch, plan, draw: tuple[int, int]) -> Step:
        """Adds the targets of all terms to a batch and its plan; `draw` as in [`make_step`]."""
        targets = {term.name: term.targets(batch, plan) for term in self.active_terms() if term.targets}
        return Step(batch, plan, targets)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        with some_batch("train_dataset"):
            batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._num_steps += 1
        steps = [self.make_step(inputs, (self.args.seed, self.state.global_step)) for inputs in batches]
        if steps and self.state.global_step == 0:
            self.check_labels([step.batch for step in steps])
        return [{"input_ids": step.batch.input_ids, "step": step} for step in steps], self._count(steps, device)

    def check_labels(self, batches: list[Batch]) -> None:
        """Checks that the first optimiser step has a label to learn from.

        Raises:
            InputError: if there is none, because all labels are ignored or all tokens are padding.
        """
        name = "labels" if batches[0].shift_labels is None else "shift_labels"
        if not self.somewhere(getattr(batch, name) for batch in batches):
            raise InputError(
                f"{name} are {IGNORED} in all rows of the first step, which leaves nothing to learn from: correct them, or leave "
                "the column out to learn every token"
            )
        if not self.somewhere(batch.targets for batch in batches):
            raise InputError(
                "all tokens of the first step are padding, which leaves nothing to learn from: correct the attention_mask or the "
                "documents"
            )

    def somewhere(self, labels: Iterable[torch.Tensor]) -> bool:
        """Whether any process has a label that counts."""
        found = torch.stack([(values != IGNORED).any() for values in labels]).any().long()
        return bool(self.accelerator.reduce(found, "sum"))

    def _get_num_items_in_batch(self, batch_samples, device):
        return None  # see `_count`

    def _count(self, steps: list[Step], device) -> dict[str, torch.Tensor] | None:
        """The number of items of every term in all micro-batches of all processes."""
        if not steps:
            return None
        counts = [step.counts() for step in steps]
        total = torch.stack([sum(count[name] for count in counts) for name in counts[0]]).to(device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, "sum")
        for name, count in zip(counts[0], total, strict=True):
            self._steps_with[name] += (count > 0).long()  # read only for logging, so that no step waits for it
        return dict(zip(counts[0], total, strict=True))

    # ---- the loss --------------------------------------------------------------------------------------------------

    def losses(self, model, step: Step) -> tuple[dict[str, LossTerm | torch.Tensor], Any]:
        """All terms of a step, averaged ones as [`LossTerm`] and others as scalars; and the output of the model."""
        output = self.run(model, step)
        losses = {
            term.name: term.loss(output, step.targets[term.name] if term.targets else step)
            for term in self.active_terms()
        }
        return losses, output

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        step = inputs.get("step") or self.make_step(inputs, (self.args.seed, self.state.global_step))
        losses, output = self.losses(model, step)
        world_size = self.args.world_size
        share = 1 / (self.current_gradient_accumulation_steps * world_size)
        parts = {}
        for name, term in losses.items():
            if not isinstance(term, LossTerm):
                parts[name] = term * share
            elif num_items_in_batch is None:
                parts[name] = term.mean * share
            else:
                parts[name] = term.total / num_items_in_batch[name].clamp(min=1)
        loss = sum(self.weight(name) * part for name, part in parts.items())
        self.finite_loss.note(loss, parts)
        for name, part in parts.items():
            self._logged[name] += part.detach()
        self._num_counted += self.num_counted(step)
        self.keep(output, step)
        return loss * world_size  # the processes' gradients are averaged

    def mean_loss(self, losses: dict[str, LossTerm | torch.Tensor]) -> torch.Tensor:
        """The weighted sum of the terms of a single micro-batch."""
        means = {name: term.mean if isinstance(term, LossTerm) else term for name, term in losses.items()}
        return sum(self.weight(name) * mean for name, mean in means.items())

    # ---- logs ------------------------------------------------------------------------------------------------------

    def log(self, logs, start_time=None):
        if "train_loss" in logs and self.state.global_step == self._initial_global_step:
            return  # resumed at its end: nothing was trained
        if "loss" in logs and self._num_steps:
            steps, now = self._num_steps, time.monotonic()
            names = sorted(self._logged)
            values = torch.stack(
                [self._logged[name].float() for name in names]
                + [torch.tensor(float(self._num_counted), device=self.args.device)]
            )
            values = self.accelerator.reduce(values, "sum")
            for name, value in zip(names, values[:-1].tolist(), strict=True):
                counted = int(self._steps_with.get(name, steps))
                if counted:  # a term with few labels may have had none
                    logs[name] = round(value / counted, 6)
            logs[f"{self.counted}_per_second"] = round(values[-1].item() / max(now - self._log_time, 1e-9), 1)
            logs.update(self.further_logs())
            self._logged.clear()
            self._steps_with.clear()
            self._num_counted, self._num_steps, self._log_time = 0, 0, time.monotonic()
        super().log(logs, start_time)

    # ---- evaluation ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        step = self.make_step(inputs, (0, 0))  # always the same columns, so that evaluations are comparable
        with self.accelerator.autocast():
            losses, _ = self.losses(model, step)
        loss = self.mean_loss(losses)
        terms = {
            name: term if isinstance(term, LossTerm) else LossTerm(term, torch.ones_like(term))
            for name, term in losses.items()
        }
        terms |= self.further_evaluation(step.batch)
        for name, term in terms.items():
            self._evaluated[name].append(torch.stack([term.total.detach().float(), term.count.float()]))
        return loss.detach(), None, None

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        if self.is_fsdp_enabled and not is_sharded(self.model):
            raise InputError(
                "evaluate() before train() is not supported under FSDP2: accelerate shards a model together with its optimizer"
            )
        self._evaluated = defaultdict(list)
        with some_batch("eval_dataset"):
            output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        for name, values in self._evaluated.items():
            total, count = self.accelerator.reduce(torch.stack(values).sum(dim=0), "sum").tolist()
            if count:  # a term without items in the whole evaluation is left out
                output.metrics[f"{metric_key_prefix}_{name}"] = total / count
        return output

    # ---- sharing ---------------------------------------------------------------------------------------------------

    def predict(self, *args, **kwargs):
        """Not supported.

        Raises:
            InputError: always; these trainers gather losses in evaluation, not predictions.
        """
        raise InputError(
            "predict() is not supported: use evaluate() for losses, or the student's own forward or generate()"
        )

    def create_model_card(self, **kwargs):
        """Writes the model card from the output folder, see [`smt_hf.hub.write_card`]; called by `push_to_hub`."""
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
        resolution = 100_000 if timed else num_training_steps  # with a clock: fractions of the time instead of steps
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
