"""The results of a comparison on a dataset: a CSV file with one row per measurement, and the tables made from it."""

import csv
from math import ceil, exp, log
from pathlib import Path
from statistics import mean, median

from .results import BUDGETS, chosen, methods, read_results
from .tables import markdown, mean_and_range, write_csv

WHOLE, COUNTS = ("seed", "rows", "corpus_tokens", "steps", "tokens"), ("cell", "method", "after", "stage", "unit")


def write_corpus_report(output_dir: str, reference: str = "BPTT", targets: list[float] | None = None) -> str:
    """Writes `results.csv` and `results.md` for all results in a comparison's folder.

    Args:
        output_dir: the folder.
        reference: the method by whose budgets the others' are divided.
        targets: the losses to report budgets for, see [`tables`].

    Returns:
        The Markdown, which [`tables`] makes from the rows of the CSV file alone.

    Raises:
        InputError: if there are no results.
    """
    rows = [row for result in read_results(output_dir) for row in csv_rows(result)]
    file = Path(output_dir) / "results.csv"
    write_csv(file, rows)
    text = tables(read_rows(file), reference, targets)
    file.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def csv_rows(result: dict) -> list[dict]:
    """The measurements of a result's own stage, each with the budget spent so far, including earlier stages.

    The last one measures the trained student on more windows or images. It also holds the loss of the teacher trained with it,
    and the drift from that teacher at the end of the rollout.
    """
    named = {name: result[name] for name in ("cell", "method", "after", "data_share", "seed")}
    named |= {"stage": result["stages"][-1], "unit": result["settings"]["unit"]}
    named["corpus_tokens"] = result["corpus_tokens"]
    named |= {f"backbone_{name}": spent for name, spent in result["backbone"].items()}
    points = result["path"][-len(result["trace"]) :]
    rows = [
        {**named, **{name: point[name] for name in ("steps", *BUDGETS, "loss", "standard_error", "rows")}}
        for point in points
    ]
    rows[-1] |= result["student"]
    if "teacher" in result:
        rows[-1] |= {"teacher_loss": result["teacher"]["loss"], "drift_last": result["drift"][-1]}
    return rows


