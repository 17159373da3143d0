"""The arguments that all trainers share."""

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
    """`TrainingArguments` with the defaults of the paper's recipes, plus a time limit."""

    _argument_group_name = "training"

    adam_beta2: float = field(default=0.95, metadata={"help": "Beta2 of AdamW (paper: 0.95)."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay of AdamW (paper: 0.01)."})
    lr_scheduler_type: str = field(
        default="constant_with_warmup", metadata={"help": "Learning rate schedule, a name known to transformers."}
    )
    lr_scheduler_kwargs: dict | str | None = field(
        default=None,
        metadata={
            "help": "Options of the schedule as JSON; a '..._steps' option below 1 is a fraction of the training."
        },
    )
    warmup_steps: float = field(
        default=0.01,
        metadata={"help": "Number of warm-up steps; below 1, the fraction of the training spent warming up."},
    )
    muon: bool = field(
        default=False,
        metadata={"help": "Use Muon for the hidden weight matrices and AdamW for everything else."},
    )
    max_train_seconds: float | None = field(
        default=None,
        metadata={
            "help": "Stop after this many seconds of training, not counting evaluation; the learning rate schedule then "
            "follows the time."
        },
    )
    train_clock: Literal["wall", "cpu"] = field(
        default="wall",
        metadata={"help": "What max_train_seconds counts: 'wall' seconds or 'cpu' seconds of the process."},
    )
    accept_changes: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Settings of a resumed run that may differ from its checkpoint, such as 'seed' or 'data'; the changes are "
            "recorded. Other changed settings are refused."
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Off, because a loss that is not finite ends the training, and filtering it from the logs would make every "
            "step wait for the device."
        },
    )
    use_cache: bool = field(default=True, metadata={"help": "Value in the saved configuration, for generation."})
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Off: the losses read columns that forward does not name."}
    )

    def __post_init__(self):
        if not self.output_dir:
            raise InputError("output_dir is empty: pass a folder for checkpoints and the trained model")
        check_sharding(self)
        for name, value in check_types(type(self), dict(self.__dict__)).items():
            setattr(self, name, value)
        check_bounds(self)
        if self.max_train_seconds is not None and self.max_steps <= 0:
            self.max_steps = 10_000_000  # the clock ends the training
        super().__post_init__()

    @property
    def order_seed(self) -> int:
        """The seed for the order of the data: `data_seed`, or `seed` if there is none."""
        return self.seed if self.data_seed is None else self.data_seed

    def __getstate__(self) -> dict:
        """Pickles everything but the Hub token, for example into `training_args.bin`."""
        return {**self.__dict__, "hub_token": None}


@described
@dataclass
class MemoryTrainingArguments(TimedTrainingArguments):
    """[`TimedTrainingArguments`] for a student, with rollouts during evaluation and a warning when the memories collapse."""

    eval_rollout_steps: int = field(
        default=128,
        metadata={"help": "Number of steps of the student's cold-start rollout at every evaluation; 0: none."},
    )
    eval_rollout_batches: int = field(default=2, metadata={"help": "Number of evaluation batches to roll out."})
    kd_temperature: float = field(
        default=1.0, metadata={"help": "Temperature that softens both predictions before kd compares them."}
    )
    collapse_variance: float = field(
        default=1e-3,
        metadata={
            "help": "Warn when memory_variance, the variance of memories over contexts as a fraction of their mean square, "
            "stays below this; 0: never."
        },
    )
    collapse_rank: float = field(
        default=1.2, metadata={"help": "Warn when the effective_rank of the memories stays below this; 0: never."}
    )


@described
@dataclass
class TaughtTrainingArguments(MemoryTrainingArguments):
    """[`MemoryTrainingArguments`] for a student that has a teacher."""

    drift_steps: int = field(
        default=16,
        metadata={"help": "Number of steps of the cold-start rollout whose drift is logged during training; 0: none."},
    )


def check_something_to_train(arguments, terms) -> None:
    """Checks that there is a loss to train on.

    Raises:
        InputError: if the weights of all terms are 0.
    """
    if not any(getattr(arguments, f"{term.name}_weight") for term in terms):
        weights = ", ".join(f"{term.name}_weight" for term in terms)
        raise InputError(f"{weights} are all 0, which leaves nothing to train on: raise one of them")
