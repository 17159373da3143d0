"""Tables as files and in Markdown."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean


def write_csv(file: Path, rows: list[dict]) -> None:
    """Writes rows, which need not all have the same columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(file, "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, names)
        writer.writeheader()
        writer.writerows(rows)


def mean_and_range(values: Sequence[float], digits: int, unit: str = "") -> str:
    """The mean of the seeds' numbers, and their range and number if there are several."""
    text = f"{mean(values):.{digits}f}{unit}"
    if len(values) == 1:
        return text
    return f"{text} ({min(values):.{digits}f}–{max(values):.{digits}f}, n={len(values)})"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
