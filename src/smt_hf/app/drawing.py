"""One visitor's picture and memory: reads the given pixels and draws the others."""

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from ..errors import InputError, one_line
from ..inference import Engine, Request, SamplingParams
from ..models import SmtImageProcessor
from .writing import VIEWS_PER_SECOND

FEWEST_VIEWS = 16  # of a picture, however fast it is drawn
MOST_PIXELS = 25_000_000  # of an image that a visitor uploads
NEVER = -1e30  # added to the logits of ids that are not pixels


@dataclass(frozen=True)
class Drawing:
    """The state of one visitor. It is immutable; reading and drawing create new ones.

    Args:
        memory: `(1, K, D)`, after all tokens in `ids`.
        start: what the student reads before it draws: the class token, if there is one, then the given pixels.
        given: the given pixels, which end `start`; empty if the student draws the whole picture.
        ids: the tokens read so far, including the class token and the student's own pixels.
        seed: the seed of the draws so far; `None` before the first.
        random_state: the random state after the last draw.
        tokens_per_second: the speed of the last call, without the time that the picture was held back.
    """

    memory: torch.Tensor
    start: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    seed: int | None = None
    random_state: torch.Tensor | None = None
    tokens_per_second: float | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that the memory has read."""
        return len(self.ids)

    @property
    def num_class_tokens(self) -> int:
        """1 for a class-conditional student that has been told what to draw, else 0."""
        return len(self.start) - len(self.given)

    @property
    def num_read(self) -> int:
        """Pixels that the memory has read."""
        return max(0, len(self.ids) - self.num_class_tokens)

    @property
    def pixels(self) -> tuple[int, ...]:
        """The visible pixels: the given ones, read or not, and the drawn ones."""
        return (*self.start, *self.ids[len(self.start) :])[self.num_class_tokens :]


@torch.no_grad()
def blank(student) -> Drawing:
    """An empty picture and the student's initial memory."""
    return Drawing(student.initial_memory[None].clone())


def begin(
    student, processor: SmtImageProcessor, label: int | str | None = None, given: tuple[int, ...] = ()
) -> Drawing:
    """A picture of which nothing has been read or drawn, and the student's initial memory.

    Args:
        student: a student trained on images.
        processor: the image processor that it was trained with.
        label: what to draw, for a class-conditional student.
        given: ids of the first pixels.

    Raises:
        InputError: for a missing or unknown label.
    """
    try:
        class_ids = processor.class_ids(label)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    return replace(blank(student), start=(*class_ids.tolist(), *given), given=tuple(given))


def start_engine(student) -> Engine:
    """Starts the engine that draws for all visitors together. Only the size of a picture ends an answer."""
    return Engine.of(student, None, prefixes=None, end_ids=()).start()


def go_on(
    engine: Engine,
    processor: SmtImageProcessor,
    drawing: Drawing,
    params: SamplingParams,
    seconds: float = 0.0,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Drawing]:
    """Reads the given pixels, then draws the rest of the picture from the memory alone.

    It asks for a few tokens at a time: a stopped picture stays where it is, and can be continued from there.

    Args:
        engine: a started engine, which may draw for others at the same time.
        params: temperature, top-p and seed; the number of tokens is that of the picture.
        seconds: the minimum time for a whole picture, so that one can watch.
        is_stopped: called before every view.

    Yields:
        The drawing, every few pixels.

    Raises:
        RuntimeError: if the engine fails.
    """
    length, first = processor.sequence_length, drawing.num_tokens
    step = math.ceil(length / max(FEWEST_VIEWS, seconds * VIEWS_PER_SECOND))
    others = range(processor.num_levels, engine.backend.vocab_size)  # ids that are not pixels
    params = replace(params, logit_bias=dict.fromkeys(others, NEVER))
    if drawing.seed != params.seed:
        drawing = replace(drawing, seed=params.seed, random_state=None)
    started, working = time.perf_counter(), 0.0
    while drawing.num_tokens < length and not is_stopped():
        count = min(step, length - drawing.num_tokens)
        prompt = drawing.start[drawing.num_tokens :][:count]
        request = Request(
            prompt,
            replace(params, max_new_tokens=count - len(prompt)),
            memory=drawing.memory[0],
            keep_memory=True,
            random_state=drawing.random_state,
        )
        asked = time.perf_counter()
        (answer,) = engine.submit(request).wait()
        working += time.perf_counter() - asked
        if answer.finish_reason != "length":
            raise RuntimeError(answer.error or "the app is shutting down")
        drawing = replace(
            drawing,
            memory=answer.memory[None],
            ids=(*drawing.ids, *prompt, *answer.ids),
            random_state=answer.random_state,
            tokens_per_second=(drawing.num_tokens + count - first) / working,
        )
        due = started + seconds * (drawing.num_tokens - first) / length
        time.sleep(max(0.0, due - time.perf_counter()))
        yield drawing


def num_half(processor: SmtImageProcessor) -> int:
    """The number of pixels in the upper half of an image, which visitors may give."""
    return processor.size["height"] // 2 * processor.size["width"]


def read_upload(processor: SmtImageProcessor, data: bytes | None) -> tuple[int, ...]:
    """The pixels in the upper half of an image file, as ids.

    Raises:
        InputError: if there is no file, or it is not an image that can be read.
    """
    if data is None:
        raise InputError("no file was chosen: choose an image, such as a PNG")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"the image has {image.width} x {image.height} pixels: choose one of at most {MOST_PIXELS:,}"
                )
            image.load()
            return tuple(processor.pixel_ids(image)[: num_half(processor)].tolist())
    except InputError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise InputError(f"this file is not a readable image ({_reason(error)}): choose a PNG or a JPEG") from error


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without the object's address that Pillow includes."""
    return "of no known format" if isinstance(error, Image.UnidentifiedImageError) else one_line(error)


@torch.no_grad()
def likeliest_paper(student, processor: SmtImageProcessor) -> int:
    """The most likely grey value, 0 to 255, of the first pixel: the background of the student's images."""
    memory = student.initial_memory[None]
    if processor.num_classes:
        classes = torch.arange(processor.num_levels, processor.vocab_size, device=memory.device)
        memory = student.update(memory.expand(len(classes), -1, -1), classes)
    level = int(student.readout(memory)[:, : processor.num_levels].softmax(dim=-1).sum(dim=0).argmax())
    return grey_values(processor, (level,))[0]


def grey_values(processor: SmtImageProcessor, pixels: tuple[int, ...]) -> bytes:
    """The grey values, 0 to 255, of the first pixels of an image."""
    whole = np.zeros(processor.num_pixels, dtype=np.int64)
    whole[: len(pixels)] = pixels
    return processor.to_images(whole)[0].tobytes()[: len(pixels)]


def pixel_ids(processor: SmtImageProcessor, grey: bytes) -> tuple[int, ...]:
    """The ids of grey values, which are the first pixels of an image."""
    height, width = processor.size["height"], processor.size["width"]
    whole = np.frombuffer(grey.ljust(processor.num_pixels, b"\0"), dtype=np.uint8).reshape(height, width)
    return tuple(processor.pixel_ids(whole)[: len(grey)].tolist())
