"""What a comparison trains: a task or a corpus, seeds and cells, and the stages that every student goes through."""

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property

from huggingface_hub.errors import StrictDataclassError

from ..data import DataOptions, ProcessingOptions
from ..errors import InputError, one_line
from ..models import SmtConfig, SmtRnnConfig, SmtTeacherConfig, student_config_for
from ..models.cells_smt_rnn import cell_class
from ..tasks import Task, load_task
from ..training.supported import check_supported
from ..utils.bounds import check_bounds
from ..utils.imports import load_object
from ..utils.typed import check_types
from .backbones import config_at, new_config
from .checks import check_fields, check_list, is_number, mapping
from .corpus_subject import CorpusSubject
from .stages import TRAINERS, Stage, ancestry, read_stages, trains_cell
from .task_subject import TaskSubject

# Fields that a comparison sets itself, and what to use instead.
DECIDED = {
    "output_dir": "pass --output_dir to the command",
    "seed": "list the comparison's seeds",
    "train_clock": "it counts the CPU seconds of the process",
    "num_train_epochs": "set cpu_seconds and share, max_train_seconds, or max_steps",
    "use_cpu": "every run is one thread on a CPU",
    "eval_strategy": "trace_points says how often a student is measured",
}
OF_DATA = {
    "vocab_size": "it comes from the data",
    "backbone_config": "set a stage's backbone, or add an lm stage before it",
}
# Fields for comparisons on tasks only, and on corpora only.
OF_TASKS = ("task_options", "lengths", "eval_factors", "gradient_length")
OF_CORPORA = (
    *(each.name for each in dataclasses.fields(DataOptions)),
    *(each.name for each in dataclasses.fields(ProcessingOptions)),
    *("data_shares", "context_length", "rollout_steps", "reference", "target_losses"),
)


