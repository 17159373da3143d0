"""Measuring a student trained on pixels: its loss on images, pixel by pixel and row by row."""

import torch

from ..data.images import ImageRows, evenly_spaced_images
from ..images import check_processor
from ..losses import squared_distance
from ..models.image_processing_smt import SmtImageProcessor
from ..rollout import next_token_losses, rollout, teacher_rollout
from .scores import drift_curve, loss_scores, rounded
from .units import bits


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
        processor: the image processor that it was trained with.
        rows: validation images, encoded by the processor.
        teacher: the `SmtTeacherModel`, or `None`.
        num_images: number of images, spread evenly over the dataset; all if there are no more.
        batch_size: images per batch.

    Returns:
        `student` and, with a teacher, `teacher` (its own readout), each with `nats_per_pixel`, `standard_error` (over the
        images), `bits_per_pixel`, `nats_per_image` and the losses `by_row`, `(H,)`; and the curve `drift`, `(T,)`. The class
        token is given, not scored.

    Raises:
        InputError: if the student's vocabulary is not that of the processor.
    """
    check_processor(student, processor)
    images = evenly_spaced_images(rows, num_images)
    losses, distances = {}, []
    for input_ids in images.to(student.device).split(batch_size):
        before, after = rollout(student, input_ids)
        batch = {"student": next_token_losses(student.readout, before, input_ids)}
        if teacher is not None:
            teacher_before, teacher_after = teacher_rollout(teacher, input_ids)
            batch["teacher"] = next_token_losses(teacher.readout, teacher_before, input_ids)
            distances.append(squared_distance(after, teacher_after).cpu())
        for name, values in batch.items():
            losses.setdefault(name, []).append(values[:, -processor.num_pixels :].cpu())
    report = {"num_images": len(images), "size": dict(processor.size), "num_levels": processor.num_levels}
    for name, batches in losses.items():
        report[name] = _summary(torch.cat(batches), images[:, -processor.num_pixels :], processor)
    if distances:
        report["drift"] = drift_curve(distances)
    return report


def _summary(losses: torch.Tensor, pixels: torch.Tensor, processor: SmtImageProcessor) -> dict:
    """Summarises the losses `(N, H x W)` of the pixels of images."""
    scores = loss_scores(losses, pixels)
    loss = scores["rollout_loss"]
    by_row = torch.tensor(scores["loss_by_position"]).unflatten(0, (processor.size["height"], -1)).mean(dim=1)
    return {
        "nats_per_pixel": round(loss, 4),
        "standard_error": scores["standard_error"],
        "bits_per_pixel": round(bits(loss), 4),
        "nats_per_image": round(loss * processor.num_pixels, 2),
        "by_row": rounded(by_row.tolist()),
    }
