"""The bounds of numeric options: one list for flags, recipes, `--help` and the argument classes."""

import math
from dataclasses import dataclass, fields, is_dataclass
from numbers import Real

from ..errors import InputError


@dataclass(frozen=True)
class Bounds:
    """A range of finite numbers, and single numbers outside it.

    Args:
        low, high: the ends; infinity itself is never inside.
        open_low, open_high: whether an end is excluded.
        besides: numbers outside the range that have their own meaning.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    besides: tuple = ()

    def __contains__(self, value) -> bool:
        if value in self.besides:
            return True
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        low = f"above {shown(self.low)}" if self.open_low else f"at least {shown(self.low)}"
        words = [shown(number) for number in self.besides]
        if self.high == math.inf:
            words.append(low)
        elif self.open_low or self.open_high:
            words.append(f"{low} and {'below' if self.open_high else 'at most'} {shown(self.high)}")
        else:
            words.append(f"from {shown(self.low)} to {shown(self.high)}")
        return " or ".join(words)


def shown(number: float) -> str:
    """A number without rounding."""
    return str(int(number)) if float(number).is_integer() else str(number)


POSITIVE, COUNT, SIZE = Bounds(0, open_low=True), Bounds(0), Bounds(1)
SHARE, FACTOR = Bounds(0, 1), Bounds(0)
SEED = Bounds(0, 2**32 - 1)

BOUNDS = {
    # a model
    "hidden_size": SIZE,
    "num_memory_tokens": SIZE,
    "num_encoder_layers": SIZE,
    "num_layers": SIZE,
    "num_readout_layers": COUNT,
    "num_updater_layers": SIZE,
    "num_attention_heads": SIZE,
    "intermediate_size": SIZE,
    "initializer_range": POSITIVE,
    "attention_dropout": Bounds(0, 1, open_high=True),
    "dropout": Bounds(0, 1, open_high=True),
    "rms_norm_eps": POSITIVE,
    "rope_theta": POSITIVE,
    # data
    "max_documents": SIZE,
    "num_eval_windows": SIZE,
    "num_proc": SIZE,
    "num_shards": SIZE,
    "shard_index": COUNT,
    "processes": SIZE,
    "processes_per_node": SIZE,
    "price": COUNT,
    "num_readers": SIZE,
    "shuffle_buffer_size": SIZE,
    "holdout": Bounds(2),
    "image_size": Bounds(1, 1024),
    "num_levels": Bounds(2, 256),
    # a training
    "per_device_train_batch_size": SIZE,
    "per_device_eval_batch_size": SIZE,
    "gradient_accumulation_steps": SIZE,
    "num_train_epochs": POSITIVE,
    "max_steps": Bounds(1, besides=(-1,)),
    "max_train_seconds": POSITIVE,
    "num_threads": SIZE,
    "learning_rate": FACTOR,
    "backbone_learning_rate": FACTOR,
    "kd_temperature": POSITIVE,
    "warmup_steps": FACTOR,
    "weight_decay": FACTOR,
    "adam_beta1": Bounds(0, 1, open_high=True),
    "adam_beta2": Bounds(0, 1, open_high=True),
    "adam_epsilon": FACTOR,
    "max_grad_norm": FACTOR,
    "neftune_noise_alpha": FACTOR,
    "logging_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "eval_delay": FACTOR,
    "save_steps": POSITIVE,
    "save_total_limit": SIZE,
    "seed": SEED,
    "data_seed": SEED,
    "dataloader_num_workers": COUNT,
    "dataloader_prefetch_factor": SIZE,
    "torch_empty_cache_steps": SIZE,
    "ddp_bucket_cap_mb": SIZE,
    "ddp_timeout": SIZE,
    "eval_rollout_steps": COUNT,
    "eval_rollout_batches": COUNT,
    "drift_steps": COUNT,
    "collapse_variance": FACTOR,
    "collapse_rank": FACTOR,
    # windows, segments, rollouts
    "context_length": SIZE,
    "horizon": SIZE,
    "num_transitions": SIZE,
    "num_decoded": SIZE,
    "rollout_length": SIZE,
    "segment_length": SIZE,
    "num_sweeps": COUNT,
    "cold_start_probability": SHARE,
    "teacher_forcing_start": SHARE,
    "teacher_forcing_end": SHARE,
    "teacher_forcing_decay": SHARE,
    "teacher_lead": COUNT,
    "bptt_horizon": SIZE,
    "checkpoint_steps": SIZE,
    # losses
    "decoding_weight": FACTOR,
    "dynamics_weight": FACTOR,
    "uniformity_weight": FACTOR,
    "readout_weight": FACTOR,
    "stream_weight": FACTOR,
    "student_weight": FACTOR,
    "kd_weight": FACTOR,
    # evaluation and comparison
    "num_windows": SIZE,
    "rollout_steps": SIZE,
    "batch_size": SIZE,
    "lengths": Bounds(1, 2**20),
    "seeds": SEED,
    "cpu_seconds": POSITIVE,
    "data_shares": Bounds(0, 1, open_low=True),
    "target_losses": POSITIVE,
    "eval_rows": SIZE,
    "eval_factors": SIZE,
    "trace_points": SIZE,
    "gradient_length": SIZE,
    "num_processes": SIZE,
    # writing and serving
    "max_new_tokens": SIZE,
    "num_samples": SIZE,
    "temperature": Bounds(1e-3, besides=(0,)),  # below it, float32 logits overflow
    "top_p": Bounds(0, 1, open_low=True),
    "images": SIZE,
    "complete_rows": COUNT,
    "guidance": Bounds(1),
    "quality_images": SIZE,
    "class_images": COUNT,
    "max_tokens": SIZE,
    "max_difference": POSITIVE,
    "max_prompt_tokens": SIZE,
    "max_batch_size": SIZE,
    "max_queue_size": COUNT,
    "max_body_mb": POSITIVE,
    "timeout": POSITIVE,
    "prefix_cache_mb": COUNT,
    "port": Bounds(0, 65535),
    "workers": SIZE,
    "last_tokens": COUNT,
    # the demo
    "smt_seconds": POSITIVE,
    "dmt_seconds": POSITIVE,
    "num_stories": SIZE,
}

# Options whose values are names.
NAMES = set(
    "output_dir cache_dir dataset dataset_config eval_dataset eval_split split text_column separator tokenizer model "
    "teacher memory save_memory text_file prompts revision host cell_type task".split()
)


def check_bounds(options) -> None:
    """Checks every bounded number, and every name, in an options dataclass or a mapping of names to values.

    Raises:
        InputError: naming the first number out of bounds, with its bounds; or a name that is empty.
    """
    values = options
    if is_dataclass(options):
        values = {field.name: getattr(options, field.name) for field in fields(options)}
    for name, value in values.items():
        if name in NAMES and value == "":
            raise InputError(f"{name}={value!r} is empty: pass a value, or leave it out")
        if name in BOUNDS:
            check_number(name, value, BOUNDS[name])


def check_number(name: str, value, bounds: Bounds) -> None:
    """Checks a number, or each number in a list; other values are left to the type checks.

    Raises:
        InputError: naming the value and the bounds.
    """
    numbers = value if isinstance(value, list | tuple) else [value]
    for number in numbers:
        if isinstance(number, Real) and not isinstance(number, bool) and number not in bounds:
            where = "" if number is value else f": {number!r}"
            kind = "" if math.isfinite(number) else "a finite number, "
            raise InputError(f"{name}={value!r}{where} must be {kind}{bounds}")


def bounds_of(name: str) -> str | None:
    """The bounds of an option as `--help` shows them; `None` if it has none."""
    return str(BOUNDS[name]) if name in BOUNDS else None


__all__ = ["BOUNDS", "Bounds", "bounds_of", "check_bounds", "check_number"]