@dataclass
class Comparison(DataOptions, ProcessingOptions):
    """The recipe of a comparison on a `task`, or on a `dataset` of text or images."""

    _argument_group_name = "comparison"

    task: str | None = field(default=None, metadata={"help": "Synthetic task, such as retrieval or string_copy."})
    # `None` is for flags: only for `dict | str | None` does HfArgumentParser read JSON as text.
    task_options: dict | str | None = field(
        default_factory=dict, metadata={"help": "Options of the task, except its length."}
    )
    lengths: list[int] = field(default_factory=lambda: [32], metadata={"help": "Tokens per row; one run for each."})
    data_shares: list[float] = field(
        default_factory=lambda: [1.0],
        metadata={
            "help": "Shares of the dataset to train on, for as many epochs as the time allows; one run for each."
        },
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds; one run for each."})
    cells: list[str] = field(
        default_factory=lambda: ["transformer"], metadata={"help": "Updaters of the student; one run for each."}
    )
    stages: dict | str | None = field(
        default_factory=dict,
        metadata={
            "help": "Trainings in order, by name: 'trainer' (smt, dmt, bptt or lm), 'after' (the stage to continue from), 'share' of "
            "the budget, 'label', its own 'cells' and 'model' (fields of SmtTeacherConfig), its own 'length' and 'task_options' on a "
            "task, and fields of the trainer's arguments."
        },
    )
    only: list[str] | None = field(
        default=None,
        metadata={"help": "Stages to train, together with those that they continue from; all by default."},
    )
    cpu_seconds: list[float] = field(
        default_factory=lambda: [60.0],
        metadata={
            "help": "Budget: CPU seconds of share 1, one number for each of lengths or data_shares, or one for all."
        },
    )
    model: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of SmtTeacherConfig, except the vocabulary."}
    )
    student: dict | str | None = field(
        default_factory=dict, metadata={"help": "Fields of the student's own configuration, for every cell."}
    )
    cell_options: dict | str | None = field(
        default_factory=dict,
        metadata={"help": "By cell: fields of the student's own configuration that differ for this cell."},
    )
    training: dict | str | None = field(
        default_factory=dict, metadata={"help": "Training arguments that all stages share."}
    )
    eval_rows: int = field(
        default=256,
        metadata={"help": "Held-out rows, windows or images that a trained student is measured on."},
    )
    eval_factors: list[int] = field(
        default_factory=lambda: [1, 2, 4],
        metadata={"help": "Evaluation lengths, as multiples of the training length."},
    )
    context_length: int = field(
        default=128, metadata={"help": "Tokens of a held-out window before the scored ones, as in evaluate."}
    )
    rollout_steps: int = field(
        default=256,
        metadata={"help": "Tokens of a held-out window that are scored, with the student on its own states."},
    )
    reference: str = field(
        default="BPTT", metadata={"help": "The method by whose budgets the others' are divided, as named in tables."}
    )
    target_losses: list[float] | None = field(
        default=None,
        metadata={
            "help": "Losses to report budgets for, in nats per byte or pixel; by default the reference's final loss, and 10 and 25 % "
            "above it."
        },
    )
    trace_points: int = field(
        default=6,
        metadata={
            "help": "How often a stage is measured during its training: at even distances on a task, at logarithmic ones on a dataset."
        },
    )
    gradient_length: int = field(
        default=512, metadata={"help": "Tokens of the rows on which the gradient norms of the memories are measured."}
    )

    def __post_init__(self):
        for name in ("task_options", "stages", "model", "student", "cell_options", "training"):
            setattr(self, name, mapping(name, getattr(self, name)))
        self._check_kind()
        for name, kind in (
            *(("lengths", int), ("seeds", int), ("cells", str), ("eval_factors", int)),
            *(("data_shares", (int, float)), ("target_losses", (int, float)), ("only", str)),
        ):
            if getattr(self, name) is not None or name not in ("target_losses", "only"):
                check_list(name, getattr(self, name), kind)
        check_list("cpu_seconds", self.cpu_seconds, (int, float), distinct=False)
        if 1 not in self.eval_factors:
            raise InputError(f"eval_factors={self.eval_factors} leaves out 1, the training length: add it")
        for name in ("eval_rows", "trace_points", "gradient_length", "context_length", "rollout_steps"):
            if not is_number(getattr(self, name), int):
                raise InputError(f"{name}={getattr(self, name)!r} must be a whole number")
        check_bounds(self)
        variants = self.subject.variants
        if len(self.cpu_seconds) == 1:
            self.cpu_seconds = self.cpu_seconds * len(variants)
        if len(self.cpu_seconds) != len(variants) or not all(0 < number < math.inf for number in self.cpu_seconds):
            raise InputError(
                f"cpu_seconds={self.cpu_seconds} must be one positive number, or one for each of "
                f"{self.subject.variant_name}s={variants}"
            )
        self._check()

    def _check_kind(self) -> None:
        """Checks that the comparison is on either a task or a dataset, and that no field belongs to the other."""
        if self.task is None and self.dataset is None:
            raise InputError(
                "task is missing: pass --task, such as retrieval, --dataset with text or images, or --config with a recipe"
            )
        if self.task is not None and self.dataset is not None:
            raise InputError(f"task={self.task!r} and dataset={self.dataset!r} are both given: leave one out")
        kind, others = ("a task", OF_CORPORA) if self.dataset is None else ("a dataset", OF_TASKS)
        defaults = {
            each.name: each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
            for each in dataclasses.fields(self)
        }
        for name in others:
            if getattr(self, name) != defaults[name]:
                raise InputError(f"{name}={getattr(self, name)!r} is not for comparisons on {kind}: leave it out")

    @cached_property
    def subject(self) -> TaskSubject | CorpusSubject:
        """What students train on and are measured on."""
        return TaskSubject(self) if self.dataset is None else CorpusSubject(self)

    def _check(self) -> None:
        """Makes everything that a run will make, so that anything that cannot work is reported before training."""
        check_fields("model", self.model, SmtTeacherConfig, elsewhere=OF_DATA)
        students = {"student": self.student}
        for cell in self.cell_options:
            where = f"cell_options of {cell!r}"
            self._check_cell(where, cell)
            self.cell_options[cell] = students[where] = mapping(where, self.cell_options[cell])
        for where, values in students.items():
            check_fields(where, values, SmtRnnConfig, elsewhere={"cell_type": "list it in cells"})
        stages = self.chosen_stages()
        for stage in stages:
            if stage.trainer != "lm":
                check_fields(f"{stage}: model", stage.model, SmtTeacherConfig, elsewhere=OF_DATA)
            for cell in stage.cells or ():
                self._check_cell(f"{stage}: cells", cell)
        for cell in self.cells:
            if not self.stages_of(cell):
                raise InputError(
                    f"cells={self.cells}: no stage trains {cell!r}: leave it out, or add it to a stage's cells"
                )
        self.subject.check(stages)
        for variant in self.subject.variants:
            for stage in stages:
                self._check_distillation(stage, self.arguments(stage, variant, self.seeds[0], "unused"))
            if self.task is not None:  # for data, the ids are only known once the data are read
                for cell in self.cells:
                    for stage in self.stages_of(cell):
                        self.model_config(cell, variant, stage)

    def _check_distillation(self, stage: Stage, arguments) -> None:
        """Checks that a stage that learns from a language model has one, and that BPTT learns from the one that it has."""
        chain, weight = ancestry(self.all_stages(), stage.name), getattr(arguments, "kd_weight", 0.0)
        if chain[0].trainer != "lm" and chain[0].backbone is None:
            for name, use in (("kd_weight", "to learn from"), ("backbone_learning_rate", "in its teacher")):
                if value := getattr(arguments, name, 0.0):
                    raise InputError(
                        f"{stage}: {name}={value:g} needs a language model {use}: start with an lm stage, or set backbone"
                    )
        from_language_model = stage.backbone is not None or [step.trainer for step in chain] == ["lm", "bptt"]
        if stage.trainer == "bptt" and from_language_model and not weight:
            raise InputError(
                f"{stage}: nothing is learned from its language model: raise kd_weight, or leave the language model out"
            )

    def _check_cell(self, where: str, cell: str) -> None:
        try:
            self._import_cell(cell)
            cell_class(cell)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error

    def all_stages(self) -> list[Stage]:
        """The stages, in order. Raises the errors of [`read_stages`]."""
        return read_stages(self.stages)

    def chosen_stages(self) -> list[Stage]:
        """The stages to train: all, or those in `only` and the stages that they continue from."""
        stages = self.all_stages()
        if self.only is None:
            return stages
        unknown = set(self.only) - {stage.name for stage in stages}
        if unknown:
            raise InputError(
                f"only: there is no stage {sorted(unknown)[0]!r}: choose one of {', '.join(stage.name for stage in stages)}"
            )
        wanted = {stage.name for name in self.only for stage in ancestry(stages, name)}
        return [stage for stage in stages if stage.name in wanted]

    def stages_of(self, cell: str) -> list[Stage]:
        """The stages to train that students with this cell go through."""
        every = self.all_stages()
        return [stage for stage in self.chosen_stages() if trains_cell(ancestry(every, stage.name), cell)]

    def is_shared(self, stage: Stage) -> bool:
        """Whether a stage is the same for all `lengths`: it and the stages before it have their own rows and budget."""

        def is_own(earlier: Stage) -> bool:
            chosen = self.training | earlier.arguments
            return earlier.length is not None and (
                bool(chosen.get("max_train_seconds")) or chosen.get("max_steps", -1) > 0
            )

        return self.task is not None and all(map(is_own, ancestry(self.all_stages(), stage.name)))

    def load_task(self, length: int) -> Task:
        """The task with rows of this length. Raises the errors of [`smt_hf.tasks.load_task`]."""
        if "length" in self.task_options:
            raise InputError("task_options: length cannot be set here: list it in lengths")
        return load_task(self.task, **self.task_options, length=length)

    def stage_task(self, stage: Stage, length: int) -> Task:
        """The task that a stage trains on.

        Raises:
            InputError: naming the stage, if its task cannot work or has more ids than the comparison's.
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
                f"{stage}: task_options={stage.task_options} need {task.vocab_size} ids, but the comparison's task has "
                f"{vocab_size}: a stage can only be easier"
            )
        return task

    def _import_cell(self, cell: str) -> None:
        """Imports a user's own cell, so that configurations find it. Every process must do so again."""
        if ":" in cell:
            load_object(cell)

    def model_config(self, cell: str, variant: float, stage: Stage | None = None) -> SmtConfig:
        """Teacher and student of a run.

        Args:
            cell: the student's updater.
            variant: tokens per row of a task, or the share of a dataset.
            stage: the stage that they are trained in, for the fields that differ in its chain.

        Raises:
            InputError: if the sizes cannot work.
        """
        self._import_cell(cell)
        chain = ancestry(self.all_stages(), stage.name) if stage else []
        own = {name: value for step in chain if step.trainer != "lm" for name, value in step.model.items()}
        student = {**self.student, **self.cell_options.get(cell, {}), "cell_type": cell}
        ids, backbone = self.subject.token_ids(variant), self.backbone_config(chain, variant)
        if backbone is not None:
            own["backbone_config"] = backbone
        try:
            teacher = SmtTeacherConfig(**{**self.model, **own}, **ids)
            return SmtConfig(teacher_config=teacher, student_config=student_config_for(teacher, **student))
        except (StrictDataclassError, TypeError, ValueError) as error:
            raise InputError(one_line(error)) from error

    def backbone_config(self, chain: list[Stage], variant: float):
        """The configuration of the language model that the teacher of a chain is built on; `None` without one."""
        if not chain or chain[0].trainer != "lm":
            return config_at(chain[0].backbone) if chain and chain[0].backbone else None
        arguments = self.arguments(chain[0], variant, self.seeds[0], "unused")
        return new_config(chain[0], self.subject.token_ids(variant), arguments.window_length)

    def arguments(self, stage: Stage, variant: float, seed: int, output_dir: str):
        """The training arguments of a stage.

        Its budget is its share of `cpu_seconds`, its own `max_train_seconds`, or its `max_steps`; the learning rate schedule follows
        the budget.

        Raises:
            InputError: naming the stage, if it has a field that its trainer does not know, or a value that cannot work.
        """
        kind, elsewhere = TRAINERS[stage.trainer], DECIDED | self.subject.decided
        check_fields("training", self.training, *TRAINERS.values(), elsewhere=elsewhere)
        check_fields(str(stage), stage.arguments, kind, elsewhere=elsewhere)
        known = {field.name: field.default for field in dataclasses.fields(kind)}
        chosen = {name: value for name, value in self.training.items() if name in known} | stage.arguments
        chosen |= self.subject.limits(stage, variant, chosen)
        fixed = {
            "output_dir": output_dir,
            "seed": seed,
            "max_train_seconds": stage.share * self.cpu_seconds[self.subject.variants.index(variant)],
            "train_clock": "cpu",
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_steps": 50,
            **self.subject.fixed(stage, seed),
            **self.subject.lengths(stage, variant, chosen),
        }
        try:
            if chosen.get("max_steps", -1) > 0:
                fixed["max_train_seconds"] = None
            arguments = kind(**check_types(kind, {**fixed, **chosen}))
            check_supported(arguments)
            return arguments
        except (InputError, StrictDataclassError, TypeError, ValueError) as error:
            where = f" at length {variant}" if self.task is not None else ""
            raise InputError(f"{stage}{where}: {one_line(error)}") from error
