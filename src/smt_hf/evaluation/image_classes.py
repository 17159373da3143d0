"""How well a class-conditional student remembers the class that it was given at the beginning of an image."""

import math

import torch

from ..data.images import ImageRows, evenly_spaced_images
from ..errors import InputError
from ..images import check_processor
from ..models.image_processing_smt import SmtImageProcessor
from ..rollout import next_token_losses, rollout


@torch.no_grad()
def evaluate_classes(
    student, processor: SmtImageProcessor, rows: ImageRows, num_images: int = 100, batch_size: int = 32
) -> dict:
    """Reads real images as each of the classes in turn, and finds which class makes them likeliest.

    A mean over hundreds of pixels hardly shows whether a memory of fixed size has held on to the one token before them; this
    does. By Bayes' rule, if all classes are equally frequent, `p(class | image)` is proportional to `p(image | class)`.

    Args:
        student: an `SmtRnnForCausalLM`.
        processor: the image processor that it was trained with; it has classes.
        rows: validation images, encoded by the processor.
        num_images: number of images, spread evenly over the dataset; all if there are no more.
        batch_size: images per batch.

    Returns:
        `num_images`; `class_accuracy`, the share of the images that are likeliest as their own class; `class_information`, the
        mean of `ln p(class | image) + ln C` in nats per image: 0 where the class was forgotten, `ln C` (`class_entropy`) where
        it is certain, and below 0 where the student is sure of another one.

    Raises:
        InputError: for a student without classes, or with another vocabulary.
    """
    if processor.num_classes == 0:
        raise InputError("the student has no classes to recognize: train it with labels")
    check_processor(student, processor)
    images = evenly_spaced_images(rows, num_images)
    labels = images[:, 0] - processor.num_levels
    scores = torch.zeros(len(images), processor.num_classes, dtype=torch.float64)
    for label in range(processor.num_classes):
        told = images.clone()
        told[:, 0] = processor.num_levels + label
        for part in torch.arange(len(images)).split(batch_size):
            input_ids = told[part].to(student.device)
            before, _ = rollout(student, input_ids)
            losses = next_token_losses(student.readout, before, input_ids)[:, 1:]
            scores[part, label] = -losses.double().sum(dim=1).cpu()
    own = scores.log_softmax(dim=1).gather(1, labels[:, None])
    entropy = math.log(processor.num_classes)
    return {
        "num_images": len(images),
        "class_accuracy": round((scores.argmax(dim=1) == labels).double().mean().item(), 4),
        "class_information": round(own.mean().item() + entropy, 4),
        "class_entropy": round(entropy, 4),
    }
