"""The curves of a comparison in one file, so that its pictures can be drawn even when its folder is gone."""

import json
from pathlib import Path

CURVES = ("gradient_norms", "initial_gradient_norms", "transition_gradient_norms", "drift", "memory_space")
SCALARS = ("cell", "length", "seed", "method", "accuracy")


def write_curves(results: list[dict], file: Path) -> None:
    """Writes the curves of results from `read_results`, with four significant digits."""
    kept = [{name: result[name] for name in (*SCALARS, *CURVES, "path") if name in result} for result in results]
    for row, result in zip(kept, results, strict=True):
        row["last_stage"] = len(result["trace"])
    file.write_text("[\n" + ",\n".join(json.dumps(short(row)) for row in kept) + "\n]\n", encoding="utf-8")


def read_curves(file: Path) -> list[dict]:
    """The results in a file of curves, for `plot_curves`."""
    results = json.loads(file.read_text(encoding="utf-8"))
    for result in results:
        if "path" in result:
            result["trace"] = result["path"][-result["last_stage"] :]
    return results


def short(value):
    """Any JSON value with its numbers rounded to four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [short(item) for item in value]
    if isinstance(value, dict):
        return {name: short(item) for name, item in value.items()}
    return value
