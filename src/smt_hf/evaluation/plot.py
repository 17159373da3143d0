"""A report as a picture."""

import torch

LINES = {
    "teacher": {"label": "teacher", "color": "#000000"},
    "student_warm": {"label": "student, warm start", "color": "#E69F00"},
    "student_cold": {"label": "student, cold start", "color": "#0072B2"},
}
MAX_POINTS = 32  # of a curve; neighbours are averaged


def plot_report(report: dict, path: str) -> None:
    """Draws the loss by position and, with a teacher, the drift into an image file.

    Args:
        report: from [`evaluate_models`].
        path: the file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = 2 if "drift" in report else 1
    figure, axes = pyplot.subplots(1, panels, figsize=(4.5 * panels, 3.4), squeeze=False, layout="constrained")
    loss_axis, *drift_axes = axes[0]
    for name, style in LINES.items():
        if name in report:
            loss_axis.plot(*smoothed(report[name]["by_position"]), **style)
    loss_axis.set(ylabel="nats per token", title="Loss by position")
    for axis in drift_axes:
        steps = range(1, len(report["drift"]) + 1)
        axis.plot(steps, report["drift"], color=LINES["student_cold"]["color"])
        axis.set(ylabel="mean squared error", title="Drift from the teacher")
    for axis in axes[0]:
        axis.axvline(report["context_length"], color="grey", linestyle=":", label="the teacher's training context")
        axis.set(xlabel="step of the rollout")
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*loss_axis.get_legend_handles_labels(), loc="outside lower center", ncols=2 * panels, frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def smoothed(values: list[float]) -> tuple[range, torch.Tensor]:
    """A curve as moving averages over its thirty-secondth part, and the positions of their middles."""
    width = max(1, len(values) // MAX_POINTS)
    means = torch.tensor(values).unfold(0, width, 1).mean(dim=-1)
    return range(width // 2, width // 2 + len(means)), means
