"""The pictures of a comparison."""

from pathlib import Path
from statistics import mean

from .results import BUDGETS, chosen, methods, read_results

MAX_COLUMNS = 5  # panels side by side


def write_plots(output_dir: str, chance: float) -> list[Path]:
    """Draws every picture for which there are results into a comparison's folder.

    `accuracy.png`: accuracy against length. The others are of one length, see [`shown_length`]. `budgets.png`: loss against each
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
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = read_results(output_dir)
    shown = chosen(results, length=shown_length(results))
    seed = min(result["seed"] for result in shown)
    one_seed = [r for cell, method in methods(shown) for r in chosen(shown, cell=cell, method=method, seed=seed)]
    lines = line_styles(results)
    drawings = {
        "accuracy": (1, lambda axes: accuracy(axes[0], results, lines, chance)),
        "budgets": (len(BUDGETS), lambda axes: budgets(axes, one_seed, lines)),
        "gradients": (2, lambda axes: gradients(axes, one_seed, lines)),
        "drift": (1, lambda axes: drift(axes[0], shown, lines)),
        "memory_space": (len(one_seed), lambda axes: memory_space(axes, one_seed, lines)),
    }
    files = []
    for name, (panels, draw) in drawings.items():
        columns, rows = min(panels, MAX_COLUMNS), -(-panels // MAX_COLUMNS)
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(4.5 * columns + 1, 4 * rows), squeeze=False, layout="constrained"
        )
        draw(axes.flat[:panels])
        legend(figure, axes.flat[:panels])
        for axis in axes.flat[panels:]:
            axis.remove()
        files.append(Path(output_dir) / f"{name}.png")
        figure.savefig(files[-1], dpi=110)
        pyplot.close(figure)
    return files


def shown_length(results: list[dict]) -> int:
    """The longest of the lengths with most methods: where others were stopped or left out, it shows them beside one another."""
    return max(
        {r["length"] for r in results}, key=lambda length: (len(methods(chosen(results, length=length))), length)
    )


def line_styles(results: list[dict]) -> dict[tuple[str, str], dict]:
    """By cell and method the label and the colour of its lines, the same in every picture."""
    from matplotlib import colormaps

    pairs = methods(results)
    colours = colormaps["tab10" if len(pairs) <= 10 else "tab20"].colors
    one_cell = len({cell for cell, _ in pairs}) == 1
    return {
        (cell, method): {
            "label": method if one_cell else f"{cell}: {method}",
            "color": colours[index % len(colours)],
        }
        for index, (cell, method) in enumerate(pairs)
    }


def legend(figure, axes) -> None:
    """One for all panels, below them, where it hides nothing."""
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=2 * len(axes), fontsize="x-small"
        )


def accuracy(axis, results, lines, chance) -> None:
    lengths = sorted({result["length"] for result in results})
    for cell, method in methods(results):
        values = [
            [r["accuracy"] for r in chosen(results, cell=cell, method=method, length=length)] for length in lengths
        ]
        known = [(length, found) for length, found in zip(lengths, values, strict=True) if found]
        x = [length for length, _ in known]
        line = lines[cell, method]
        axis.plot(x, [mean(found) for _, found in known], marker="o", **line)
        axis.fill_between(x, [min(f) for _, f in known], [max(f) for _, f in known], color=line["color"], alpha=0.12)
    axis.axhline(chance, color="grey", linestyle=":", label="chance")
    axis.set_xscale("log", base=2)
    axis.set_xticks(lengths, lengths)
    axis.set(xlabel="length", ylabel="accuracy", ylim=(-0.02, 1.02), title="Accuracy on own states")


def budgets(axes, results, lines) -> None:
    for axis, (name, label) in zip(axes, BUDGETS.items(), strict=True):
        for result in results:
            path = result["path"][-len(result["trace"]) - 1 :]  # its last stage, from where the one before ended
            axis.plot([p[name] for p in path], [p["loss"] for p in path], **lines[result["cell"], result["method"]])
        axis.set(xlabel=label, title=f"Loss against {label}", xlim=(0, None))
    axes[0].set_ylabel("loss of the labelled steps, nats")


def gradients(axes, results, lines) -> None:
    for result in results:
        line = lines[result["cell"], result["method"]]
        untrained = {**line, "label": f"{line['label']}, new weights", "linestyle": ":"}
        for name, style in {"gradient_norms": line, "initial_gradient_norms": untrained}.items():
            if name in result:
                norms = [norm for norm in result[name] if norm > 0]
                axes[0].plot(range(len(norms)), norms[::-1], **style)
        if "transition_gradient_norms" in result:
            axes[1].plot(result["transition_gradient_norms"], **line)
    axes[0].set(
        yscale="log", xlabel="steps from the memory to the loss", ylabel="norm of the gradient", title="BPTT: dL/dm_t"
    )
    axes[1].set(yscale="log", xlabel="step of the transition", title="SMT: dL_dyn/dm_t, one step away")


def drift(axis, results, lines) -> None:
    for cell, method in methods(results):
        curves = [r["drift"] for r in chosen(results, cell=cell, method=method) if "drift" in r]
        if curves:
            steps = range(1, len(curves[0]) + 1)
            axis.plot(steps, [mean(values) for values in zip(*curves, strict=True)], **lines[cell, method])
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="step of the rollout",
        ylabel="mean squared error",
        title="Drift from the teacher",
    )


def memory_space(axes, results, lines) -> None:
    for axis, result in zip(axes, results, strict=True):
        space = result["memory_space"]
        x, y = zip(*space["points"], strict=True)
        axis.scatter(x, y, c=space["labels"], cmap="tab20", s=8)
        axis.set_xlabel(f"{100 * space['explained'][0]:.0f} % of the variance", fontsize="small")
        axis.set_ylabel(f"{100 * space['explained'][1]:.0f} %", fontsize="small")
        axis.set_title(lines[result["cell"], result["method"]]["label"], fontsize="small")
