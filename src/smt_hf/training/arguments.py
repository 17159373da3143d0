"""What the arguments of the trainers share."""

from dataclasses import dataclass, field
from typing import Literal

from transformers import TrainingArguments

from ..errors import InputError
from ..utils.bounds import check_bounds
from ..utils.described import described
from ..utils.typed import check_types
from .supported import check_sharding


@described
@dataclass
class TimedTrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults of the paper's recipes and a time limit."""

    _argument_group_name = "training"

    adam_beta2: float = field(default=0.95, metadata={"help": "Beta2 of AdamW (paper: 0.95)."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW (paper: 0.01)."})
    lr_scheduler_type: str = field(
        default="constant_with_warmup", metadata={"help": "Learning rate schedule, a name known to transformers."}
    )
    lr_scheduler_kwargs: dict | str | None = field(
        default=None,
        metadata={"help": "Options of the schedule as JSON; a '..._steps' below 1 is a share of the training."},
    )
    warmup_steps: float = field(
        default=0.01, metadata={"help": "Warm-up steps; below 1, the share of the training spent warming up."}
    )
    muon: bool = field(
        default=False,
        metadata={"help": "Muon for the hidden weight matrices, AdamW for everything else."},
    )
    max_train_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Stop after so many seconds of training; the learning rate schedule then follows the time. "
            "Evaluation does not count."
        },
    )
    train_clock: Literal["wall", "cpu"] = field(
        default="wall",
        metadata={"help": "What max_train_seconds counts: 'wall' seconds or the 'cpu' seconds of the process."},
    )
    accept_changes: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Settings that a resumed run may have otherwise than its checkpoint, such as 'seed' or 'data'; they are "
            "recorded. Otherwise a changed setting is refused."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Off: a loss that is no finite number ends the training, and to leave it out of the logs every step would "
            "wait for the device."
        },
    )
    use_cache: bool = field(default=True, metadata={"help": "Kept in the saved configuration, for generation."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Off: the models take what the data gives."})

    def __post_init__(self):
        if not self.output_dir:
            raise InputError("output_dir is empty: give a folder for checkpoints and the trained model")
        check_sharding(self)
        for name, value in check_types(type(self), dict(self.__dict__)).items():
            setattr(self, name, value)
        check_bounds(self)
        if self.max_train_seconds is not None and self.max_steps <= 0:
            self.max_steps = 10_000_000  # the clock ends the training
        super().__post_init__()

    @property
    def order_seed(self) -> int:
        """What the order of the data is drawn from: `data_seed`, or `seed` without one."""
        return self.seed if self.data_seed is None else self.data_seed

    def __getstate__(self) -> dict:
        """What is pickled, into `training_args.bin` for one: everything but the token."""
        return {**self.__dict__, "hub_token": None}


@described
@dataclass
class MemoryTrainingArguments(TimedTrainingArguments):
    """[`TimedTrainingArguments`] of a student: rollouts during evaluation, and a warning when the memories collapse."""

    eval_rollout_steps: int = field(
        default=128, metadata={"help": "Steps of the student's cold-start rollout at every evaluation; 0: none."}
    )
    eval_rollout_batches: int = field(default=2, metadata={"help": "Evaluation batches that are rolled out."})
    kd_temperature: float = field(
        default=1.0, metadata={"help": "Temperature by which both predictions are softened before kd compares them."}
    )
    collapse_variance: float = field(
        default=1e-3,
        metadata={
            "help": "Warn when memory_variance, the variance of memories over contexts as a share of their mean square, "
            "stays below this; 0: never."
        },
    )
    collapse_rank: float = field(
        default=1.2, metadata={"help": "Warn when the effective_rank of the memories stays below this; 0: never."}
    )


@described
@dataclass
class TaughtTrainingArguments(MemoryTrainingArguments):
    """[`MemoryTrainingArguments`] of a student that has a teacher."""

    drift_steps: int = field(
        default=16,
        metadata={"help": "Steps of the cold-start rollout whose drift is logged during training; 0: none."},
    )


def check_something_to_train(arguments, terms) -> None:
    """Checks that a training has a loss.

    Raises:
        InputError: if the weights of all terms are 0.
    """
    if not any(getattr(arguments, f"{term.name}_weight") for term in terms):
        weights = ", ".join(f"{term.name}_weight" for term in terms)
        raise InputError(f"{weights} are all 0, which leaves nothing to train on: raise one of them")
