"""One run of a comparison: the stages of one cell, variant and seed, each resumed from its result if it has one."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PrinterCallback, set_seed

from ..checkpoints import load_backbone, load_joint, load_student
from ..data.row_windows import RowWindows
from ..hub import public_name
from ..models import SmtForPreTraining
from ..models.backbone_smt import make_backbone
from ..training import BpttTrainer, DmtTrainer, LmTrainer, SmtTrainer
from .flops import step_flops
from .recipe import Comparison
from .result_file import read_result, write_result
from .stages import Stage, ancestry
from .trace import Trace


def run_student(comparison: Comparison, cell: str, variant: float, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages of one run and measures each of them.

    Args:
        comparison: the recipe.
        cell: the student's updater.
        variant: tokens per row of a task, or the share of a dataset to train on.
        seed: the seed of the weights, the data and what the steps draw.
        output_dir: the comparison's folder. A stage's folder in it is `<cell>/length-<length>/seed-<seed>/<stage>`, or
            `<cell>/every-length/seed-<seed>/<stage>` if all lengths share the stage; `<cell>/data-<share>/...` on a dataset.

    Returns:
        The results, as stored in their `result.json`. Stages that have one are not trained again.

    Raises:
        InputError: if a result was made with other settings.
        FloatingPointError: if a stage's loss is not finite; names the stage.
    """
    run = Run(comparison, cell, variant, seed, output_dir)
    return [finished(run, stage) for stage in comparison.stages_of(cell)]


