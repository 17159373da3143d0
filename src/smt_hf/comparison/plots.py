"""The pictures of a comparison."""

from collections.abc import Sequence
from math import log2
from pathlib import Path
from statistics import mean

from ..utils.figures import draw, line_styles
from .results import BUDGETS, chosen, methods, read_results

CURVES = ("budgets", "gradients", "drift", "memory_space")


def write_plots(output_dir: str, chance: float) -> list[Path]:
    """Draws every picture for which there are results, in a comparison's folder.

    `accuracy.png`: accuracy against length. The others show one length, see [`shown_length`]. `budgets.png`: loss against each
    budget. `gradients.png`: the gradient norm at the memories against the distance to the loss. `drift.png`: drift against the
    step of a rollout. `memory_space.png`: memories in two dimensions, coloured by the label of their step.

    Args:
        output_dir: the folder.
        chance: accuracy of an answer that does not look at the input.

    Returns:
        The files.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    results = read_results(output_dir)
    folder = Path(output_dir)
    return [plot_accuracy(results, chance, folder / "accuracy.png"), *plot_curves(results, folder)]


def plot_accuracy(results: list[dict], chance: float, file: Path) -> Path:
    """Draws accuracy against length: means over the seeds, with the lowest and highest as bars.

    Args:
        results: `cell`, `method`, `length` and `accuracy` of every run.
        chance: accuracy of an answer that does not look at the input.
        file: where the picture goes.
    """
    lines = line_styles(methods(results))
    return draw(file, (1, 1, 4.0), lambda axes: accuracy(axes[0], results, lines, chance))


def plot_spending(results: list[dict], file: Path) -> Path:
    """Draws the final accuracy against each budget spent, at the length of [`shown_length`].

    Args:
        results: `cell`, `method`, `length`, `accuracy` and the budgets of every run.
        file: where the picture goes.
    """
    shown = chosen(results, length=shown_length(results))
    lines = line_styles(methods(results))
    return draw(file, (len(BUDGETS), 3, 2.6), lambda axes: spending(axes, shown, lines))


def plot_curves(results: list[dict], folder: Path, names: Sequence[str] = CURVES, prefix: str = "") -> list[Path]:
    """Draws what runs record besides their scores, at the length of [`shown_length`], into `{prefix}{name}.png`.

    Args:
        results: the results of `read_results` or `read_curves`.
        folder: where the pictures go.
        names: which pictures.
        prefix: prefix of their names.
    """
    shown = chosen(results, length=shown_length(results))
    seed = min(result["seed"] for result in shown)
    one_seed = [r for cell, method in methods(shown) for r in chosen(shown, cell=cell, method=method, seed=seed)]
    lines = line_styles(methods(results))
    drawings = {
        "budgets": ((len(BUDGETS), 3, 2.6), lambda axes: budgets(axes, one_seed, lines)),
        "gradients": ((2, 2, 3.2), lambda axes: gradients(axes, one_seed, lines)),
        "drift": ((1, 1, 4.0), lambda axes: drift(axes[0], shown, lines)),
        "memory_space": ((len(one_seed), 3, 2.6), lambda axes: memory_space(axes, one_seed, lines)),
    }
    return [draw(folder / f"{prefix}{name}.png", *drawings[name]) for name in names]


def shown_length(results: list[dict]) -> int:
    """The longest of the lengths with the most methods, so that methods can be compared even if some lack other lengths."""
    return max(
        {r["length"] for r in results}, key=lambda length: (len(methods(chosen(results, length=length))), length)
    )


def accuracy(axis, results, lines, chance) -> None:
    """Draws methods side by side at every length, so that each can be seen even if they are equally good."""
    lengths = sorted({result["length"] for result in results})
    gap = min((log2(b / a) for a, b in zip(lengths, lengths[1:], strict=False)), default=1)
    for number, (cell, method) in enumerate(methods(results)):
        found = [
            (n, [100 * r["accuracy"] for r in chosen(results, cell=cell, method=method, length=n)]) for n in lengths
        ]
        found = [(n, values) for n, values in found if values]
        shift = 2 ** (0.5 * gap * ((number + 0.5) / len(lines) - 0.5))
        means = [mean(values) for _, values in found]
        below = [middle - min(values) for middle, (_, values) in zip(means, found, strict=True)]
        above = [max(values) - middle for middle, (_, values) in zip(means, found, strict=True)]
        axis.errorbar(
            [n * shift for n, _ in found], means, yerr=[below, above], capsize=2, elinewidth=1, **lines[cell, method]
        )
    axis.axhline(100 * chance, color="grey", linestyle=":", label="chance")
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, lengths)
    axis.minorticks_off()
    axis.set(
        xlabel="tokens per row",
        ylabel="accuracy, %",
        ylim=(max(-2, 100 * chance - 10), 103),
        title="Accuracy of the student on its own states",
    )


def spending(axes, results, lines) -> None:
    """Draws one point per method, the mean over its seeds, with their lowest and highest accuracy."""
    for axis, (name, label) in zip(axes, BUDGETS.items(), strict=True):
        for cell, method in methods(results):
            runs = chosen(results, cell=cell, method=method)
            values, line = [100 * run["accuracy"] for run in runs], {**lines[cell, method], "linestyle": ""}
            middle = mean(values)
            ends = [[middle - min(values)], [max(values) - middle]]
            axis.errorbar(mean(run[name] for run in runs), middle, yerr=ends, capsize=2, elinewidth=1, **line)
        axis.set(xlabel=label, xlim=(0, 1.08 * max(run[name] for run in results)), ylim=(-3, 105))
        axis.locator_params(axis="x", nbins=4)
    for axis in axes[::3]:
        axis.set_ylabel("accuracy, %")


def budgets(axes, results, lines) -> None:
    for axis, (name, label) in zip(axes, BUDGETS.items(), strict=True):
        for result in results:
            path = result["path"][-len(result["trace"]) - 1 :]  # its last stage, from where the stage before ended
            line = {**lines[result["cell"], result["method"]], "markersize": 3}
            axis.plot([p[name] for p in path], [p["loss"] for p in path], **line)
        axis.set(xlabel=label, xlim=(0, None))
        axis.locator_params(axis="x", nbins=4)
    for axis in axes[::3]:
        axis.set_ylabel("loss, nats")


def gradients(axes, results, lines) -> None:
    for result in results:
        line = {**lines[result["cell"], result["method"]], "marker": ""}
        untrained = {**line, "label": f"{line['label']}, new weights", "linestyle": ":"}
        for name, style in {"gradient_norms": line, "initial_gradient_norms": untrained}.items():
            if name in result:
                norms = [norm for norm in result[name] if norm > 0]
                axes[0].plot(range(len(norms)), norms[::-1], **style)
        if "transition_gradient_norms" in result:
            axes[1].plot(result["transition_gradient_norms"], **line)
    axes[0].set(yscale="log", xlabel="steps from memory to loss", ylabel="norm of the gradient")
    axes[0].set_title("through the whole row (as in BPTT)")
    axes[1].set(yscale="log", xlabel="step of the row", title="of the dynamics loss (as in SMT)", ylim=(1e-4, 1))


def drift(axis, results, lines) -> None:
    for cell, method in methods(results):
        curves = [r["drift"] for r in chosen(results, cell=cell, method=method) if "drift" in r]
        if curves:
            steps = range(1, len(curves[0]) + 1)
            line = {**lines[cell, method], "marker": ""}
            axis.plot(steps, [mean(values) for values in zip(*curves, strict=True)], **line)
    axis.set(xscale="log", yscale="log", xlabel="step of the rollout", ylabel="mean squared error")
    axis.set_title("Drift: distance between the student's memory and the teacher's")


def memory_space(axes, results, lines) -> None:
    for axis, result in zip(axes, results, strict=True):
        space = result["memory_space"]
        x, y = zip(*space["points"], strict=True)
        axis.scatter(x, y, c=space["labels"], cmap="viridis", s=10)
        axis.set_xticks([])
        axis.set_yticks([])
        shares = [f"{100 * share:.0f} %" for share in space["explained"]]
        axis.set(xlabel=f"1st component ({shares[0]})", ylabel=f"2nd ({shares[1]})")
        axis.set_title(lines[result["cell"], result["method"]]["label"].replace(" (", "\n("), fontsize=9)
