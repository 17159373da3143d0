"""Images to token ids and back."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from smt_hf import SmtImageProcessor, SmtRnnConfig, SmtRnnForCausalLM


@pytest.mark.parametrize("num_levels", [*range(2, 20), 63, 64, 100, 127, 128, 200, 254, 255, 256])
def test_ids_survive_the_way_through_an_image(num_levels):
    processor = SmtImageProcessor(size=16, num_levels=num_levels)
    ids = np.arange(256)[None] % num_levels
    (image,) = processor.to_images(ids)
    assert image.mode == "L" and image.getextrema() == (0, 255)
    assert processor(image, return_tensors="np").input_ids.tolist() == ids.tolist()


def test_pixels_are_read_in_raster_order_after_the_class():
    pixels = np.array([[0, 32, 64], [255, 128, 96]], dtype=np.uint8)
    processor = SmtImageProcessor((2, 3), num_levels=8, num_classes=3, class_names=["cat", "dog", "owl"])
    batch = processor([pixels, Image.fromarray(pixels)], labels=["dog", 2], return_tensors="pt")
    assert batch.input_ids.tolist() == [[9, 0, 1, 2, 7, 4, 3], [10, 0, 1, 2, 7, 4, 3]]
    assert batch.input_ids.dtype == torch.int64
    ids, labels = processor.split_ids(batch.input_ids)
    assert labels.tolist() == [1, 2] and ids.shape == (2, 6)
    assert processor.vocab_size == 11 and processor.sequence_length == 7


def test_colours_become_grey_and_nothing_becomes_white():
    processor = SmtImageProcessor(2, num_levels=256)
    colours = np.zeros((2, 2, 3), dtype=np.uint8)
    colours[0, 0] = (255, 0, 0)
    grey = processor(colours)["input_ids"][0]
    assert grey.tolist() == [76, 0, 0, 0]
    assert processor(torch.from_numpy(colours).permute(2, 0, 1))["input_ids"][0].tolist() == grey.tolist()
    stroke = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    stroke.putpixel((1, 0), (0, 0, 0, 255))
    assert processor(stroke)["input_ids"][0].tolist() == [255, 0, 255, 255]


@pytest.mark.parametrize(
    "mode, white, black, clear",
    [
        ("1", 1, 0, None),
        ("L", 255, 0, None),
        ("LA", (255, 255), (0, 255), (0, 0)),
        ("La", (255, 255), (0, 255), (0, 0)),
        ("RGB", (255, 255, 255), (0, 0, 0), None),
        ("RGBX", (255, 255, 255, 0), (0, 0, 0, 0), None),
        ("RGBA", (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)),
        ("RGBa", (255, 255, 255, 255), (0, 0, 0, 255), (0, 0, 0, 0)),
        ("CMYK", (0, 0, 0, 0), (0, 0, 0, 255), None),
        ("YCbCr", (255, 128, 128), (0, 128, 128), None),
        ("HSV", (0, 0, 255), (0, 0, 0), None),
        ("LAB", (255, 128, 128), (0, 128, 128), None),
    ],
)
def test_modes_of_pillow_become_grey_and_nothing_becomes_white(mode, white, black, clear):
    image = Image.new(mode, (3, 1), white)
    image.putpixel((1, 0), black)
    image.putpixel((2, 0), white if clear is None else clear)
    assert SmtImageProcessor((1, 3), num_levels=2)(image)["input_ids"][0].tolist() == [1, 0, 1]


@pytest.mark.parametrize("shape", [(3, 8, 4), (1, 4, 4), (1, 8, 1), (4, 3, 3)])
@pytest.mark.parametrize("of", [np.zeros, torch.zeros])
def test_an_array_whose_channels_may_stand_at_either_end_is_refused(shape, of):
    dtype = {np.zeros: np.uint8, torch.zeros: torch.uint8}[of]
    with pytest.raises(ValueError, match="channels may come first or last") as refusal:
        SmtImageProcessor(4)(of(shape, dtype=dtype))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "labels",
    [
        [1, 2], (1, "2"), range(1, 3), np.array([1, 2]), np.array(["b", "c"]), torch.tensor([1, 2]),
        [np.int64(1), torch.tensor(2)],
    ],
)  # fmt: skip
def test_labels_of_every_kind_are_numbers(labels):
    processor = SmtImageProcessor(1, num_levels=4, num_classes=3, class_names=["a", "b", "c"])
    image = np.zeros((1, 1), dtype=np.uint8)
    assert [int(row[0]) for row in processor([image, image], labels=labels)["input_ids"]] == [5, 6]
    for label in (1, "b", np.int8(1), np.array(1), torch.tensor(1)):
        assert [int(row[0]) for row in processor([image, image], labels=label)["input_ids"]] == [5, 5]


def test_images_are_resized_to_the_one_size():
    image = Image.new("L", (20, 10), 255)
    assert (SmtImageProcessor(4, resample=4)(image)["input_ids"][0] == 7).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("digit.png", "str is not an image"),
        (np.zeros((2, 2)), "array of float64: pass uint8"),
        (np.zeros((2, 2, 2), dtype=np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((0, 4), dtype=np.uint8), r"shape \(0, 4\)"),
        (torch.zeros(2, 2, dtype=torch.bfloat16), "array of bfloat16: pass uint8"),
        (torch.zeros(2, 2, requires_grad=True), "array of float32: pass uint8"),
        (Image.new("I;16", (4, 4)), "mode 'I;16', .*scale its values to 0..255"),
        (Image.new("F", (4, 4)), "mode 'F', .*scale its values to 0..255"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(ValueError, match=words) as refusal:
        SmtImageProcessor(4)(image)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size=0 is not a size"),
        ({"size": {"height": 4}}, "pass a height and a width"),
        ({"num_levels": 1}, "num_levels=1 must be"),
        ({"num_classes": -1}, "num_classes=-1"),
        ({"num_classes": 2, "class_names": ["cat"]}, "1 names for num_classes=2"),
        ({"resample": 9}, "0 nearest"),
    ],
)
def test_options_that_cannot_work_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        SmtImageProcessor(**options)


def test_labels_and_ids_that_cannot_be_are_refused():
    processor = SmtImageProcessor(2, num_levels=4, num_classes=2)
    image = np.zeros((2, 2), dtype=np.uint8)
    for label in (2, -1, "cat", None, 0.5, True, np.float64(0.5), torch.tensor(True), torch.tensor(2)):
        for labels in (label, [label]):
            with pytest.raises(ValueError, match="is not a class: pass a number from 0 to 1"):
                processor(image, labels=labels)
    with pytest.raises(ValueError, match="2 labels were given for 1 images"):
        processor(image, labels=[0, 1])
    with pytest.raises(ValueError, match="there are no classes"):
        SmtImageProcessor(2)(image, labels=0)
    with pytest.raises(ValueError, match="id 4 is not a pixel"):
        processor.to_images([[0, 1, 2, 4]])
    with pytest.raises(ValueError, match="does not begin with a class"):
        processor.to_images([[0, 0, 1, 2, 3]])
    with pytest.raises(ValueError, match=r"shape \(1, 3\)"):
        processor.to_images([[0, 1, 2]])


def test_the_processor_travels_with_its_student(tmp_path):
    processor = SmtImageProcessor((4, 6), num_levels=4, num_classes=2, class_names=["a", "b"], resample=4)
    config = SmtRnnConfig(
        vocab_size=processor.vocab_size, hidden_size=8, num_memory_tokens=2, num_attention_heads=2,
        num_updater_layers=1, num_readout_layers=0,
    )  # fmt: skip
    SmtRnnForCausalLM(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(loaded) is SmtImageProcessor and loaded.to_dict() == processor.to_dict()
    with pytest.MonkeyPatch.context() as patch:  # as where this package is not installed
        patch.setattr("transformers.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING._extra_content", {})
        remote = AutoImageProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(remote) is not SmtImageProcessor
    image = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    assert remote(image, labels="b")["input_ids"][0].tolist() == processor(image, labels=1)["input_ids"][0].tolist()
