"""One run of a comparison: the stages of one cell, length and seed, each resumed from its result if it has one."""

import zlib
from dataclasses import dataclass
from pathlib import Path

from transformers import PrinterCallback, set_seed

from ..checkpoints import load_joint, load_student
from ..evaluation import evaluate_on_task
from ..models import SmtForPreTraining, SmtRnnForCausalLM
from ..tasks import TaskDataset
from ..training import BpttTrainer, DmtTrainer, SmtTrainer
from .flops import step_flops
from .measures import gradient_norms, measured
from .recipe import Comparison
from .result_file import read_result, write_result
from .stages import Stage, ancestry
from .trace import Trace

EPOCH_ROWS = 1 << 15  # rows of a task before others are drawn
TRACE_ROWS = 128


def run_student(comparison: Comparison, cell: str, length: int, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages of one run and measures each of them.

    Args:
        comparison: the recipe.
        cell: the student's updater.
        length: tokens a row.
        seed: of the weights, the data and what the steps draw.
        output_dir: the comparison's folder; a stage's is `<cell>/length-<length>/seed-<seed>/<stage>` in it, or
            `<cell>/every-length/seed-<seed>/<stage>` if all lengths share the stage.

    Returns:
        The results, as their files `result.json` hold them; stages that have one are not trained again.

    Raises:
        InputError: if a result was made with other settings.
        FloatingPointError: naming the stage whose loss is no finite number.
    """
    run = Run(comparison, cell, length, seed, output_dir)
    return [finished(run, stage) for stage in comparison.chosen_stages()]


def run_shared_stages(comparison: Comparison, cell: str, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages that all lengths share, so that runs side by side find them; as [`run_student`] otherwise."""
    run = Run(comparison, cell, comparison.lengths[0], seed, output_dir)
    return [finished(run, stage) for stage in comparison.chosen_stages() if comparison.is_shared(stage)]


@dataclass(frozen=True)
class Run:
    """The students of one cell, length and seed; see [`run_student`]."""

    comparison: Comparison
    cell: str
    length: int
    seed: int
    output_dir: str

    def chain(self, stage: Stage) -> list[Stage]:
        """The stages that a stage's student went through, itself the last."""
        return ancestry(self.comparison.all_stages(), stage.name)

    def folder(self, stage: Stage) -> Path:
        """Where a stage leaves its model and its result."""
        rows = "every-length" if self.comparison.is_shared(stage) else f"length-{self.length}"
        return Path(self.output_dir) / self.cell.replace(":", ".") / rows / f"seed-{self.seed}" / stage.name

    def settings(self, stage: Stage) -> dict:
        """What a stage's training and scores depend on; no length and no budget of the comparison if lengths share it."""
        comparison, length = self.comparison, self.length
        shared = comparison.is_shared(stage)
        return {
            "task": comparison.task,
            "task_options": comparison.task_options,
            "cell": self.cell,
            "length": None if shared else length,
            "seed": self.seed,
            "config": comparison.model_config(self.cell, length).to_diff_dict(),
            "stages": [
                {"name": step.name, "label": step.shown_label, "trainer": step.trainer, "share": step.share}
                | {"length": step.length or length, "task_options": step.task_options}
                | {"arguments": {**comparison.training, **step.arguments}}
                for step in self.chain(stage)
            ],
            "cpu_seconds": None if shared else comparison.cpu_seconds[comparison.lengths.index(length)],
            "eval_rows": comparison.eval_rows,
            "eval_factors": comparison.eval_factors,
            "gradient_length": comparison.gradient_length,
        }


def finished(run: Run, stage: Stage) -> dict:
    """The result of a stage, trained unless it has been."""
    folder, settings = run.folder(stage), run.settings(stage)
    result = read_result(folder, settings)
    if result is not None:
        return result
    rows = "every length" if settings["length"] is None else f"length {run.length}"
    where = f"{run.cell}, {rows}, seed {run.seed}"
    try:
        result = run_stage(run, stage)
    except FloatingPointError as error:
        raise FloatingPointError(f"{stage} of {where}: {error}") from error
    result = write_result(folder, {"settings": settings, **result})
    print(f"{where}, {stage.name}: accuracy {result['trace'][-1]['accuracy']:.3f}", flush=True)
    return result


def row_seed(seed: int, stage: Stage) -> int:
    """The seed of the rows that a stage trains on.

    Another one for every stage of a run, whatever else the recipe names. Above 2 ** 32, so that no block of these rows has the
    generator of the rows for evaluation, which numpy takes to be that of (EVALUATION_SEED, 0, 0).
    """
    return (seed + 1 << 32) + zlib.crc32(stage.name.encode())


def run_stage(run: Run, stage: Stage) -> dict:
    """Trains one stage, saves its model, and measures it: a step of a curriculum once, on rows of its own."""
    comparison, length = run.comparison, run.length
    set_seed(run.seed)
    before = run.chain(stage)[-2] if stage.after else None
    arguments = comparison.arguments(stage, length, run.seed, str(run.folder(stage)))
    task = comparison.stage_task(stage, length)
    dataset = TaskDataset(task, EPOCH_ROWS, seed=row_seed(run.seed, stage))
    trainer = new_trainer(run, stage, before, args=arguments, train_dataset=dataset)
    result = {}
    if stage.trainer == "bptt" and before is None and stage.shown_label is not None:
        result["initial_gradient_norms"] = gradient_norms(comparison, trainer.student())

    def measure():
        student = evaluated_student(trainer)
        training = student.training
        scores = evaluate_on_task(student.eval(), task, TRACE_ROWS)
        student.train(training)
        return scores

    batch = trainer.data_collator([dataset[row] for row in range(arguments.per_device_train_batch_size)])
    flops, sequential = step_flops(trainer, batch)
    on_the_way = stage.shown_label is None
    trace = Trace(trainer.clock, measure, 1 if on_the_way else comparison.trace_points)
    trainer.add_callback(trace)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()

    tokens = batch["input_ids"].numel() * arguments.gradient_accumulation_steps
    for point in trace.points:
        steps = point["steps"]
        point |= {"tokens": steps * tokens, "flops": steps * flops, "sequential_flops": steps * sequential}
    result["trace"] = trace.points
    result["log"] = [entry for entry in trainer.state.log_history if "loss" in entry]
    if on_the_way:
        return result
    is_smt = stage.trainer == "smt"
    teacher = trainer.teacher_model() if is_smt else trained_teacher(run, stage)
    student = evaluated_student(trainer).eval()
    return result | measured(comparison, student, teacher and teacher.eval(), length, is_smt)


def new_trainer(run: Run, stage: Stage, before: Stage | None, **options):
    """The trainer of a stage, with the model that the stage before it left, or a new one."""
    config = run.comparison.model_config(run.cell, run.length)
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
