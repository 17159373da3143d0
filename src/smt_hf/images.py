"""Drawing images with a student trained on pixels."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import LogitsProcessorList

from .errors import InputError, one_line
from .guidance import ClassGuidance
from .models import SmtImageProcessor, SmtMemory, SmtRnnCache, SmtRnnForCausalLM
from .models.image_processing_smt import each_label
from .utils.bounds import check_bounds

ROUNDED = (1, 8, 16, 32, 64, 128)  # a vocabulary may be rounded up to a multiple of these, for speed


@torch.no_grad()
def generate_images(
    student: SmtRnnForCausalLM,
    processor: SmtImageProcessor,
    num_images: int = 1,
    labels: Iterable[int | str] | int | str | None = None,
    complete=None,
    complete_rows: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int | None = None,
    batch_size: int = 256,
    guidance: float = 1.0,
) -> list:
    """Draws images with a student, pixel by pixel, from its initial memory.

    Args:
        student: trained on images.
        processor: the image processor that the student was trained with, saved beside it.
        num_images: number of images to draw.
        labels: for a class-conditional student, the classes to draw: one class for all images, or a list, an array or a tensor
            with one class per image; all classes in turn if `None`.
        complete: an image whose upper rows are given; the student draws the others. All images complete the same one.
        complete_rows: number of rows that are given; half the height by default.
        temperature: sampling temperature; 0 takes the likeliest level of every pixel.
        top_p: sample from the likeliest levels that together have this share of the probability.
        seed: makes the images reproducible; torch's own random state if `None`.
        batch_size: images to draw at a time.
        guidance: how much more than the student's own samples the images should show their class, see [`ClassGuidance`]; 1 draws
            the student's own. Other values take as many times the steps and the memory as there are classes.

    Returns:
        Greyscale PIL images of the processor's size.

    Raises:
        InputError: for a student with another vocabulary, an unknown label, a number out of range, guidance of a student without
            classes, or a `complete` that is not an image.
    """
    check_processor(student, processor)
    check_bounds({"temperature": temperature, "top_p": top_p, "batch_size": batch_size, "guidance": guidance})
    if guidance != 1 and not processor.num_classes:
        raise InputError(
            f"guidance={guidance:g} steers images towards a class, but the student has no classes: leave it out"
        )
    prompts = _prompts(processor, num_images, labels, complete, complete_rows)
    sampling = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    devices = [student.device] if student.device.type == "cuda" else []
    pixels = []
    with torch.random.fork_rng(devices, enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        for rows in torch.from_numpy(prompts).to(student.device).split(batch_size):
            pixels.append(draw(student, processor, rows, guidance, **sampling).cpu())
    return processor.to_images(torch.cat(pixels))


def draw(
    student, processor: SmtImageProcessor, prompts: torch.Tensor, guidance: float = 1.0, **sampling
) -> torch.Tensor:
    """Draws the pixels that follow prompts.

    Args:
        student: trained on images.
        processor: the image processor that the student was trained with.
        prompts: `(B, P)` ids: the class token if there is one, then the given pixels; P may be 0.
        guidance: strength of the [`ClassGuidance`]; 1 is none.
        sampling: options of `generate()`.

    Returns:
        The ids of all pixels, including the given ones, `(B, H x W)`.
    """
    num_new = processor.sequence_length - prompts.shape[1]
    if num_new > 0:
        start = {"inputs": prompts, "attention_mask": torch.ones_like(prompts)}
        if prompts.shape[1] == 0:
            cache = SmtRnnCache(student.model.start_memory(len(prompts)))
            start = {"memory": SmtMemory.from_cache(student, cache)}
        if guidance != 1:
            sampling["logits_processor"] = LogitsProcessorList([ClassGuidance(student, processor, guidance)])
        others = range(processor.num_levels, student.config.vocab_size)  # ids that are not pixels
        written = student.generate(
            **start, max_new_tokens=num_new, suppress_tokens=list(others) or None, eos_token_id=None, **sampling
        )
        prompts = torch.cat([prompts, written[:, -num_new:]], dim=1)
    return prompts[:, -processor.num_pixels :]


def check_processor(student, processor: SmtImageProcessor) -> None:
    """Checks that a student has the vocabulary of a processor, possibly rounded up.

    Raises:
        InputError: naming both sizes.
    """
    if student.config.vocab_size not in {-(-processor.vocab_size // size) * size for size in ROUNDED}:
        raise InputError(
            f"the image processor has {processor.vocab_size} ids but the student's vocab_size is {student.config.vocab_size}: "
            "use the processor that the student was trained with"
        )


def _prompts(processor: SmtImageProcessor, num_images: int, labels, complete, complete_rows: int | None) -> np.ndarray:
    """The ids that the student reads before it draws, `(num_images, P)`."""
    if num_images < 1:
        raise InputError(f"num_images is {num_images}: pass 1 or more")
    if labels is None and processor.num_classes:
        labels = [number % processor.num_classes for number in range(num_images)]
    height, width = processor.size["height"], processor.size["width"]
    if complete is None and complete_rows is not None:
        raise InputError(f"complete_rows={complete_rows} needs an image to complete: pass complete, or leave it out")
    rows = height // 2 if complete_rows is None else complete_rows
    if not 0 <= rows <= height:
        raise InputError(f"complete_rows={rows} must be from 0 to {height}, the height of the image")
    try:
        given = np.zeros(0, dtype=np.int64) if complete is None else processor.pixel_ids(complete)[: rows * width]
        labels = each_label(labels, num_images)
        return np.stack([np.concatenate([processor.class_ids(label), given]) for label in labels])
    except ValueError as error:
        raise InputError(one_line(error)) from error


def image_grid(images: Sequence, columns: int | None = None, scale: int | None = None, gap: int = 2):
    """Arranges images in a grid.

    Args:
        images: PIL images of one size.
        columns: images per row; about as many as there are rows if `None`.
        scale: whole factor by which each image is enlarged; if `None`, one that makes its longer side about 56 pixels.
        gap: pixels between images.

    Returns:
        A greyscale PIL image.

    Raises:
        InputError: if there are no images, or if they differ in size.
    """
    from PIL import Image

    if not images or len({image.size for image in images}) != 1:
        raise InputError("a grid needs images of one size: pass at least one, and none of another size")
    width, height = images[0].size
    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = scale or max(1, round(56 / max(width, height)))
    step_x, step_y = width * scale + gap, height * scale + gap
    size = (min(columns, len(images)) * step_x + gap, math.ceil(len(images) / columns) * step_y + gap)
    grid = Image.new("L", size, 96)
    for number, image in enumerate(images):
        place = (gap + number % columns * step_x, gap + number // columns * step_y)
        grid.paste(image.resize((width * scale, height * scale), Image.Resampling.NEAREST), place)
    return grid
