"""Conversion of images to sequences of tokens, and back."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs
from transformers.utils import is_vision_available

if is_vision_available():
    from PIL import Image

_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers, in their order


class SmtImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    num_levels: int
    num_classes: int
    class_names: list[str] | None


class SmtImageProcessor(BaseImageProcessor):
    r"""Converts images to token ids for a student of pixels, and token ids to images.

    An image is converted to grey, resized and read in raster order, as in ImageGPT: row by row from the top, each pixel as one
    of `num_levels` ids, 0 for black. With `num_classes`, a class token comes first, so that a student can be told what to draw;
    its ids follow those of the pixels.

    Args:
        size: `{"height": H, "width": W}`, a pair `(H, W)` or one number for both. Images of another size are resized, and
            stretched if their aspect ratio differs.
        num_levels: number of ids per pixel, from 2 (black and white) to 256 (all values of 8 bits).
        num_classes: number of classes of a class-conditional student; 0 for none.
        class_names: names of the classes, in the order of their labels.
        resample: Pillow's number of the resizing filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.

    Raises:
        ValueError: for a size or a number that cannot work.
    """

    model_input_names = ["input_ids"]
    valid_kwargs = SmtImageProcessorKwargs
    pad_token_id = bos_token_id = eos_token_id = None  # all images have the same length

    def __init__(
        self,
        size: dict[str, int] | Sequence[int] | int = 28,
        num_levels: int = 8,
        num_classes: int = 0,
        class_names: Sequence[str] | None = None,
        resample: int = 2,
        **kwargs,
    ):
        if not is_vision_available():
            raise ImportError("images need Pillow: pip install 'smt-hf[pixels]'")
        super().__init__(**kwargs)
        self.size = _size(size)
        if not isinstance(num_levels, int) or not 2 <= num_levels <= 256:
            raise ValueError(f"num_levels={num_levels!r} must be a whole number from 2 to 256")
        if not isinstance(num_classes, int) or num_classes < 0:
            raise ValueError(f"num_classes={num_classes!r} must be a whole number, 0 for a student without classes")
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"class_names has {len(class_names)} names for num_classes={num_classes}: pass as many")
        if resample not in range(len(_RESAMPLING)):
            choices = ", ".join(f"{number} {name}" for number, name in enumerate(_RESAMPLING))
            raise ValueError(f"resample={resample!r} is unknown: choose {choices}")
        self.num_levels = num_levels
        self.num_classes = num_classes
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.resample = int(resample)

    def __len__(self) -> int:
        """[`vocab_size`], like the length of a tokenizer."""
        return self.vocab_size

    @property
    def num_pixels(self) -> int:
        """Number of pixels of an image, H x W."""
        return self.size["height"] * self.size["width"]

    @property
    def sequence_length(self) -> int:
        """Number of tokens T of an image: its pixels and, if there are classes, the class token before them."""
        return self.num_pixels + (self.num_classes > 0)

    @property
    def vocab_size(self) -> int:
        """Number of token ids: those of the levels, then those of the classes."""
        return self.num_levels + self.num_classes

    def preprocess(
        self,
        images,
        labels: Iterable[int | str] | int | str | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Converts images to token ids.

        Args:
            images: an image or a list of images: PIL images, or uint8 arrays or tensors of shape `(H, W)`, `(H, W, C)` or
                `(C, H, W)` with 1, 3 or 4 channels, unless both ends could be the channels. Transparency becomes white.
            labels: the class of every image, by number or name, in a list, an array or a tensor, or one class for all images;
                required unless `num_classes` is 0.
            return_tensors: `"pt"` or `"np"` for one array `(B, T)` instead of a list.

        Returns:
            `input_ids`, `(B, T)`.

        Raises:
            ValueError: for something that is not an image, or a missing or unknown label.
        """
        images = list(images) if isinstance(images, list | tuple) else [images]
        rows = [
            np.concatenate([self.class_ids(label), self.pixel_ids(image)])
            for image, label in zip(images, each_label(labels, len(images)), strict=True)
        ]
        if return_tensors is not None:
            rows = np.stack(rows) if rows else np.zeros((0, self.sequence_length), dtype=np.int64)
        return BatchFeature({"input_ids": rows}, tensor_type=return_tensors)

    def pixel_ids(self, image) -> np.ndarray:
        """The ids `(H x W,)` of an image; raises as [`preprocess`] does."""
        image = grey_image(image)
        height, width = self.size["height"], self.size["width"]
        if image.size != (width, height):
            image = image.resize((width, height), self.resample)
        return np.asarray(image, dtype=np.int64).reshape(-1) * self.num_levels // 256

    def class_ids(self, label: int | str | None = None) -> np.ndarray:
        """The ids before the pixels: the class token `(1,)`, or nothing `(0,)` for a student without classes."""
        if self.num_classes == 0:
            if label is not None:
                raise ValueError(f"label {label!r} was given, but there are no classes: leave it out")
            return np.zeros(0, dtype=np.int64)
        return np.array([self.num_levels + self.label_number(label)], dtype=np.int64)

    def label_number(self, label: int | str) -> int:
        """The number of a class, given by number or name.

        Raises:
            ValueError: for an unknown class.
        """
        names = self.class_names or []
        if isinstance(label, str) and label in names:
            return names.index(label)
        number = _plain(label)
        if isinstance(label, str) and label.isdecimal():
            number = int(label)
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < self.num_classes:
            return number
        known = f", or a name such as {', '.join(names[:3])}" if names else ""
        raise ValueError(
            f"label {_plain(label)!r} is not a class: pass a number from 0 to {self.num_classes - 1}{known}"
        )

    def split_ids(self, input_ids) -> tuple[np.ndarray, np.ndarray | None]:
        """Splits token ids into pixels `(B, H x W)` and labels `(B,)`, which are `None` if there are no class tokens.

        Args:
            input_ids: `(B, T)`, or `(B, H x W)` without the class tokens; or a single row.

        Raises:
            ValueError: for another length, or for ids that are not pixels or classes in their places.
        """
        ids = np.asarray(input_ids.cpu() if isinstance(input_ids, torch.Tensor) else input_ids)
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or ids.shape[1] not in (self.num_pixels, self.sequence_length):
            raise ValueError(
                f"input_ids of shape {ids.shape} are not images of {self.size['height']} x {self.size['width']} pixels: pass "
                f"{self.sequence_length} ids per row"
            )
        labels = None
        if ids.shape[1] > self.num_pixels:
            labels, ids = ids[:, 0] - self.num_levels, ids[:, 1:]
            if ((labels < 0) | (labels >= self.num_classes)).any():
                raise ValueError(
                    f"input_ids: a row of {self.sequence_length} ids does not begin with a class token: pass one"
                )
        if ids.size and not 0 <= ids.min() <= ids.max() < self.num_levels:
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise ValueError(f"id {wrong} is not a pixel: pixels are below num_levels={self.num_levels}")
        return ids, labels

    def to_images(self, input_ids) -> list:
        """Converts token ids to grey PIL images, black at id 0 and white at the last level.

        [`preprocess`] converts them back to the same ids. Arguments and errors are those of [`split_ids`].
        """
        pixels, _ = self.split_ids(input_ids)
        values = -(
            -pixels.astype(np.int64) * 255 // (self.num_levels - 1)
        )  # rounded up, so that they stay in their level
        shape = (-1, self.size["height"], self.size["width"])
        return [Image.fromarray(image) for image in values.astype(np.uint8).reshape(shape)]


