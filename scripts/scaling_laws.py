"""Tables and plots of the measurements of scripts/scaling_study.py.

python scripts/scaling_laws.py  # prints the tables of docs/results/scaling_study.md
python scripts/figures.py scaling_tinystories scaling_recall  # draws its plots
"""

import csv
import math
from pathlib import Path
from statistics import mean

import numpy as np

from smt_hf.comparison.tables import markdown, mean_and_range
from smt_hf.utils.figures import draw, line_styles

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
# The fields that vary, their titles, and the columns that losses are fitted against.
AXES = {
    "hidden_size": ("width D, by parameters of the student", "parameters"),
    "num_memory_tokens": ("memory tokens K", "num_memory_tokens"),
    "data_share": ("share of the data", "data_share"),
    "context_length": ("tokens of a window", "context_length"),
}
NUM_SYMBOLS = 8  # of the string that is recalled


def read(file: Path) -> list[dict]:
    """The rows of a CSV file, numbers as numbers."""
    with open(file, encoding="utf-8", newline="") as lines:
        return [
            {name: value if name == "method" else float(value) for name, value in row.items() if value}
            for row in csv.DictReader(lines)
        ]


def base_of(rows: list[dict]) -> dict:
    """The point where the axes cross: for every field, the value that most rows have."""
    return {axis: max({row[axis] for row in rows}, key=[row[axis] for row in rows].count) for axis in AXES}


def along(rows: list[dict], axis: str, method: str) -> dict[float, list[dict]]:
    """The runs of a method by the values of one axis, one per seed, with all other fields at the base."""
    base, found = base_of(rows), {}
    for row in rows:
        if row["method"] == method and all(row[other] == base[other] for other in AXES if other != axis):
            found.setdefault(row[axis], []).append(row)
    return dict(sorted(found.items()))


def spread(rows: list[dict], method: str) -> float:
    """The standard deviation of the loss over seeds, pooled over all points that have several; NaN if there are none."""
    points = {}
    for row in rows:
        if row["method"] == method:
            points.setdefault(tuple(row[axis] for axis in AXES), []).append(row["loss"])
    several = [losses for losses in points.values() if len(losses) > 1]
    if not several:
        return math.nan
    squares = sum(sum((loss - mean(losses)) ** 2 for loss in losses) for losses in several)
    return math.sqrt(squares / sum(len(losses) - 1 for losses in several))


def power(x: list[float], y: list[float]) -> tuple[float, float]:
    """The exponent c of the power law y = b x^c through points on logarithmic axes, and its standard error from the residuals.

    The error is NaN for fewer than three points.
    """
    a, b = np.log(x) - np.mean(np.log(x)), np.log(y) - np.mean(np.log(y))
    exponent = (a @ b) / (a @ a)
    residual = b - exponent * a
    error = math.sqrt(residual @ residual / (len(a) - 2) / (a @ a)) if len(a) > 2 else math.nan
    return float(exponent), error


def verdict(losses: list[list[float]], noise: float) -> str:
    """Whether the mean loss falls from each point to the next, in standard errors of the difference, based on the noise of the seeds.

    Args:
        losses: the losses of the seeds, by point.
        noise: the standard deviation over seeds.
    """
    if math.isnan(noise):
        return "no seeds to tell"
    steps = [
        (mean(before) - mean(after)) / (noise * math.sqrt(1 / len(before) + 1 / len(after)))
        for before, after in zip(losses, losses[1:], strict=False)
    ]
    shown = ", ".join(f"{step:+.1f}" for step in steps)
    if all(step > 2 for step in steps):
        return f"falls at every step ({shown} standard errors)"
    if all(step > -2 for step in steps):
        return f"falls or stands still ({shown})"
    return f"rises somewhere ({shown})"


def law_tables(rows: list[dict]) -> str:
    """The losses of all points, and the power laws through them."""
    methods = [method for method in dict.fromkeys(row["method"] for row in rows)]
    parts = []
    for axis in AXES:
        by_method = {method: along(rows, axis, method) for method in methods}
        values = sorted({value for points in by_method.values() for value in points})
        table = []
        for value in values:
            cells = []
            for points in by_method.values():
                losses = [row["loss"] for row in points.get(value, [])]
                cells.append(mean_and_range(losses, 3) if losses else "")
            (first, *_) = [points[value][0] for points in by_method.values() if value in points]
            table.append([f"{value:g}", f"{first['parameters']:,.0f}", *cells])
        parts.append(markdown([axis, "parameters", *methods], table))
    table = []
    for axis, (_, column) in AXES.items():
        for method in methods:
            runs = along(rows, axis, method)
            if len(runs) > 2:
                every = [row for points in runs.values() for row in points]
                exponent, error = power([row[column] for row in every], [row["loss"] for row in every])
                losses = [[row["loss"] for row in points] for points in runs.values()]
                said = verdict(losses, spread(rows, method))
                table.append([axis, method, f"{exponent:+.3f} ± {error:.3f}", said])
    parts.append(markdown(["against", "method", "exponent", "the loss, from one point to the next"], table))
    return "\n\n".join(parts)


