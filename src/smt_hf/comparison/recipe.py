"""What a comparison trains: a task, its lengths, seeds and cells, and the stages that every student goes through."""

import dataclasses
import math
from dataclasses import dataclass, field

from huggingface_hub.errors import StrictDataclassError

from ..errors import InputError, one_line
from ..models import SmtConfig, SmtRnnConfig, SmtTeacherConfig, student_config_for
from ..models.cells_smt_rnn import cell_class
from ..tasks import Task, load_task
from ..training.supported import check_supported
from ..utils.bounds import check_bounds
from ..utils.imports import load_object
from ..utils.typed import check_types
from .checks import check_fields, check_list, is_number, mapping
from .stages import TRAINERS, Stage, ancestry, read_stages

# Fields of the trainers' arguments that a comparison decides itself, and where to say it instead.
DECIDED = {
    "output_dir": "give --output_dir to the command",
    "seed": "list the comparison's seeds",
    "train_clock": "it counts the CPU seconds of the process",
    "num_train_epochs": "give cpu_seconds and share, max_train_seconds, or max_steps",
    "use_cpu": "every run is one thread on a CPU",
    "eval_strategy": "trace_points says how often a student is measured",
    "carry_memory": "the rows of a task are no running text",
}


@dataclass
class Comparison:
    """The fields of a comparison's recipe."""

    _argument_group_name = "comparison"

    task: str | None = field(default=None, metadata={"help": "Synthetic task, such as retrieval or string_copy."})
    # `None` is here for flags: HfArgumentParser reads JSON of `dict | str | None` alone as text.
    task_options: dict | str | None = field(
        default_factory=dict, metadata={"help": "Options of the task, length left out."}
    )
    lengths: list[int] = field(default_factory=lambda: [32], metadata={"help": "Tokens a row; every one is a run."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds; every one is a run."})
    cells: list[str] = field(
        default_factory=lambda: ["transformer"], metadata={"help": "Updaters of the student; every one is a run."}
    )
    stages: dict | str | None = field(
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
    model: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of SmtTeacherConfig, vocabulary left out."}
    )
    student: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of the student's own, for every cell."}
    )
    cell_options: dict | str | None = field(
        default_factory=dict, metadata={"help": "By cell: fields of the student's own that this cell has otherwise."}
    )
    training: dict | str | None = field(
        default_factory=dict, metadata={"help": "Training arguments that all stages share."}
    )
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
            setattr(self, name, mapping(name, getattr(self, name)))
        if self.task is None:
            raise InputError("task is missing: give --task, such as retrieval, or --config a recipe")
        for name, kind in (("lengths", int), ("seeds", int), ("cells", str), ("eval_factors", int)):
            check_list(name, getattr(self, name), kind)
        check_list("cpu_seconds", self.cpu_seconds, (int, float), distinct=False)
        if self.only is not None:
            check_list("only", self.only, str)
        if 1 not in self.eval_factors:
            raise InputError(f"eval_factors={self.eval_factors} leaves out 1, the training length: add it")
        for name in ("eval_rows", "trace_points", "gradient_length"):
            if not is_number(getattr(self, name), int):
                raise InputError(f"{name}={getattr(self, name)!r} must be a whole number")
        check_bounds(self)
        if len(self.cpu_seconds) == 1:
            self.cpu_seconds = self.cpu_seconds * len(self.lengths)
        if len(self.cpu_seconds) != len(self.lengths) or not all(0 < number < math.inf for number in self.cpu_seconds):
            raise InputError(
                f"cpu_seconds={self.cpu_seconds} must be one positive number, or one for each of lengths={self.lengths}"
            )
        self._check()

    def _check(self) -> None:
        """Makes everything that a run will make, so that what cannot work is said before anything is trained."""
        check_fields("model", self.model, SmtTeacherConfig, elsewhere={"vocab_size": "it is the task's"})
        students = {"student": self.student}
        for cell in self.cell_options:
            where = f"cell_options of {cell!r}"
            try:
                self._import_cell(cell)
                cell_class(cell)
            except ValueError as error:
                raise InputError(f"{where}: {error}") from error
            self.cell_options[cell] = students[where] = mapping(where, self.cell_options[cell])
        for where, values in students.items():
            check_fields(where, values, SmtRnnConfig, elsewhere={"cell_type": "list it in cells"})
        stages = self.chosen_stages()
        for length in self.lengths:
            self.load_task(length)
        self._task("gradient_length", self.gradient_length)
        for length in self.lengths:
            for factor in self.eval_factors:
                self._task(f"eval_factors: {factor} times length {length}", length * factor)
            for cell in self.cells:
                self.model_config(cell, length)
            for stage in stages:
                self.stage_task(stage, length)
                self.arguments(stage, length, self.seeds[0], "unused")

    def _task(self, where: str, length: int) -> None:
        """Checks that the task can be made so long; the words of an error begin with where the length comes from."""
        try:
            self.load_task(length)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def all_stages(self) -> list[Stage]:
        """The stages, in order; raises as [`read_stages`] does."""
        return read_stages(self.stages)

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

    def is_shared(self, stage: Stage) -> bool:
        """Whether a stage is the same for all of `lengths`: it and those before it have rows and a budget of their own."""

        def is_own(earlier: Stage) -> bool:
            chosen = self.training | earlier.arguments
            return earlier.length is not None and (
                bool(chosen.get("max_train_seconds")) or chosen.get("max_steps", -1) > 0
            )

        return all(map(is_own, ancestry(self.all_stages(), stage.name)))

    def load_task(self, length: int) -> Task:
        """The task with rows of this length; raises as [`smt_hf.tasks.load_task`] does."""
        if "length" in self.task_options:
            raise InputError("task_options: length cannot be set here: list it in lengths")
        return load_task(self.task, **self.task_options, length=length)

    def stage_task(self, stage: Stage, length: int) -> Task:
        """The task as a stage trains on it.

        Raises:
            InputError: naming the stage, if the task cannot be so, or has more ids than the comparison's.
        """
        if "length" in stage.task_options:
            raise InputError(f"{stage}: length cannot be set in task_options: set the stage's `length`")
        try:
            options = {**self.task_options, **stage.task_options}
            task = load_task(self.task, **options, length=stage.length or length)
        except InputError as error:
            raise InputError(f"{stage}: {error}") from error
        vocab_size = self.load_task(length).vocab_size
        if task.vocab_size > vocab_size:
            raise InputError(
                f"{stage}: task_options={stage.task_options} take {task.vocab_size} ids, the comparison's task has {vocab_size}: "
                "a stage may only be easier"
            )
        return task

    def _import_cell(self, cell: str) -> None:
        """Imports a cell of the user's own, which configurations then find; a process of its own must do so again."""
        if ":" in cell:
            load_object(cell)

    def model_config(self, cell: str, length: int) -> SmtConfig:
        """Teacher and student of a run.

        Raises:
            InputError: if the sizes cannot work.
        """
        self._import_cell(cell)
        student = {**self.student, **self.cell_options.get(cell, {}), "cell_type": cell}
        try:
            teacher = SmtTeacherConfig(**self.model, vocab_size=self.load_task(length).vocab_size)
            return SmtConfig(teacher_config=teacher, student_config=student_config_for(teacher, **student))
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise InputError(one_line(error)) from error

    def arguments(self, stage: Stage, length: int, seed: int, output_dir: str):
        """The training arguments of a stage.

        Its budget is its share of `cpu_seconds`, or its own `max_train_seconds`, or its `max_steps`; the schedule of the learning
        rate follows the budget.

        Raises:
            InputError: naming the stage, if it has a field that its trainer does not know, or one that cannot work.
        """
        kind, rows = TRAINERS[stage.trainer], stage.length or length
        check_fields("training", self.training, *TRAINERS.values(), elsewhere=DECIDED)
        check_fields(str(stage), stage.arguments, kind, elsewhere=DECIDED)
        known = {field.name: field.default for field in dataclasses.fields(kind)}
        chosen = {name: value for name, value in self.training.items() if name in known} | stage.arguments
        lengths = {"context_length": rows}
        if stage.trainer == "smt":
            lengths |= {"horizon": rows}
        if stage.trainer == "dmt":
            segment = chosen.get("segment_length", 1)
            fits = is_number(segment, int) and 1 <= segment <= rows
            lengths |= {"rollout_length": rows - rows % segment if fits else rows}
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
            if chosen.get("max_steps", -1) > 0:
                fixed["max_train_seconds"] = None
            arguments = kind(**check_types(kind, {**fixed, **lengths, **chosen}))
            check_supported(arguments)
            return arguments
        except (InputError, StrictDataclassError, TypeError, ValueError) as error:
            raise InputError(f"{stage} at length {length}: {one_line(error)}") from error
