"""Measuring a student of pixels: its loss on images, pixel by pixel and row by row."""

import math

import torch

from ..data.images import ImageRows
from ..images import check_processor
from ..models.image_processing_smt import SmtImageProcessor
from ..rollout import next_token_losses, rollout, squared_distance, teacher_rollout


@torch.no_grad()
def evaluate_images(
    student,
    processor: SmtImageProcessor,
    rows: ImageRows,
    teacher=None,
    num_images: int = 256,
    batch_size: int = 32,
) -> dict:
    """Rolls the student over images, from its initial memory and on its own states, and compares it with the teacher.

    Args:
        student: an `SmtRnnForCausalLM`.
        processor: the one that it was trained with.
        rows: validation images, encoded by the processor.
        teacher: the `SmtTeacherModel`, or `None`.
        num_images: images, spread evenly over the data set; all when there are no more.
        batch_size: images at a time.

    Returns:
        `student` and, with a teacher, `teacher` (its own readout), each with `nats_per_pixel`, `standard_error` (over the
        images), `bits_per_pixel`, `nats_per_image` and the losses `by_row`, `(H,)`; and the curve `drift`, `(T,)`. The class
        token is given, not scored.

    Raises:
        InputError: if the student has fewer ids than the processor.
    """
    check_processor(student, processor)
    num_images = min(num_images, len(rows))
    images = torch.stack([rows[index * len(rows) // num_images]["input_ids"] for index in range(num_images)])
    losses, distances = {}, []
    for input_ids in images.to(student.device).split(batch_size):
        before, after = rollout(student, input_ids)
        batch = {"student": next_token_losses(student.readout, before, input_ids)}
        if teacher is not None:
            teacher_before, teacher_after = teacher_rollout(teacher, input_ids)
            batch["teacher"] = next_token_losses(teacher.readout, teacher_before, input_ids)
            distances.append(squared_distance(after, teacher_after).double().cpu())
        for name, values in batch.items():
            losses.setdefault(name, []).append(values[:, -processor.num_pixels :].double().cpu())
    report = {"num_images": num_images, "size": dict(processor.size), "num_levels": processor.num_levels}
    for name, batches in losses.items():
        report[name] = _summary(torch.cat(batches), processor)
    if distances:
        report["drift"] = [round(value, 6) for value in torch.cat(distances).mean(dim=0).tolist()]
    return report


def _summary(losses: torch.Tensor, processor: SmtImageProcessor) -> dict:
    """The losses `(N, H x W)` of images in numbers."""
    per_image = losses.mean(dim=1)
    loss, error = per_image.mean().item(), None
    if len(losses) > 1:
        error = round((per_image.std() / math.sqrt(len(losses))).item(), 4)
    by_row = losses.unflatten(1, (processor.size["height"], -1)).mean(dim=(0, 2))
    return {
        "nats_per_pixel": round(loss, 4),
        "standard_error": error,
        "bits_per_pixel": round(loss / math.log(2), 4),
        "nats_per_image": round(loss * processor.num_pixels, 2),
        "by_row": [round(value, 4) for value in by_row.tolist()],
    }


def format_image_table(report: dict) -> str:
    """The report as a table: the loss over all pixels, and in four bands from top to bottom."""
    height = report["size"]["height"]
    bands = [(height * band // 4, height * (band + 1) // 4) for band in range(4)]
    heads = "".join(f"{f'rows {a + 1}-{b}':>12}" if b > a else " " * 12 for a, b in bands)
    lines = [f"{'':10}{'nats/pixel':>12}{'+-':>8}{'bits/pixel':>12}{'nats/image':>12}{heads}"]
    for name in ("teacher", "student"):
        if name not in report:
            continue
        row = report[name]
        error = "-" if row["standard_error"] is None else f"{row['standard_error']:.4f}"
        means = "".join(f"{sum(row['by_row'][a:b]) / (b - a):12.3f}" if b > a else " " * 12 for a, b in bands)
        lines.append(
            f"{name:10}{row['nats_per_pixel']:12.4f}{error:>8}{row['bits_per_pixel']:12.4f}{row['nats_per_image']:12.1f}{means}"
        )
    if "drift" in report:
        curve = report["drift"]
        points = [step for step in (1, 4, 16, 64, 256, 784) if step <= len(curve)]
        lines.append("drift after " + ", ".join(f"{step} steps {curve[step - 1]:.4f}" for step in points))
    if "quality" in report:
        lines += ["", format_quality(report["quality"])]
    return "\n".join(lines)


def format_quality(quality: dict) -> str:
    """Sample quality as a table, real images beside the student's."""
    lines = [f"{'':10}{'label':>12}{'precision':>12}{'recall':>12}{'Frechet':>12}"]
    for name in ("real", "samples"):
        row = quality[name]
        numbers = "".join(
            f"{row[key]:12.3f}" for key in ("label_agreement", "precision", "recall", "frechet_distance")
        )
        lines.append(f"{name:10}{numbers}")
    lines.append(
        f"{quality['num_images']} images each, seen by a classifier that is right on {quality['classifier_accuracy']:.1%} of "
        "real validation images"
    )
    return "\n".join(lines)


def plot_image_report(report: dict, path: str) -> None:
    """Draws the loss by row and the drift curve into an image file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = 2 if "drift" in report else 1
    figure, axes = pyplot.subplots(1, panels, figsize=(6 * panels, 4), squeeze=False, layout="constrained")
    for name in ("teacher", "student"):
        if name in report:
            by_row = report[name]["by_row"]
            axes[0][0].plot(range(1, len(by_row) + 1), by_row, label=name)
    axes[0][0].set(xlabel="row of the image", ylabel="nats per pixel", title="Loss by row")
    axes[0][0].legend()
    if panels == 2:
        axes[0][1].plot(range(1, len(report["drift"]) + 1), report["drift"])
        axes[0][1].set(xlabel="token", ylabel="mean squared error", title="Drift from the teacher")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
