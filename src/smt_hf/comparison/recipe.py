"""What a comparison trains: a task, its lengths, seeds and cells, and the stages that every student goes through."""

import dataclasses
import json
from dataclasses import dataclass, field

from huggingface_hub.errors import StrictDataclassError

from ..data.tasks import Task, load_task
from ..errors import InputError, one_line
from ..models import SmtConfig, SmtTeacherConfig, student_config_for
from ..training import BpttTrainingArguments, DmtTrainingArguments, SmtTrainingArguments

TRAINERS = {"smt": SmtTrainingArguments, "dmt": DmtTrainingArguments, "bptt": BpttTrainingArguments}
STAGE_FIELDS = ("trainer", "after", "share", "label", "length")


@dataclass(frozen=True)
class Stage:
    """One training of one student.

    Args:
        name: the folder of its results.
        trainer: 'smt', 'dmt' or 'bptt'.
        after: the stage whose student it goes on with; a new student when `None`.
        share: its part of the budget.
        label: what tables call it; its name when empty.
        length: tokens a row it trains on; the comparison's own length when `None`. With a length of its own it is a step of
            a curriculum, on the way to the stages after it, and stands in no table.
        arguments: fields of the trainer's arguments.
    """

    name: str
    trainer: str
    after: str | None = None
    share: float = 1.0
    label: str = ""
    length: int | None = None
    arguments: dict = field(default_factory=dict)

    @property
    def shown_label(self) -> str | None:
        """The label in tables; `None` for a step of a curriculum."""
        return None if self.length is not None else self.label or self.name


