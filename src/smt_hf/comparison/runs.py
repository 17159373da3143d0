"""One run of a comparison: the stages of one cell, length and seed, each resumed from its result if it has one."""

import json
import os
import zlib
from pathlib import Path

import torch
from transformers import PrinterCallback, set_seed

from ..checkpoints import load_joint, load_student
from ..data.tasks import TaskDataset
from ..errors import InputError
from ..evaluation import (
    bptt_gradient_norms,
    drift,
    evaluate_on_task,
    evaluate_teacher_on_task,
    rollout,
    smt_gradient_norms,
    teacher_states,
)
from ..evaluation.tasks import EVALUATION_SEED
from ..models import SmtForPreTraining, SmtRnnForCausalLM
from ..objectives import IGNORED, effective_rank, uniformity
from ..training import BpttTrainer, DmtTrainer, SmtTrainer
from .flops import step_flops
from .recipe import Comparison
from .stages import Stage, ancestry
from .trace import Trace

RESULT = "result.json"
EPOCH_ROWS = 1 << 15  # rows of a task before others are drawn
TRACE_ROWS = 128
GRADIENT_ROWS = 8


def run_student(comparison: Comparison, cell: str, length: int, seed: int, output_dir: str) -> list[dict]:
    """Trains the stages of one run and measures each of them.

    Args:
        comparison: the recipe.
        cell: the student's updater.
        length: tokens a row.
        seed: of the weights, the data and what the steps draw.
        output_dir: the comparison's folder; a stage's is `<cell>/length-<length>/seed-<seed>/<stage>` in it.

    Returns:
        The results, as their files `result.json` hold them; stages that have one are not trained again.

    Raises:
        InputError: if a result was made with other settings.
        FloatingPointError: naming the stage whose loss is no finite number.
    """
    folder = Path(output_dir) / cell / f"length-{length}" / f"seed-{seed}"
    stages, results = comparison.chosen_stages(), []
    for stage in stages:
        settings = stage_settings(comparison, ancestry(stages, stage.name), cell, length, seed)
        result = read_result(folder / stage.name, settings)
        if result is None:
            try:
                result = run_stage(comparison, stages, stage, cell, length, seed, folder)
            except FloatingPointError as error:
                raise FloatingPointError(f"{stage} of {cell}, length {length}, seed {seed}: {error}") from error
            result = write_result(folder / stage.name, {"settings": settings, **result})
            accuracy = result["trace"][-1]["accuracy"]
            print(f"{cell}, length {length}, seed {seed}, {stage.name}: accuracy {accuracy:.3f}", flush=True)
        results.append(result)
    return results


def stage_settings(comparison: Comparison, chain: list[Stage], cell: str, length: int, seed: int) -> dict:
    """What a stage's training and scores depend on."""
    return {
        "task": comparison.task,
        "task_options": comparison.task_options,
        "cell": cell,
        "length": length,
        "seed": seed,
        "config": comparison.model_config(cell, length).to_diff_dict(),
        "stages": [
            {"name": stage.name, "label": stage.shown_label, "trainer": stage.trainer, "share": stage.share}
            | {"length": stage.length or length, "task_options": stage.task_options}
            | {"arguments": {**comparison.training, **stage.arguments}}
            for stage in chain
        ],
        "cpu_seconds": comparison.cpu_seconds[comparison.lengths.index(length)],
        "eval_rows": comparison.eval_rows,
        "eval_factors": comparison.eval_factors,
    }


def read_result(folder: Path, settings: dict) -> dict | None:
    """The result of a finished stage, or `None`.

    Raises:
        InputError: if it was made with other settings.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    difference = first_difference(result["settings"], json.loads(json.dumps(settings)))
    if difference is not None:
        raise InputError(
            f"{str(file)!r} was made with other settings ({difference}): choose another output_dir, or remove {str(folder)!r} "
            "and what went on from it to train it anew"
        )
    return result


def write_result(folder: Path, result: dict) -> dict:
    """Writes a result, whole or not at all, and returns it as it is read."""
    text = json.dumps(result) + "\n"
    unfinished = folder / f"{RESULT}.part"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / RESULT)
    return json.loads(text)


def first_difference(old, new, name: str = "") -> str | None:
    """Where two nested values of JSON first differ, and what stands there: `name: old, now new`; `None` if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {key: (old.get(key), new.get(key)) for key in [*new, *old]}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = dict(enumerate(zip(old, new, strict=True)))
    else:
        return None if old == new else f"{name}: {old!r}, now {new!r}"
    found = (first_difference(*pair, f"{name}.{key}".lstrip(".")) for key, pair in pairs.items())
    return next(filter(None, found), None)


def row_seed(seed: int, stage: Stage) -> int:
    """The seed of the rows that a stage trains on.

    Another one for every stage of a run, whatever else the recipe names. Above 2 ** 32, so that no block of these rows has the
    generator of the rows for evaluation, which numpy takes to be that of (EVALUATION_SEED, 0, 0).
    """
    return (seed + 1 << 32) + zlib.crc32(stage.name.encode())


