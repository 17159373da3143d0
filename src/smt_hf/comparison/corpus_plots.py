"""The pictures of a comparison on a dataset, drawn from the rows of its CSV file alone."""

from pathlib import Path

from ..utils.figures import draw, line_styles
from .corpus_report import own_path, read_rows, runs_of
from .results import BUDGETS, chosen, methods

HEADROOM = 2.5  # losses above this multiple of the lowest are not shown


def write_corpus_plots(output_dir: str) -> list[Path]:
    """Draws `budgets.png` for the largest share of the data, and `budgets_data_SHARE.png` for others, in a comparison's folder.

    Returns:
        The files.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    folder = Path(output_dir)
    return plot_rows(read_rows(folder / "results.csv"), folder)


def plot_rows(rows: list[dict], folder: Path, prefix: str = "") -> list[Path]:
    """Draws the loss against each of the five budgets, one line per run, into `{prefix}budgets.png`, and for smaller shares of the
    data into `{prefix}budgets_data_SHARE.png`."""
    runs = runs_of(rows)
    lines, files = line_styles(methods(runs)), []
    shares = sorted({run["data_share"] for run in runs}, reverse=True)
    for share in shares:
        name = "budgets.png" if share == shares[0] else f"budgets_data_{share:g}.png"
        shown = chosen(runs, data_share=share)
        grid = (len(BUDGETS), 3, 2.8)
        files.append(
            draw(
                folder / f"{prefix}{name}",
                grid,
                lambda axes, shown=shown: budgets(axes, shown, lines, rows[0]["unit"]),
            )
        )
    return files


def budgets(axes, runs: list[dict], lines: dict, unit: str) -> None:
    """Draws one line per run: its last stage, from where the stage before it ended."""
    losses = [point["loss"] for run in runs for point in run["path"]]
    top = min(max(losses), HEADROOM * min(losses))
    for axis, (name, label) in zip(axes, BUDGETS.items(), strict=True):
        for run in runs:
            own = own_path(run)
            path = run["path"][-len(own) - 1 :]
            line = {**lines[run["cell"], run["method"]], "markersize": 3}
            axis.plot([point[name] for point in path], [point["loss"] for point in path], **line)
        axis.set(xlabel=label, xscale="log", ylim=(0.97 * min(losses), 1.02 * top))
    for axis in axes[::3]:
        axis.set_ylabel(f"nats per {unit}")