def _size(size) -> dict[str, int]:
    """A size as `{"height": H, "width": W}`."""
    given = size
    if isinstance(size, int):
        size = {"height": size, "width": size}
    elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        size = dict(zip(("height", "width"), size, strict=True))
    try:
        size = {name: size[name] for name in ("height", "width")}
    except (KeyError, TypeError, IndexError):
        size = {}
    if not size or not all(isinstance(value, int) and 1 <= value <= 1024 for value in size.values()):
        raise ValueError(f"size={given!r} is not a size: pass a height and a width in pixels, from 1 to 1024")
    return size


def _plain(value):
    """A number, an array or a tensor as a plain Python value."""
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray | np.generic) else value


def each_label(labels, num_images: int) -> list:
    """One label for every image, from labels in any form that [`SmtImageProcessor`] takes.

    Raises:
        ValueError: if there are not as many labels as images.
    """
    labels = _plain(labels)
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        return [labels] * num_images
    labels = list(labels)
    if len(labels) != num_images:
        raise ValueError(f"{len(labels)} labels were given for {num_images} images: pass one for each, or one for all")
    return labels


def grey_image(image):
    """Converts any image that [`SmtImageProcessor`] takes to a grey PIL image.

    Raises:
        ValueError: naming what was given instead of an image.
    """
    if not isinstance(image, Image.Image):
        image = _from_array(image)
    if 0 in image.size:
        raise ValueError(f"the image has {image.size[0]} x {image.size[1]} pixels: pass one that is not empty")
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(
            f"the image has mode {image.mode!r}, more than 8 bits per channel: scale its values to 0..255, then convert it to "
            "mode 'L', which alone would clip them"
        )
    if image.mode in ("La", "RGBa"):  # colours premultiplied by alpha
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def _from_array(image):
    if not isinstance(image, np.ndarray | torch.Tensor):
        raise ValueError(f"{type(image).__name__} is not an image: pass a PIL image, or an array of uint8 numbers")
    if image.dtype not in (np.uint8, torch.uint8):
        dtype = str(image.dtype).removeprefix("torch.")
        raise ValueError(f"the image is an array of {dtype}: pass uint8, from 0 for black to 255 for white")
    array = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    if array.ndim == 3 and array.shape[0] in (1, 3, 4):
        if array.shape[-1] in (1, 3, 4):
            raise ValueError(
                f"the image is an array of shape {array.shape}, whose channels may come first or last: pass (H, W), or a PIL "
                "image"
            )
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))) or 0 in array.shape:
        raise ValueError(f"the image is an array of shape {array.shape}: pass (H, W), (H, W, C) or (C, H, W)")
    return Image.fromarray(np.ascontiguousarray(array))


__all__ = ["SmtImageProcessor"]