def read_rows(file: Path) -> list[dict]:
    """The rows of a CSV file from [`write_corpus_report`], without empty fields."""
    rows = []
    with open(file, encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            kinds = {name: str if name in COUNTS else int if name in WHOLE else float for name in row}
            rows.append({name: kinds[name](value) for name, value in row.items() if value or name == "after"})
    return rows


def runs_of(rows: list[dict]) -> list[dict]:
    """The runs in the rows: `cell`, `method`, `data_share`, `seed`, the `path` from new weights on, and how many points are its `own`."""
    keys = list(dict.fromkeys((row["cell"], row["data_share"], row["seed"], row["method"]) for row in rows))
    runs = []
    for cell, share, seed, method in keys:
        own, path, wanted = [], [], method
        while wanted:
            part = chosen(rows, cell=cell, data_share=share, seed=seed, method=wanted)
            own, path, wanted = own or part, part + path, part[0]["after"] if part else ""
        names = {"cell": cell, "method": method, "data_share": share, "seed": seed}
        runs.append({**names, "path": path, "own": len(own)})
    return runs


def tables(rows: list[dict], reference: str = "BPTT", targets: list[float] | None = None) -> str:
    """The tables of a comparison, in Markdown.

    Args:
        rows: the rows of the CSV file.
        reference: the method by whose budgets the others' are divided.
        targets: losses, in nats per byte or pixel; when `None`, the reference's final loss, and 10 and 25 % above it.
    """
    runs, unit = runs_of(rows), rows[0]["unit"]
    share = max(run["data_share"] for run in runs)
    seeds = sorted({run["seed"] for run in runs})
    over = f"means over {len(seeds)} seeds (lowest–highest, n)" if len(seeds) > 1 else "one seed"
    parts = [
        f"Nats per {unit} on held-out data; the student starts from its initial memory and runs on its own states. The loss at the end "
        f"(± standard error over {rows_at_end(runs)}) and the lowest along the way; {over}.",
        loss_table(runs),
        "The budgets spent, including earlier stages, and the number of epochs; medians over the seeds.",
        spending_table(runs),
    ]
    whole = chosen(runs, data_share=share)
    targets = targets or default_targets(whole, reference)
    if targets:
        parts += [
            f"The budget needed to reach a loss, relative to that of {reference}, with the budget itself in brackets; medians over the "
            "seeds. Between two measurements, the loss is taken to be linear in the logarithm of the budget. \\< and \\>: the first "
            "measurement of the method, or of the reference, is below that loss already (~: both are). –: not reached.",
            needed_table(whole, reference, targets),
        ]
        free = free_of_backbones(whole)
        if free:
            parts += [
                "The same without the cost of the language model, for the methods that train one.",
                needed_table([*free, *reference_runs(whole, reference)], reference, targets),
            ]
    return "\n\n".join(parts) + "\n"


def free_of_backbones(runs: list[dict]) -> list[dict]:
    """The runs that trained a language model first, without its cost."""
    free = []
    for run in runs:
        if f"backbone_{next(iter(BUDGETS))}" in run["path"][-1]:
            costs = {name: run["path"][-1][f"backbone_{name}"] for name in BUDGETS}
            path = [{**point, **{name: point[name] - cost for name, cost in costs.items()}} for point in run["path"]]
            free.append({**run, "path": path})
    return free


def rows_at_end(runs: list[dict]) -> str:
    """The number of windows or images that the final losses were measured on, in words."""
    numbers = sorted({run["path"][-1]["rows"] for run in runs})
    return f"{'–'.join(map(str, numbers))} rows" if len(numbers) < 3 else f"{numbers[0]} or more rows"


def loss_table(runs: list[dict]) -> str:
    """One row per method and per teacher, two columns per share of the data."""
    shares = sorted({run["data_share"] for run in runs}, reverse=True)
    several = len(shares) > 1
    lines = []
    for cell, method in methods(runs):
        line, taught = [cell, method], [cell, f"{method}: its teacher"]
        for share in shares:
            found = chosen(runs, cell=cell, method=method, data_share=share)
            ends = [run["path"][-1] for run in found]
            line += [spread(ends), spread([min(own_path(run), key=lambda point: point["loss"]) for run in found])]
            taught += [spread([{"loss": end["teacher_loss"]} for end in ends if "teacher_loss" in end]), "–"]
        lines.append(line)
        if set(taught[2:]) != {"–"}:
            lines.append(taught)
    head = [f"{part}, {share:.3g} of the data" if several else part for share in shares for part in ("end", "lowest")]
    return markdown(["cell", "method", *head], lines)


def own_path(run: dict) -> list[dict]:
    """The measurements of a run's last stage."""
    return run["path"][-run["own"] :]


def spread(points: list[dict]) -> str:
    """The loss of one measurement with its standard error, or the mean and range of several."""
    if not points:
        return "–"
    losses = [point["loss"] for point in points]
    if len(losses) > 1:
        return mean_and_range(losses, 3)
    error = points[0].get("standard_error")
    return f"{losses[0]:.3f}" if error is None else f"{losses[0]:.3f} ± {error:.3f}"


def spending_table(runs: list[dict]) -> str:
    """One row per method and share, one column per kind of budget."""
    lines = []
    for share in sorted({run["data_share"] for run in runs}, reverse=True):
        for cell, method in methods(runs):
            ends = [run["path"][-1] for run in chosen(runs, cell=cell, method=method, data_share=share)]
            if ends:
                spent = [f"{median(end[name] for end in ends):.3g}" for name in ("steps", *BUDGETS)]
                epochs = median(end["tokens"] / end["corpus_tokens"] for end in ends)
                lines.append([f"{share:.3g}", cell, method, *spent, f"{epochs:.2g}"])
    return markdown(["data", "cell", "method", "steps", *BUDGETS.values(), "epochs"], lines)


def default_targets(runs: list[dict], reference: str) -> list[float]:
    """The reference's final loss, and 10 and 25 % above it; empty without results of the reference."""
    found = reference_runs(runs, reference)
    if not found:
        return []
    end = mean(run["path"][-1]["loss"] for run in found)
    # Rounded up, so that the reference reaches the last one.
    return [ceil(1000 * end * factor - 1e-6) / 1000 for factor in (1.25, 1.1, 1.0)]


def reference_runs(runs: list[dict], reference: str) -> list[dict]:
    """The runs that others are compared with, of the cell that has the most runs."""
    cells = [run["cell"] for run in runs]
    found = chosen(runs, method=reference)
    cell = max((run["cell"] for run in found), key=cells.count, default=None)
    return chosen(found, cell=cell)


def needed_table(runs: list[dict], reference: str, targets: list[float]) -> str:
    """One row per loss and method, one column per kind of budget."""
    lines = []
    for target in targets:
        base = {name: needed_of(reference_runs(runs, reference), name, target) for name in BUDGETS}
        for cell, method in methods(runs):
            found = chosen(runs, cell=cell, method=method)
            cells = [relative(needed_of(found, name, target), base[name]) for name in BUDGETS]
            reached = sum(needed(run["path"], "steps", target) is not None for run in found)
            which = method if len(found) == 1 else f"{method} ({reached} of {len(found)} seeds)"
            lines.append([f"{target:.3f}", cell, which, *cells])
    return markdown(["loss", "cell", "method", *BUDGETS.values()], lines)


def needed_of(runs: list[dict], name: str, target: float) -> tuple[float, bool] | None:
    """The median of [`needed`] over the runs that reach a loss; `None` if fewer than half of them do."""
    found = [needed(run["path"], name, target) for run in runs]
    reached = [pair for pair in found if pair is not None]
    if not reached or 2 * len(reached) < len(runs):
        return None
    return median(value for value, _ in reached), any(at_most for _, at_most in reached)


def needed(path: list[dict], name: str, target: float) -> tuple[float, bool] | None:
    """The budget at which a path first reaches a loss, and whether it is only an upper bound; `None` if it never does."""
    before = None
    for point in path:
        if point["loss"] <= target:
            if before is None:
                return point[name], True
            if before["loss"] == point["loss"] or not before[name]:
                return point[name], False
            part = (before["loss"] - target) / (before["loss"] - point["loss"])
            low, high = log(before[name]), log(point[name])
            return exp(low + part * (high - low)), False
        before = point
    return None


def relative(found: tuple[float, bool] | None, base: tuple[float, bool] | None) -> str:
    """A budget relative to the reference's; either may be only a bound."""
    if found is None:
        return "–"
    (value, at_most), below = found, "\\<"
    if base is None:
        return f"({below if at_most else ''}{value:.3g})"
    sign = {(True, False): below, (False, True): "\\>", (True, True): "~"}.get((at_most, base[1]), "")
    return f"{sign}{value / base[0]:.2g} ({value:.3g})"