def run_shared_stages(comparison: Comparison, cell: str, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages that all lengths share, so that parallel runs find them finished. See [`run_student`]."""
    run = Run(comparison, cell, comparison.subject.variants[0], seed, output_dir)
    return [finished(run, stage) for stage in comparison.stages_of(cell) if comparison.is_shared(stage)]


@dataclass(frozen=True)
class Run:
    """The students of one cell, variant and seed; see [`run_student`]."""

    comparison: Comparison
    cell: str
    variant: float
    seed: int
    output_dir: str

    def chain(self, stage: Stage) -> list[Stage]:
        """The stages that a stage's student went through, ending with this one."""
        return ancestry(self.comparison.all_stages(), stage.name)

    def folder(self, stage: Stage) -> Path:
        """The folder of a stage's model and result."""
        rows = self.comparison.subject.folder(stage, self.variant)
        return Path(self.output_dir) / self.cell.replace(":", ".") / rows / f"seed-{self.seed}" / stage.name

    def settings(self, stage: Stage) -> dict:
        """What a stage's training and scores depend on."""
        comparison, subject = self.comparison, self.comparison.subject
        return {
            **subject.settings(stage, self.variant),
            "cell": self.cell,
            "seed": self.seed,
            "config": comparison.model_config(self.cell, self.variant, stage).to_diff_dict(),
            "stages": [
                {"name": step.name, "label": step.shown_label, "trainer": step.trainer, "share": step.share}
                | subject.stage_settings(step, self.variant)
                | ({"backbone": public_name(step.backbone)} if step.backbone else {})
                | {"arguments": {**comparison.training, **step.arguments}}
                for step in self.chain(stage)
            ],
        }


def finished(run: Run, stage: Stage) -> dict:
    """The result of a stage, which is trained first if it has none."""
    folder, settings = run.folder(stage), run.settings(stage)
    result = read_result(folder, settings)
    if result is not None:
        return result
    where = f"{run.cell}, {folder.parent.parent.name.replace('-', ' ')}, seed {run.seed}"
    try:
        result = run_stage(run, stage)
    except FloatingPointError as error:
        raise FloatingPointError(f"{stage} of {where}: {error}") from error
    result = write_result(folder, {"settings": settings, **result})
    words = run.comparison.subject.words(result)
    print(f"{where}, {stage.name}: {words}", flush=True)
    return result


def run_stage(run: Run, stage: Stage) -> dict:
    """Trains one stage, saves its model and measures it. A step of a curriculum is measured only once, on its own rows."""
    comparison, subject, variant = run.comparison, run.comparison.subject, run.variant
    set_seed(run.seed)
    before = run.chain(stage)[-2] if stage.after else None
    arguments = comparison.arguments(stage, variant, run.seed, str(run.folder(stage)))
    trainer = new_trainer(run, stage, before, args=arguments, **subject.data(stage, variant, run.seed, arguments))
    result = {} if before or stage.trainer == "lm" else subject.untrained(stage, trainer.student())

    def measure():
        model = evaluated_model(trainer)
        training = model.training
        scores = subject.measure(model.eval(), stage, variant)
        model.train(training)
        return scores

    batches = sample_batches(trainer)
    flops, sequential = step_flops(trainer, batches)
    on_the_way = stage.shown_label is None
    trace = Trace(trainer.clock, measure, [1.0] if on_the_way else subject.trace_shares(comparison.trace_points))
    trainer.add_callback(trace)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()

    tokens = tokens_of(batches[-1], getattr(arguments, "segment_length", 1)) * arguments.gradient_accumulation_steps
    for point in trace.points:
        steps = point["steps"]
        point |= {"tokens": steps * tokens, "flops": steps * flops, "sequential_flops": steps * sequential}
    result["trace"] = trace.points
    result["log"] = [entry for entry in trainer.state.log_history if "loss" in entry]
    if on_the_way:
        return result
    teacher = trainer.teacher_model() if stage.trainer == "smt" else trained_teacher(run, stage)
    student = evaluated_model(trainer).eval()
    return result | subject.measured(student, teacher and teacher.eval(), stage, variant)


def sample_batches(trainer) -> list[dict]:
    """The batches on which a step's cost is counted. That is one batch; or, if rows read a window over several steps, the batches
    of a window and the one before them, in which all rows begin."""
    size, data = trainer.args.per_device_train_batch_size, trainer.train_dataset
    number = 1 + data.num_segments if isinstance(data, RowWindows) else 1
    return [
        trainer.data_collator([data[row % len(data)] for row in range(i * size, (i + 1) * size)])
        for i in range(number)
    ]


def tokens_of(batch: dict, segment_length: int) -> int:
    """The number of tokens that a batch reads; for a segment of a stream or window, the tokens that it advances by."""
    rows, length = batch["input_ids"].shape
    if "places" in batch:
        return rows * segment_length
    return rows * (length - 1 if "continued" in batch else length)


def new_trainer(run: Run, stage: Stage, before: Stage | None, **options):
    """The trainer of a stage, with the model from the stage before it, or a new one."""
    config = run.comparison.model_config(run.cell, run.variant, stage)
    if stage.trainer == "lm":
        return LmTrainer(model=make_backbone(config.teacher_config.backbone_config), **options)
    if stage.trainer == "smt":
        return SmtTrainer(model=joint_model(run, stage, before, config), **options)
    if before is None or before.trainer == "lm":
        student = joint_model(run, stage, before, config).export_student()
    else:
        student = load_student(str(run.folder(before)))
    if stage.trainer == "dmt":
        return DmtTrainer(model=student, teacher=trained_teacher(run, stage), **options)
    backbone = language_model(run, stage) if options["args"].kd_weight else None
    return BpttTrainer(model=student, backbone=backbone, **options)


def joint_model(run: Run, stage: Stage, before: Stage | None, config) -> SmtForPreTraining:
    """Teacher and student of the SMT stage before this one, or new ones, on the backbone if there is one.

    This way, new students are the same for all trainers.
    """
    if before is not None and before.trainer == "smt":
        return load_joint(str(run.folder(before)))
    model = SmtForPreTraining(config)
    backbone = language_model(run, stage)
    if backbone is not None:
        model.start_from_backbone(backbone, run.seed)
    return model


def language_model(run: Run, stage: Stage):
    """The language model that a chain of stages begins with; `None` without one."""
    first = run.chain(stage)[0]
    place = str(run.folder(first)) if first.trainer == "lm" else first.backbone
    return None if place is None else load_backbone(place)


def trained_teacher(run: Run, stage: Stage):
    """The teacher of the last SMT stage before this one; `None` without one."""
    trained_with = [earlier for earlier in run.chain(stage)[:-1] if earlier.trainer == "smt"]
    return load_joint(str(run.folder(trained_with[-1]))).teacher if trained_with else None


def evaluated_model(trainer):
    """The model to evaluate: the language model, or the student; in SMT its initial memory is first set to the teacher's."""
    if isinstance(trainer, LmTrainer):
        return trainer.model
    if isinstance(trainer, SmtTrainer):
        trainer.model.set_initial_memory()
    return trainer.student()