def run_stage(comparison, stages, stage: Stage, cell: str, length: int, seed: int, folder: Path) -> dict:
    """Trains one stage, saves its model, and measures it."""
    set_seed(seed)
    chain = ancestry(stages, stage.name)
    trained_with = [earlier for earlier in chain[:-1] if earlier.trainer == "smt"]
    teacher_folder = folder / trained_with[-1].name if trained_with else None
    arguments = comparison.arguments(stage, length, seed, str(folder / stage.name))
    task = comparison.stage_task(stage, length)
    dataset = TaskDataset(task, EPOCH_ROWS, seed=row_seed(seed, stage))
    options = {"args": arguments, "train_dataset": dataset}
    before = str(folder / stage.after) if stage.after else None
    if stage.trainer == "smt":
        joint = load_joint(before) if before else SmtForPreTraining(comparison.model_config(cell, length))
        trainer = SmtTrainer(model=joint, **options)
    else:
        student = load_student(before) if before else new_student(comparison, cell, length)
        if stage.trainer == "dmt":
            trainer = DmtTrainer(model=student, teacher=load_joint(str(teacher_folder)).teacher, **options)
        else:
            trainer = BpttTrainer(model=student, **options)
    result = {}
    if stage.trainer == "bptt" and before is None and stage.shown_label is not None:
        result["initial_gradient_norms"] = gradient_norms(comparison, trainer.student())

    trace_task = comparison.load_task(length)

    def measure():
        student = evaluated_student(trainer)
        training = student.training
        scores = evaluate_on_task(student.eval(), trace_task, TRACE_ROWS)
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
    student = evaluated_student(trainer).eval()
    teacher = None
    if stage.trainer == "smt":
        teacher = trainer.teacher_model().eval()
    elif teacher_folder is not None:
        teacher = load_joint(str(teacher_folder)).teacher.eval()
    return result | measured(comparison, student, teacher, length, is_smt=stage.trainer == "smt")


def new_student(comparison: Comparison, cell: str, length: int) -> SmtRnnForCausalLM:
    """An untrained student: the very weights that SMT starts from, so that all begin alike."""
    return SmtForPreTraining(comparison.model_config(cell, length)).export_student()


def evaluated_student(trainer) -> SmtRnnForCausalLM:
    """The student as a rollout finds it: SMT's starts from the teacher's empty context as it is now."""
    if isinstance(trainer, SmtTrainer):
        trainer.model.set_initial_memory()
    return trainer.student()


def measured(comparison: Comparison, student, teacher, length: int, is_smt: bool) -> dict:
    """All that is said of a trained student."""
    rows = comparison.eval_rows
    lengths = [length * factor for factor in comparison.eval_factors]
    result = {"student": {str(n): evaluate_on_task(student, comparison.load_task(n), rows) for n in lengths}}
    sample = comparison.load_task(length).sample(64, EVALUATION_SEED)
    states = rollout(student, sample["input_ids"])[1]
    result["effective_rank"] = effective_rank(states).item()
    result["uniformity"] = uniformity(states).item()
    result["memory_space"] = memory_space(states, sample["labels"])
    if teacher is not None:
        result["drift"] = drift(student, teacher, sample["input_ids"]).tolist()
    if is_smt:
        result["teacher"] = {str(n): evaluate_teacher_on_task(teacher, comparison.load_task(n), rows) for n in lengths}
        encoded = teacher_states(teacher, sample["input_ids"], torch.arange(length))
        result["teacher_effective_rank"] = effective_rank(encoded).item()
        far = comparison.load_task(comparison.gradient_length).sample(GRADIENT_ROWS, EVALUATION_SEED)
        result["transition_gradient_norms"] = smt_gradient_norms(student, teacher, far["input_ids"]).tolist()
    result["gradient_norms"] = gradient_norms(comparison, student)
    return result


def gradient_norms(comparison: Comparison, student) -> list[float]:
    """See [`bptt_gradient_norms`], over rows of `gradient_length` tokens."""
    rows = comparison.load_task(comparison.gradient_length).sample(GRADIENT_ROWS, EVALUATION_SEED)
    return bptt_gradient_norms(student, rows["input_ids"], rows["labels"]).tolist()


def memory_space(states: torch.Tensor, labels: torch.Tensor, num_points: int = 512) -> dict:
    """The memories `(N, T, K, D)` of labelled steps on their first two principal components, and the labels `(N, T)`."""
    labelled = labels != IGNORED
    points = states[labelled].flatten(1).float()[:num_points]
    centred = points - points.mean(dim=0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    return {
        "points": (centred @ directions[:2].T).tolist(),
        "labels": labels[labelled][:num_points].tolist(),
        "explained": (singular[:2].square() / singular.square().sum().clamp(min=1e-12)).tolist(),
    }