@dataclass
class Comparison:
    """The fields of a comparison's recipe."""

    _argument_group_name = "comparison"

    task: str | None = field(default=None, metadata={"help": "Synthetic task, such as retrieval or string_copy."})
    task_options: dict | str = field(default_factory=dict, metadata={"help": "Options of the task, length left out."})
    lengths: list[int] = field(default_factory=lambda: [32], metadata={"help": "Tokens a row; every one is a run."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds; every one is a run."})
    cells: list[str] = field(
        default_factory=lambda: ["transformer"], metadata={"help": "Updaters of the student; every one is a run."}
    )
    stages: dict | str = field(
        default_factory=dict,
        metadata={
            "help": "Trainings in order, by name: 'trainer' (smt, dmt or bptt), 'after' (the stage to go on from), 'share' of "
            "the budget, 'label', 'length', and fields of the trainer's arguments."
        },
    )
    only: list[str] | None = field(
        default=None, metadata={"help": "Stages to train, with those that they go on from; all by default."}
    )
    cpu_seconds: list[float] = field(
        default_factory=lambda: [60.0],
        metadata={"help": "Budget: CPU seconds of share 1, for each length, or one number for all of them."},
    )
    model: dict | str = field(
        default_factory=dict, metadata={"help": "Fields of SmtTeacherConfig, vocabulary left out."}
    )
    student: dict | str = field(
        default_factory=dict, metadata={"help": "Fields of the student's own, for every cell."}
    )
    cell_options: dict | str = field(
        default_factory=dict, metadata={"help": "By cell: fields of the student's own that this cell has otherwise."}
    )
    training: dict | str = field(default_factory=dict, metadata={"help": "Training arguments that all stages share."})
    eval_rows: int = field(default=256, metadata={"help": "Rows, never trained on, that accuracy is measured on."})
    eval_factors: list[int] = field(
        default_factory=lambda: [1, 2, 4], metadata={"help": "Lengths of evaluation, in training lengths."}
    )
    trace_points: int = field(default=6, metadata={"help": "Times that a stage is measured on its way."})
    gradient_length: int = field(
        default=512, metadata={"help": "Tokens of the row over which the gradient norms of the memories are measured."}
    )

    def __post_init__(self):
        for name in ("task_options", "stages", "model", "student", "cell_options", "training"):
            value = getattr(self, name)
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except ValueError as error:
                    raise InputError(f"{name}={value!r} is no JSON ({error}): mend it") from error
            if not isinstance(value, dict):
                raise InputError(f"{name}={value!r} must be a mapping of names to values")
            setattr(self, name, value)
        if self.task is None:
            raise InputError("task is missing: give --task, such as retrieval, or --config a recipe")
        for name in ("lengths", "seeds", "cells", "eval_factors"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty: give at least one")
        for name in ("eval_rows", "trace_points", "gradient_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if len(self.cpu_seconds) == 1:
            self.cpu_seconds = self.cpu_seconds * len(self.lengths)
        if len(self.cpu_seconds) != len(self.lengths) or min(self.cpu_seconds) <= 0:
            raise InputError(
                f"cpu_seconds={self.cpu_seconds} must be one positive number, or one for each of lengths={self.lengths}"
            )
        self._check()

    def _check(self) -> None:
        """Makes everything that a run will make, so that what cannot work is said before anything is trained."""
        stages = self.chosen_stages()
        for length in self.lengths:
            self.load_task(length)
            for cell in self.cells:
                self.model_config(cell, length)
            for stage in stages:
                self.load_task(stage.length or length)
                self.arguments(stage, length, self.seeds[0], "unused")

    def all_stages(self) -> list[Stage]:
        """The stages, in order.

        Raises:
            InputError: naming the first that cannot work.
        """
        if not self.stages:
            raise InputError("stages is empty: give at least one, such as {smt: {trainer: smt}}")
        stages = []
        for name, values in self.stages.items():
            values = dict(values or {})
            own = {key: values.pop(key) for key in STAGE_FIELDS if key in values}
            stage = Stage(name=name, arguments=values, **{"trainer": name, **own})
            if stage.trainer not in TRAINERS:
                raise InputError(
                    f"stage {name!r}: trainer={stage.trainer!r} is unknown: choose one of {', '.join(TRAINERS)}"
                )
            if stage.share <= 0:
                raise InputError(f"stage {name!r}: share={stage.share} must be positive")
            stages.append(stage)
            if stage.after is not None and stage.after not in [earlier.name for earlier in stages[:-1]]:
                raise InputError(
                    f"stage {name!r} goes on after {stage.after!r}, which is no earlier stage: mend `after`"
                )
            trained = {earlier.trainer for earlier in ancestry(stages, name)[:-1]}
            if stage.trainer == "dmt" and "smt" not in trained:
                raise InputError(f"stage {name!r} needs a teacher: let it go on `after` an SMT stage")
            if stage.trainer == "smt" and trained - {"smt"}:
                raise InputError(f"stage {name!r}: SMT can go on after SMT only, not after {stage.after!r}")
        labels = [tuple(earlier.shown_label for earlier in ancestry(stages, stage.name)) for stage in stages]
        for stage, label in zip(stages, labels, strict=True):
            if stage.shown_label is not None and labels.count(label) > 1:
                raise InputError(
                    f"label: two stages are called {' → '.join(filter(None, label))!r}: give one another `label`"
                )
        return stages

    def chosen_stages(self) -> list[Stage]:
        """The stages to train: all, or those of `only` and what they go on from."""
        stages = self.all_stages()
        if self.only is None:
            return stages
        unknown = set(self.only) - {stage.name for stage in stages}
        if unknown:
            raise InputError(
                f"only: there is no stage {sorted(unknown)[0]!r}: choose among {', '.join(stage.name for stage in stages)}"
            )
        wanted = {stage.name for name in self.only for stage in ancestry(stages, name)}
        return [stage for stage in stages if stage.name in wanted]

    def load_task(self, length: int) -> Task:
        """The task with rows of this length; raises as [`smt_hf.data.tasks.load_task`] does."""
        return load_task(self.task, length=length, **self.task_options)

    def model_config(self, cell: str, length: int) -> SmtConfig:
        """Teacher and student of a run.

        Raises:
            InputError: if the sizes cannot work.
        """
        student = {**self.student, "cell_type": cell, **self.cell_options.get(cell, {})}
        try:
            teacher = SmtTeacherConfig(**self.model, vocab_size=self.load_task(length).vocab_size)
            return SmtConfig(teacher_config=teacher, student_config=student_config_for(teacher, **student))
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise InputError(one_line(error)) from error

    def arguments(self, stage: Stage, length: int, seed: int, output_dir: str):
        """The training arguments of a stage.

        Raises:
            InputError: naming the stage, if it has a field that its trainer does not know, or one that cannot work.
        """
        kind, rows = TRAINERS[stage.trainer], stage.length or length
        lengths = {"context_length": rows}
        if stage.trainer == "smt":
            lengths |= {"horizon": rows}
        if stage.trainer == "dmt":
            lengths |= {"rollout_length": rows - rows % stage.arguments.get("backprop_steps", 1)}
        known = {field.name for field in dataclasses.fields(kind)}
        shared = {name: value for name, value in self.training.items() if name in known}
        nobody = set(self.training) - {field.name for kind in TRAINERS.values() for field in dataclasses.fields(kind)}
        for name in [*nobody, *stage.arguments]:
            if name not in known:
                where = "training" if name in nobody else f"stage {stage.name!r}"
                raise InputError(f"{where}: unknown field {name!r}: see smt-hf {stage.trainer} --help")
        fixed = {
            "output_dir": output_dir,
            "seed": seed,
            "max_train_seconds": stage.share * self.cpu_seconds[self.lengths.index(length)],
            "train_clock": "cpu",
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_steps": 50,
        }
        try:
            return kind(**{**fixed, **lengths, **shared, **stage.arguments})
        except (InputError, StrictDataclassError, TypeError, ValueError) as error:
            raise InputError(f"stage {stage.name!r} at length {length}: {one_line(error)}") from error


def ancestry(stages: list[Stage], name: str) -> list[Stage]:
    """The stages that a stage's student went through, itself the last."""
    by_name = {stage.name: stage for stage in stages}
    chain = [by_name[name]]
    while chain[0].after is not None:
        chain.insert(0, by_name[chain[0].after])
    return chain
