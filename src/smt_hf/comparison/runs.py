"""One run of a comparison: the stages of one cell, variant and seed, each resumed from its result if it has one."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PrinterCallback, set_seed

from ..checkpoints import load_joint, load_student
from ..models import SmtForPreTraining, SmtRnnForCausalLM
from ..training import BpttTrainer, DmtTrainer, SmtTrainer
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
        variant: tokens a row of a task, or the share of a dataset that is trained on.
        seed: of the weights, the data and what the steps draw.
        output_dir: the comparison's folder; a stage's is `<cell>/length-<length>/seed-<seed>/<stage>` in it, or
            `<cell>/every-length/seed-<seed>/<stage>` if all lengths share the stage; `<cell>/data-<share>/...` on a dataset.

    Returns:
        The results, as their files `result.json` hold them; stages that have one are not trained again.

    Raises:
        InputError: if a result was made with other settings.
        FloatingPointError: naming the stage whose loss is no finite number.
    """
    run = Run(comparison, cell, variant, seed, output_dir)
    return [finished(run, stage) for stage in comparison.stages_of(cell)]


def run_shared_stages(comparison: Comparison, cell: str, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages that all lengths share, so that runs side by side find them; as [`run_student`] otherwise."""
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
        """The stages that a stage's student went through, itself the last."""
        return ancestry(self.comparison.all_stages(), stage.name)

    def folder(self, stage: Stage) -> Path:
        """Where a stage leaves its model and its result."""
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
                | {"arguments": {**comparison.training, **step.arguments}}
                for step in self.chain(stage)
            ],
        }


def finished(run: Run, stage: Stage) -> dict:
    """The result of a stage, trained unless it has been."""
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
    """Trains one stage, saves its model, and measures it: a step of a curriculum once, on rows of its own."""
    comparison, subject, variant = run.comparison, run.comparison.subject, run.variant
    set_seed(run.seed)
    before = run.chain(stage)[-2] if stage.after else None
    arguments = comparison.arguments(stage, variant, run.seed, str(run.folder(stage)))
    trainer = new_trainer(run, stage, before, args=arguments, **subject.data(stage, variant, run.seed, arguments))
    result = {} if before else subject.untrained(stage, trainer.student())

    def measure():
        student = evaluated_student(trainer)
        training = student.training
        scores = subject.measure(student.eval(), stage, variant)
        student.train(training)
        return scores

    rows = range(arguments.per_device_train_batch_size)
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    flops, sequential = step_flops(trainer, batch)
    on_the_way = stage.shown_label is None
    trace = Trace(trainer.clock, measure, [1.0] if on_the_way else subject.trace_shares(comparison.trace_points))
    trainer.add_callback(trace)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()

    tokens = tokens_of(batch) * arguments.gradient_accumulation_steps
    for point in trace.points:
        steps = point["steps"]
        point |= {"tokens": steps * tokens, "flops": steps * flops, "sequential_flops": steps * sequential}
    result["trace"] = trace.points
    result["log"] = [entry for entry in trainer.state.log_history if "loss" in entry]
    if on_the_way:
        return result
    teacher = trainer.teacher_model() if stage.trainer == "smt" else trained_teacher(run, stage)
    student = evaluated_student(trainer).eval()
    return result | subject.measured(student, teacher and teacher.eval(), stage, variant)


def tokens_of(batch: dict) -> int:
    """The tokens that a batch goes through; the last of a stream's segment is the first of the next."""
    rows, length = batch["input_ids"].shape
    return rows * (length - 1 if "continued" in batch else length)


def new_trainer(run: Run, stage: Stage, before: Stage | None, **options):
    """The trainer of a stage, with the model that the stage before it left, or a new one."""
    config = run.comparison.model_config(run.cell, run.variant, stage)
    if stage.trainer == "smt":
        return SmtTrainer(
            model=load_joint(str(run.folder(before))) if before else SmtForPreTraining(config), **options
        )
    student = load_student(str(run.folder(before))) if before else new_student(config)
    if stage.trainer == "dmt":
        return DmtTrainer(model=student, teacher=trained_teacher(run, stage), **options)
    return BpttTrainer(model=student, **options)


def trained_teacher(run: Run, stage: Stage):
    """The teacher of the last SMT stage before this one, `None` without one."""
    trained_with = [earlier for earlier in run.chain(stage)[:-1] if earlier.trainer == "smt"]
    return load_joint(str(run.folder(trained_with[-1]))).teacher if trained_with else None


def new_student(config) -> SmtRnnForCausalLM:
    """An untrained student: the very weights that SMT starts from, so that all begin alike."""
    return SmtForPreTraining(config).export_student()


def evaluated_student(trainer) -> SmtRnnForCausalLM:
    """The student as a rollout finds it: SMT's starts from the teacher's empty context as it is now."""
    if isinstance(trainer, SmtTrainer):
        trainer.model.set_initial_memory()
    return trainer.student()
