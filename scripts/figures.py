"""Draws every plot under docs/images from the results under docs/results.

    python scripts/figures.py            # all of them
    python scripts/figures.py retrieval  # those of one task or dataset

`docs/results/TASK.csv` and `TASK_curves.json` are the `results.csv` and `curves.json` of an `smt-hf compare` on a task, `DATASET.csv` is the
`results.csv` of one on a dataset. `long_generation.csv` comes from `scripts/long_generation.py`, `estimate.json` from
`scripts/check_estimate.py`, `scaling_tinystories.csv` and `scaling_recall.csv` from `scripts/scaling_study.py`.
"""

import argparse
import csv
import json
from pathlib import Path

import yaml
from scaling_laws import plot_laws, plot_recall, read

from smt_hf.comparison.corpus_plots import plot_rows
from smt_hf.comparison.corpus_report import read_rows
from smt_hf.comparison.curves import read_curves
from smt_hf.comparison.plots import plot_accuracy, plot_curves, plot_spending
from smt_hf.comparison.results import BUDGETS
from smt_hf.tasks import load_task
from smt_hf.utils.figures import draw

ROOT = Path(__file__).resolve().parent.parent
RESULTS, IMAGES = ROOT / "docs" / "results", ROOT / "docs" / "images"
LONG_GENERATION, ESTIMATE = "long_generation", "estimate"
# The quantities that an estimate predicts, with title and unit.
PREDICTED = {
    "flops": ("GFLOP a step", 1e9),
    "bytes": ("MB of a step", 1e6),
    "seconds": ("CPU s per step", 1),
}
# The curves that the pages of these tasks show.
CURVES = {"retrieval": ("gradients", "drift", "memory_space"), "parity": ("drift",), "stack": ("drift",)}
STUDIES = {"scaling_tinystories": plot_laws, "scaling_recall": plot_recall}  # of scripts/scaling_study.py
MODELS = {
    "student": {"label": "student (fixed-size memory)", "color": "#0072B2"},
    "gpt2": {"label": "GPT-2 (key-value cache)", "color": "#D55E00"},
}


def recipes(folder: str) -> set[str]:
    """The names of the recipes in a folder of `configs`."""
    return {file.stem for file in (ROOT / "configs" / folder).glob("*.yaml")}


def plot_named(name: str, images: Path) -> list[Path]:
    """Draws the pictures of one task, dataset, study or page."""
    results = images / "results"
    if name == LONG_GENERATION:
        return [plot_turns(read_csv(RESULTS / f"{name}.csv"), images / f"{name}.png")]
    if name == ESTIMATE:
        rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return [plot_estimate(rows, images / f"{name}.png")]
    if name in STUDIES:
        return [STUDIES[name](read(RESULTS / f"{name}.csv"), results / f"{name}.png")]
    if name in recipes("compare"):
        return plot_rows(read_rows(RESULTS / f"{name}.csv"), results, prefix=f"{name}_")
    return plot_task(name, results)


def plot_task(name: str, images: Path) -> list[Path]:
    """Draws the pictures of one task."""
    recipe = yaml.safe_load((ROOT / "configs" / "synthetic" / f"{name}.yaml").read_text(encoding="utf-8"))
    chance = load_task(recipe["task"], length=recipe["lengths"][0], **recipe.get("task_options", {})).chance
    runs = read_runs(RESULTS / f"{name}.csv")
    files = [plot_accuracy(runs, chance, images / f"{name}_accuracy.png")]
    if all(budget in run for run in runs for budget in BUDGETS):
        files.append(plot_spending(runs, images / f"{name}_spending.png"))
    curves = RESULTS / f"{name}_curves.json"
    if curves.is_file():
        files += plot_curves(read_curves(curves), images, CURVES[name], prefix=f"{name}_")
    return files


def read_runs(file: Path) -> list[dict]:
    """The runs in a CSV file of results: `cell`, `method`, `length`, `accuracy`, and the budgets if they are known."""
    runs = []
    for row in read_csv(file):
        spent = {name: float(row[name]) for name in BUDGETS if name in row}
        known = {"length": int(row["length"]), "accuracy": float(row["accuracy_at_1x"])}
        runs.append({"cell": row["cell"], "method": row["method"], **known, **spent})
    return runs


def read_csv(file: Path) -> list[dict]:
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def plot_turns(rows: list[dict], file: Path) -> Path:
    """Draws resident memory and time per token against the number of tokens.

    Args:
        rows: `model`, `tokens`, `bytes` and `seconds` (of one token) after every turn.
        file: where the picture goes.
    """
    return draw(file, (2, 2, 3.2), lambda axes: turns(axes, rows))


def turns(axes, rows) -> None:
    for axis, (name, label, scale) in zip(
        axes,
        [("bytes", "memory of the process, MB", 1e-6), ("seconds", "CPU milliseconds a token", 1e3)],
        strict=True,
    ):
        for model, style in MODELS.items():
            points = [(int(r["tokens"]) / 1000, float(r[name]) * scale) for r in rows if r["model"] == model]
            axis.plot(*zip(*points, strict=True), **style)
        axis.set(xlabel="tokens written, thousands", ylabel=label, ylim=(0, None))


def plot_estimate(rows: list[dict], file: Path) -> Path:
    """Draws predicted against measured numbers. Within the grey band they differ by at most 25 %.

    Args:
        rows: `method`, and predicted and measured `flops`, `bytes` and `seconds`.
        file: where the picture goes.
    """
    return draw(file, (3, 3, 2.9), lambda axes: predicted(axes, rows))


def predicted(axes, rows) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for axis, (name, (title, unit)) in zip(axes, PREDICTED.items(), strict=True):
        for method, marker in zip(methods, "os^Dvx", strict=True):
            chosen = [[number / unit for number in row[name]] for row in rows if row["method"] == method]
            found, measured = zip(*chosen, strict=True)
            axis.plot(measured, found, marker=marker, linestyle="", markersize=4, label=method)
        values = [number / unit for row in rows for number in row[name]]
        ends = [min(values) / 1.3, max(values) * 1.3]
        axis.plot(ends, ends, color="gray", linewidth=0.8)
        axis.fill_between(ends, [0.75 * end for end in ends], [1.25 * end for end in ends], color="gray", alpha=0.15)
        axis.set(title=title, xlabel="measured", xscale="log", yscale="log", xlim=ends, ylim=ends)
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter("{x:g}")
            each.set_minor_formatter("")
    axes[0].set_ylabel("predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = recipes("synthetic") | recipes("compare") | STUDIES.keys() | {LONG_GENERATION, ESTIMATE}
    measured = sorted({file.stem for file in RESULTS.iterdir() if file.suffix in (".csv", ".json")} & known)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(measured)}; all by default.")
    parser.add_argument("--images", type=Path, default=IMAGES, help="Folder of the pictures.")
    options = parser.parse_args()
    for name in options.names:
        if name not in measured:
            parser.error(f"there are no measurements named {name!r}: choose among {', '.join(measured)}")
    (options.images / "results").mkdir(parents=True, exist_ok=True)
    for name in options.names or measured:
        for file in plot_named(name, options.images):
            print(file)


if __name__ == "__main__":
    main()
