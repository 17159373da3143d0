"""Trains a student over a grid of sizes, for the measurements in docs/results/scaling_study.md.

    python scripts/scaling_study.py tinystories --csv docs/results/scaling_tinystories.csv \
        --dataset tinystories_train.txt --eval_dataset tinystories_valid.txt --eval_split train
    python scripts/scaling_study.py recall --csv docs/results/scaling_recall.csv

A point of the grid is the recipe in configs/scaling with a few fields changed. It is trained with the code of `smt-hf compare`, whose
flags work here too. A stopped study continues where it was. The CSV file is rewritten after every point.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from smt_hf.cli.compare import COMMAND, quiet_and_single
from smt_hf.cli.parsing import parse
from smt_hf.comparison import Comparison, run_student
from smt_hf.comparison.results import read_results
from smt_hf.comparison.tables import write_csv
from smt_hf.models import SmtRnnForCausalLM

ROOT = Path(__file__).resolve().parent.parent
SPENT = ("tokens", "flops", "sequential_flops", "cpu_seconds")
# TinyStories: one field at a time is changed in this student. A run reads 205,000 tokens: a share of the data with more tokens than
# that is as good as all of the data.
BASE = {"hidden_size": 32, "num_memory_tokens": 4, "context_length": 64, "data_share": 1.0}
AXES = {
    "hidden_size": [32, 16, 64, 128],
    "data_share": [0.001, 0.01, 1.0],
    "num_memory_tokens": [1, 2, 4, 8],
    "context_length": [16, 64, 128],
}
# Recall: the memories, as number of tokens and width.
MEMORIES = [(4, 32), (1, 8), (1, 32), (4, 8), (1, 16), (4, 16), (2, 16), (8, 16), (2, 8)]


def tinystories_runs(seeds: list[int]) -> list[tuple[int, dict]]:
    """Seeds and points, ordered so that the first seed of every point comes before the second of any."""
    points = [BASE | {axis: value} for axis, values in AXES.items() for value in values]
    unique = {tuple(point.values()): point for point in points}
    return [(seed, point) for seed in seeds for point in unique.values()]


def tinystories_at(comparison: Comparison, point: dict) -> tuple[Comparison, float]:
    """The comparison at a point, with as many tokens per step as in the recipe, and its variant."""
    model, training = dict(comparison.model), dict(comparison.training)
    model |= {name: point[name] for name in ("hidden_size", "num_memory_tokens")}
    length = point["context_length"]
    tokens = training["context_length"] * training["per_device_train_batch_size"]
    training |= {"context_length": length, "per_device_train_batch_size": tokens // length}
    own = {"smt": {"num_transitions": length}, "dmt": {"rollout_length": length}, "bptt": {}}
    stages = {name: {**fields, **own[name]} for name, fields in comparison.stages.items()}
    if length != BASE["context_length"]:
        del stages["bptt"]  # its streams have no windows
    share = point["data_share"]
    return replace(comparison, model=model, training=training, stages=stages, data_shares=[share]), share


def recall_runs(seeds: list[int]) -> list[tuple[int, dict]]:
    """Seeds and points."""
    points = [{"num_memory_tokens": k, "hidden_size": d} for k, d in MEMORIES]
    return [(seed, point) for seed in seeds for point in points]


def recall_at(comparison: Comparison, point: dict) -> tuple[Comparison, int]:
    """The comparison at a point, and its variant."""
    return replace(comparison, model={**comparison.model, **point}), comparison.lengths[0]


def num_parameters(comparison: Comparison, variant: float) -> int:
    """The number of parameters of the student."""
    with torch.device("meta"):
        student = SmtRnnForCausalLM(comparison.model_config("transformer", variant).student_config)
    return sum(each.numel() for each in student.parameters())


def rows_of(folder: Path, point: dict, comparison: Comparison, variant: float) -> list[dict]:
    """The results of the students at a point."""
    rows, parameters = [], num_parameters(comparison, variant)
    if comparison.task is not None:
        point = point | {"string_length": comparison.task_options["string_length"]}
    for result in read_results(str(folder)):
        named = {**point, "parameters": parameters, "seed": result["seed"]}
        scores, teacher = result["student"], result.get("teacher")
        if "accuracy" in result:
            length = str(result["length"])
            scores, teacher = scores[length], teacher and teacher[length]
        names = ("accuracy", "row_accuracy", "loss") if "accuracy" in scores else ("loss", "standard_error")
        spent = {name: result["path"][-1][name] for name in SPENT}
        rows.append({**named, "method": result["method"], **{name: scores[name] for name in names}, **spent})
        if teacher:
            own = {name: teacher[name] for name in names}
            rows.append({**named, "method": f"{result['method']}: its teacher", **own, **spent})
    return rows


STUDIES = {"tinystories": (tinystories_runs, tinystories_at), "recall": (recall_runs, recall_at)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--csv", type=Path, required=True, help="File for the measurements.")
    options, words = parser.parse_known_args()
    recipe = ROOT / "configs" / "scaling" / f"{options.study}.yaml"
    given, comparison = parse(COMMAND, [str(recipe), "--output_dir", f"runs/scaling/{options.study}", *words])
    runs, at = STUDIES[options.study]
    quiet_and_single()
    rows = {}
    for seed, point in runs(comparison.seeds):
        folder = Path(given.output_dir) / "-".join(f"{name}-{value:g}" for name, value in point.items())
        changed, variant = at(comparison, point)
        changed.subject.open()
        run_student(changed, "transformer", variant, seed, str(folder))
        rows[folder] = rows_of(folder, point, changed, variant)
        write_csv(options.csv, [row for each in rows.values() for row in each])
        print(", ".join(f"{name} {value:g}" for name, value in point.items()), "seed", seed, flush=True)


if __name__ == "__main__":
    main()
