"""The stages of a comparison: their order and their names."""

import math
import re
from dataclasses import dataclass, field

from ..errors import InputError
from ..training import BpttTrainingArguments, DmtTrainingArguments, LmTrainingArguments, SmtTrainingArguments
from .checks import check_list, is_number

TRAINERS = {
    "smt": SmtTrainingArguments,
    "dmt": DmtTrainingArguments,
    "bptt": BpttTrainingArguments,
    "lm": LmTrainingArguments,
}
STAGE_FIELDS = (
    *("trainer", "after", "share", "label", "shown", "cells", "model", "backbone"),
    *("length", "task_options"),
)


@dataclass(frozen=True)
class Stage:
    """One training of one student.

    Args:
        name: its name, and the folder of its results.
        trainer: 'smt', 'dmt' or 'bptt'; 'lm' for a language model. An SMT stage after it builds its teacher on that model, and a
            BPTT stage after it learns from it (`kd_weight`).
        after: the stage whose student it continues training; a new student when `None`, or after a language model.
        share: its share of the budget; `max_train_seconds` or `max_steps` among its arguments replaces it.
        label: its name in tables; `name` when empty.
        shown: whether tables show it; otherwise it only prepares for the stages after it, as a language model does.
        cells: which of the comparison's cells it trains; when `None`, all those that `after` trains.
        model: fields of the teacher's configuration that differ in this stage and those after it; for a language model,
            `model_type` and fields of its configuration.
        backbone: folder or Hub id of a language model that its teacher is built on, or that BPTT learns from.
        length: tokens per row that it trains on; the comparison's length when `None`.
        task_options: options of the task that differ in this stage. With its own rows, through these or `length`, it is a step
            of a curriculum: it prepares for the stages after it, and tables do not show it. If it also has its own budget, it is
            trained once for all lengths.
        arguments: fields of the trainer's arguments.

    Raises:
        InputError: for a value that cannot work.
    """

    name: str
    trainer: str
    after: str | None = None
    share: float = 1.0
    label: str = ""
    shown: bool = True
    cells: list[str] | None = None
    model: dict = field(default_factory=dict)
    backbone: str | None = None
    length: int | None = None
    task_options: dict = field(default_factory=dict)
    arguments: dict = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(
                f"stage {self.name!r}: the name is also that of a folder: use letters, digits, '_', '-' and '.'"
            )
        if self.trainer not in tuple(TRAINERS):
            raise InputError(f"{self}: trainer={self.trainer!r} is unknown: choose one of {', '.join(TRAINERS)}")
        if not is_number(self.share) or not 0 < self.share < math.inf:
            raise InputError(f"{self}: share={self.share!r} must be a positive number")
        if not isinstance(self.label, str):
            raise InputError(f"{self}: label={self.label!r} must be text: put it in quotes")
        if self.length is not None and (not is_number(self.length, int) or self.length < 1):
            raise InputError(f"{self}: length={self.length!r} must be a whole number of at least 1")
        for name in ("model", "task_options"):
            if not isinstance(getattr(self, name), dict):
                raise InputError(f"{self}: {name}={getattr(self, name)!r} must be a mapping of names to values")
        if not isinstance(self.shown, bool):
            raise InputError(f"{self}: shown={self.shown!r} must be true or false")
        if not isinstance(self.backbone, str | None) or self.backbone == "":
            raise InputError(f"{self}: backbone={self.backbone!r} must be a folder or a Hub id")
        if self.backbone is not None and (self.trainer not in ("smt", "bptt") or self.after is not None):
            raise InputError(f"{self}: backbone is for an SMT or BPTT stage that starts from nothing: leave it out")
        if self.cells is not None:
            check_list(f"{self}: cells", self.cells, str)

    @property
    def shown_label(self) -> str | None:
        """The label in tables; `None` for a step of a curriculum, and for any other stage that tables do not show."""
        if not self.shown or self.trainer == "lm" or self.length is not None or self.task_options:
            return None
        return self.label or self.name

    def __str__(self):
        return f"stage {self.name!r}"


def read_stages(values: dict) -> list[Stage]:
    """The stages in a recipe's mapping, in order.

    Args:
        values: by name, the fields of [`Stage`] and of the trainer's arguments together. Without a trainer, the stage's name
            is taken as its trainer.

    Raises:
        InputError: naming the first stage that cannot work.
    """
    if not values:
        raise InputError("stages is empty: give at least one, such as {smt: {trainer: smt}}")
    stages, names = [], {}
    for name, fields in values.items():
        if not isinstance(fields, dict | None):
            raise InputError(f"stage {name!r}: {fields!r} must be a mapping of names to values")
        arguments = dict(fields or {})
        own = {key: arguments.pop(key) for key in STAGE_FIELDS if key in arguments}
        stage = Stage(name=name, arguments=arguments, **{"trainer": name, **own})
        stages.append(stage)
        if stage.after is not None and stage.after not in [earlier.name for earlier in stages[:-1]]:
            raise InputError(f"{stage} continues {stage.after!r}, which is not an earlier stage: fix `after`")
        chain = ancestry(stages, name)[:-1]
        trained = {earlier.trainer for earlier in chain}
        if stage.model and chain and chain[-1].trainer != "lm":
            raise InputError(f"{stage}: its model is that of {stage.after!r}: set `model` in the stage that begins it")
        if stage.trainer == "lm" and chain:
            raise InputError(f"{stage}: a language model starts from nothing: leave `after` out")
        if chain and chain[-1].trainer == "lm" and stage.trainer not in ("smt", "bptt"):
            raise InputError(
                f"{stage} cannot continue the language model {stage.after!r}: let an SMT stage build on it, or a BPTT stage learn "
                "from it"
            )
        if stage.trainer == "dmt" and "smt" not in trained:
            raise InputError(f"{stage} needs a teacher: put it `after` an SMT stage")
        if stage.trainer == "smt" and trained - {"smt", "lm"}:
            raise InputError(f"{stage}: SMT can only continue SMT, not {stage.after!r}")
        if stage.shown_label is None:
            continue
        method = method_of(ancestry(stages, name))
        if method in names:
            raise InputError(
                f"{names[method]} and {stage} would both be called {method!r}: give one of them another label"
            )
        names[method] = stage
    return stages


def ancestry(stages: list[Stage], name: str) -> list[Stage]:
    """The stages that a stage's student went through, ending with this one."""
    by_name = {stage.name: stage for stage in stages}
    chain = [by_name[name]]
    while chain[0].after is not None:
        chain.insert(0, by_name[chain[0].after])
    return chain


def trains_cell(chain: list[Stage], cell: str) -> bool:
    """Whether students with this cell go through a chain of stages."""
    return all(stage.cells is None or cell in stage.cells for stage in chain)


def method_of(chain: list[Stage]) -> str:
    """The name of a chain's student in tables."""
    return " → ".join(stage.shown_label for stage in chain if stage.shown_label is not None)
