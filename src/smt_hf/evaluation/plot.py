"""Plots of reports."""

import torch

from ..utils.figures import START_LINES, draw

WINDOWS = 32  # of the moving average, in the length of a curve


def plot_report(report: dict, path: str) -> None:
    """Draws the loss by position and, with a teacher, the drift into an image file.

    Args:
        report: from [`evaluate_models`].
        path: the file.

    Raises:
        ImportError: if matplotlib is not installed.
    """

    def panels(axes) -> None:
        for name, style in START_LINES.items():
            if name in report:
                axes[0].plot(*smoothed(report[name]["by_position"]), **style)
        axes[0].set(ylabel="nats per token", title="Loss by position")
        drift(axes[1:], report)
        for axis in axes:
            axis.axvline(report["context_length"], color="grey", linestyle=":", label="the teacher's training context")
            axis.set_xlabel("step of the rollout")

    draw(path, grid(report), panels)


def plot_image_report(report: dict, path: str) -> None:
    """Draws the loss by row of the image and, with a teacher, the drift into an image file.

    Args:
        report: from [`evaluate_images`].
        path: the file.

    Raises:
        ImportError: if matplotlib is not installed.
    """

    def panels(axes) -> None:
        for name, start in (("teacher", "teacher"), ("student", "student_cold")):
            if name in report:
                by_row = report[name]["by_row"]
                axes[0].plot(range(1, len(by_row) + 1), by_row, **START_LINES[start] | {"label": name})
        axes[0].set(xlabel="row of the image", ylabel="nats per pixel", title="Loss by row")
        drift(axes[1:], report)
        for axis in axes[1:]:
            axis.set_xlabel("pixel")

    draw(path, grid(report), panels)


def grid(report: dict) -> tuple[int, int, float]:
    """Panels, columns and inches per row."""
    panels = 2 if "drift" in report else 1
    return panels, panels, 3.2


def drift(axes, report: dict) -> None:
    """Draws the drift into `axes`, which holds one or none."""
    for axis in axes:
        curve = report["drift"]
        axis.plot(range(1, len(curve) + 1), curve, color=START_LINES["student_cold"]["color"])
        axis.set(ylabel="mean squared error", title="Drift from the teacher")


def smoothed(values: list[float]) -> tuple[range, torch.Tensor]:
    """The centres and values of moving averages of a curve, each over a thirty-second of its length."""
    width = max(1, len(values) // WINDOWS)
    means = torch.tensor(values).unfold(0, width, 1).mean(dim=-1)
    return range(width // 2, width // 2 + len(means)), means