def recalled(row: dict) -> float:
    """The total number of known symbols of the string: those that are right beyond guessing."""
    chance = 1 / NUM_SYMBOLS
    return row["string_length"] * (row["accuracy"] - chance) / (1 - chance)


def recall_table(rows: list[dict]) -> str:
    """The accuracy and the number of recalled symbols for every memory size."""
    methods = [method for method in dict.fromkeys(row["method"] for row in rows)]
    points = {(row["num_memory_tokens"], row["hidden_size"]) for row in rows}
    table = []
    for k, d in sorted(points, key=lambda point: (point[0] * point[1], point[1])):
        cells = []
        for method in methods:
            runs = [r for r in rows if (r["num_memory_tokens"], r["hidden_size"], r["method"]) == (k, d, method)]
            rights = [100 * row["accuracy"] for row in runs]
            cells.append(f"{mean_and_range(rights, 1, ' %')}, {mean(map(recalled, runs)):.1f}" if runs else "")
        table.append([f"{k:g}", f"{d:g}", f"{k * d:g}", *cells])
    return markdown(["K", "D", "K × D", *methods], table)


def plot_laws(rows: list[dict], file: Path) -> Path:
    """Draws the losses against every axis, with the power laws through them."""
    return draw(file, (4, 2, 2.8), lambda axes: laws(axes, rows))


def laws(axes, rows: list[dict]) -> None:
    methods = [method for method in dict.fromkeys(row["method"] for row in rows) if "teacher" not in method]
    lines = line_styles([("transformer", method) for method in methods])
    losses = [row["loss"] for row in rows if row["method"] in methods]
    for panel, (axis, (label, column)) in zip(axes, AXES.items(), strict=True):
        shown = {}
        for method in methods:
            runs = along(rows, axis, method)
            if len(runs) < 2:
                continue
            every = [row for points in runs.values() for row in points]
            x, y = [row[column] for row in every], [row["loss"] for row in every]
            style = lines["transformer", method]
            panel.plot(x, y, marker=style["marker"], linestyle="", color=style["color"], label=method)
            shown |= (
                {row["hidden_size"]: row[column] for row in every}
                if axis == "hidden_size"
                else dict(zip(x, x, strict=True))
            )
            if len(runs) > 2:
                ends, (exponent, _) = np.array([min(x), max(x)]), power(x, y)
                law = np.exp(np.mean(np.log(y)) + exponent * (np.log(ends) - np.mean(np.log(x))))
                panel.plot(ends, law, color=style["color"], linewidth=1)
        panel.set(xlabel=label, xscale="log", yscale="log", ylim=(0.97 * min(losses), 1.03 * max(losses)))
        panel.minorticks_off()
        panel.set_xticks(list(shown.values()), [f"{value:g}" for value in shown])
        panel.set_yticks(np.arange(1.4, max(losses), 0.2))
        panel.yaxis.set_major_formatter("{x:.1f}")
    for panel in axes[::2]:
        panel.set_ylabel("nats per byte")


def plot_recall(rows: list[dict], file: Path) -> Path:
    """Draws the recalled symbols against the size of the memory, with one marker per width."""
    return draw(
        file,
        (len({row["method"] for row in rows}), 3, 2.8),
        lambda axes: recall(axes, rows),
    )


def recall(axes, rows: list[dict]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    widths = sorted({row["hidden_size"] for row in rows})
    for panel, method in zip(axes, methods, strict=True):
        for width, marker in zip(widths, "o^sDv", strict=False):
            runs: dict[float, list[float]] = {}
            for row in rows:
                if (row["hidden_size"], row["method"]) == (width, method):
                    runs.setdefault(row["num_memory_tokens"] * width, []).append(recalled(row))
            points = sorted((size, mean(known)) for size, known in runs.items())
            panel.plot(*zip(*points, strict=True), marker=marker, label=f"D = {width:g}")
        panel.set(title=method, xlabel="numbers of a memory, K × D", xscale="log", ylim=(0, rows[0]["string_length"]))
    axes[0].set_ylabel("symbols recalled")


def main() -> None:
    print(law_tables(read(RESULTS / "scaling_tinystories.csv")))
    print("\n" + recall_table(read(RESULTS / "scaling_recall.csv")))


if __name__ == "__main__":
    main()
