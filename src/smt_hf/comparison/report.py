"""The results of a comparison on a task: tables (a CSV file with one row per stage, and Markdown), and its curves in one file."""

from pathlib import Path
from statistics import mean, median, median_low

from .curves import write_curves
from .results import BUDGETS, chosen, methods, read_results
from .tables import markdown, mean_and_range, write_csv


def write_report(output_dir: str, chance: float) -> str:
    """Writes `results.csv`, `results.md` and `curves.json` for all results in a comparison's folder.

    Args:
        output_dir: the folder.
        chance: accuracy of an answer that does not look at the input.

    Returns:
        The Markdown.

    Raises:
        InputError: if there are no results.
    """
    results = read_results(output_dir)
    folder = Path(output_dir)
    write_csv(folder / "results.csv", [csv_row(result) for result in results])
    parts = [
        "Accuracy in % at the training length, mean over n seeds (lowest–highest; one seed where there is no range); "
        f"chance is {100 * chance:.1f}. The student starts from its initial memory and runs on its own states.",
        accuracy_table(results),
        "Evaluated beyond the training length (times its length), means over the seeds; the teacher reads its own memories.",
        generalisation_table(results),
        "Effective rank of the memories over rows and steps, means over the seeds.",
        rank_table(results),
        "The same budget for all methods of a length: the median of what the results spent. The mean accuracy in % at the last "
        "measurement within it; a method that spent less in total is shown with its final accuracy.",
        matched_table(results),
        "What the methods spent, medians over the seeds.",
        spending_table(results),
    ]
    text = "\n\n".join(parts) + "\n"
    write_curves(results, folder / "curves.json")
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def csv_row(result: dict) -> dict:
    """The CSV row of one stage."""
    row = {name: result[name] for name in ("cell", "length", "seed", "method")}
    for length, scores in result["student"].items():
        row |= {f"{name}_at_{int(length) // result['length']}x": round(value, 5) for name, value in scores.items()}
    for length, scores in result.get("teacher", {}).items():
        row[f"teacher_accuracy_at_{int(length) // result['length']}x"] = round(scores["accuracy"], 5)
    row |= {
        name: result[name] for name in ("effective_rank", "teacher_effective_rank", "uniformity") if name in result
    }
    if "drift" in result:
        row |= {"drift_first": result["drift"][0], "drift_last": result["drift"][-1]}
    return row | {name: result["path"][-1][name] for name in ("steps", *BUDGETS)}


def spread(values: list[float]) -> str:
    """The mean of shares in %, and their range and number if there are several."""
    return mean_and_range([100 * value for value in values], 1) if values else "–"


def accuracy_table(results: list[dict]) -> str:
    """One row per method, one column per length."""
    lengths = sorted({result["length"] for result in results})
    rows = []
    for cell, method in methods(results):
        values = [
            [r["accuracy"] for r in chosen(results, cell=cell, method=method, length=length)] for length in lengths
        ]
        rows.append([cell, method, *map(spread, values)])
        if "DMT" not in method and any("teacher" in r for r in chosen(results, cell=cell, method=method)):
            values = [
                [
                    r["teacher"][str(length)]["accuracy"]
                    for r in chosen(results, cell=cell, method=method, length=length)
                ]
                for length in lengths
            ]
            rows.append([cell, f"{method}: its teacher", *map(spread, values)])
    return markdown(["cell", "method", *[f"length {length}" for length in lengths]], rows)


def generalisation_table(results: list[dict]) -> str:
    """One row per method, one column per training length and factor."""
    lengths = sorted({result["length"] for result in results})
    factors = sorted({int(n) // result["length"] for result in results for n in result["student"]})
    rows = []
    for cell, method in methods(results):
        for whose, label in (("student", method), ("teacher", f"{method}: its teacher")):
            cells = []
            for length in lengths:
                for factor in factors:
                    found = [
                        r[whose][str(length * factor)]["accuracy"]
                        for r in chosen(results, cell=cell, method=method, length=length)
                        if str(length * factor) in r.get(whose, {})
                    ]
                    cells.append(f"{100 * mean(found):.1f}" if found else "–")
            if any(value != "–" for value in cells):
                rows.append([cell, label, *cells])
    return markdown(["cell", "method", *[f"{n}, ×{factor}" for n in lengths for factor in factors]], rows)


def rank_table(results: list[dict]) -> str:
    """One row per method, one column per length: how many directions the student's and the teacher's memories use."""
    lengths = sorted({result["length"] for result in results})
    rows = []
    for cell, method in methods(results):
        for whose, label in (("effective_rank", method), ("teacher_effective_rank", f"{method}: its teacher")):
            found = [
                [r[whose] for r in chosen(results, cell=cell, method=method, length=length) if whose in r]
                for length in lengths
            ]
            if any(found):
                rows.append([cell, label, *(f"{mean(ranks):.1f}" if ranks else "–" for ranks in found)])
    return markdown(["cell", "method", *[f"length {length}" for length in lengths]], rows)


def at_budget(path: list[dict], name: str, budget: float) -> float:
    """The accuracy at the last measurement within a budget; NaN if there is none."""
    within = [point["accuracy"] for point in path if point[name] <= budget * (1 + 1e-9)]
    return within[-1] if within else float("nan")


def matched_table(results: list[dict]) -> str:
    """One row per length and method, one column per kind of budget, with the size of the budget at the top."""
    rows = []
    for length in sorted({result["length"] for result in results}):
        here = [result for result in results if result["length"] == length]
        budgets = {name: median_low(result["path"][-1][name] for result in here) for name in BUDGETS}
        rows.append([str(length), "", "*budget*", *[f"*{budgets[name]:.3g}*" for name in BUDGETS]])
        for cell, method in methods(here):
            values = []
            for name, budget in budgets.items():
                found = [at_budget(r["path"], name, budget) for r in chosen(here, cell=cell, method=method)]
                found = [value for value in found if value == value]
                values.append(f"{100 * mean(found):.1f}" if found else "–")
            rows.append([str(length), cell, method, *values])
    return markdown(["length", "cell", "method", *BUDGETS.values()], rows)


def spending_table(results: list[dict]) -> str:
    """One row per length and method, one column per kind of budget."""
    rows = []
    for length in sorted({result["length"] for result in results}):
        for cell, method in methods(results):
            found = [r["path"][-1] for r in chosen(results, cell=cell, method=method, length=length)]
            if found:
                spent = [f"{median(point[name] for point in found):.3g}" for name in ("steps", *BUDGETS)]
                rows.append([str(length), cell, method, *spent])
    return markdown(["length", "cell", "method", "steps", *BUDGETS.values()], rows)
