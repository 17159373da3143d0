"""Images from every kind of source, and the rows that training reads."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from smt_hf import SmtImageProcessor
from smt_hf.data import ImageRows, build_image_cache, cached_images, open_images, processor_for
from smt_hf.data.streams import TokenStreams
from smt_hf.errors import InputError

PIXELS = np.arange(12, dtype=np.uint8).reshape(12, 1, 1) * 16 * np.ones((1, 4, 4), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = ["cat", "dog", "owl"]


def levels(source) -> list:
    """The level of the first pixel of every image, and its label."""
    processor = SmtImageProcessor(4, num_levels=16)
    return [(int(processor.pixel_ids(image)[0]), label) for image, label in source]


EXPECTED = [(number, number % 3) for number in range(12)]


def class_folders(folder, split=""):
    for number, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        place = folder / split / NAMES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:02}.png")
    return folder


def test_arrays(tmp_path):
    file = tmp_path / "images.npz"
    np.savez(file, x=PIXELS, y=LABELS)
    assert levels(open_images(file)) == EXPECTED
    assert open_images(file).class_names == ["0", "1", "2"]
    parts = [levels(open_images(file, holdout=4, split=split)) for split in ("train", "validation")]
    assert list(map(len, parts)) == [9, 3] and sorted(parts[0] + parts[1]) == EXPECTED
    with pytest.raises(InputError, match="has no splits"):
        open_images(file, split="test")
    np.savez(
        file, x_train=PIXELS.reshape(12, 16), y_train=LABELS, x_valid=PIXELS[:2], y_valid=LABELS[:2], classes=NAMES
    )
    source = open_images(file, split="validation")
    assert levels(source) == EXPECTED[:2] and source.class_names == NAMES
    assert levels(open_images(file)) == EXPECTED
    with pytest.raises(InputError, match="no split 'test': choose one of train, validation"):
        open_images(file, split="test")


def test_one_array_a_class(tmp_path):
    for label, name in enumerate(NAMES):
        np.save(tmp_path / f"full_numpy_bitmap_{name}.npy", PIXELS[LABELS == label].reshape(-1, 16))
    source = open_images(tmp_path)
    assert levels(source) == EXPECTED and source.class_names == NAMES


def test_folders_of_classes(tmp_path):
    source = open_images(class_folders(tmp_path / "flat"))
    assert levels(source) == EXPECTED and source.class_names == NAMES
    class_folders(tmp_path / "split", "train")
    class_folders(tmp_path / "split", "val")
    assert levels(open_images(tmp_path / "split", split="validation")) == EXPECTED
    with pytest.raises(InputError, match="choose one of train, validation"):
        open_images(tmp_path / "split", split="test")
    (tmp_path / "flat" / "owl" / "02.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"02\.png' is not a readable image"):
        list(open_images(tmp_path / "flat"))


@pytest.mark.parametrize("above, below", [("256x256", "tx_000000000000"), ("", ""), ("train", "")])
def test_photos_beside_sketches_are_left_aside(above, below, tmp_path, caplog):
    class_folders(tmp_path / above / "sketch" / below)
    class_folders(tmp_path / above / "photo" / below)
    for _ in range(2):
        source = open_images(tmp_path)
        assert levels(source) == EXPECTED and source.class_names == NAMES
    (said,) = caplog.messages
    assert "the 12 images in 'sketch' are read, the other 12 are skipped" in said and str(tmp_path) in said


@pytest.mark.parametrize("above", ["", "train", "drawn"])
def test_photo_and_sketch_may_be_classes(above, tmp_path, caplog):
    for name in ("photo", "sketch", "owl"):
        (tmp_path / above / name).mkdir(parents=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / above / name / "0.png")
    source = open_images(tmp_path)
    assert source.class_names == ["owl", "photo", "sketch"] and len(levels(source)) == 3 and not caplog.messages


@pytest.fixture
def dataset():
    columns = {"number": range(12), "image": [Image.fromarray(image) for image in PIXELS], "label": LABELS}
    features = datasets.Features(
        number=datasets.Value("int64"), image=datasets.Image(), label=datasets.ClassLabel(names=NAMES)
    )
    return datasets.Dataset.from_dict(columns, features=features)


def test_datasets(tmp_path, dataset):
    for source in (dataset, dataset.to_iterable_dataset(), dataset.with_format("torch")):
        opened = open_images(source)
        assert levels(opened) == EXPECTED and opened.class_names == NAMES
        assert levels(opened) == EXPECTED  # and again
    datasets.DatasetDict(test=dataset).save_to_disk(tmp_path / "saved")
    assert levels(open_images(tmp_path / "saved", split="test")) == EXPECTED
    (tmp_path / "parquet").mkdir()
    dataset.to_parquet(tmp_path / "parquet" / "test-00000-of-00001.parquet")
    assert levels(open_images(tmp_path / "parquet", split="test")) == EXPECTED
    assert levels(open_images(tmp_path / "parquet" / "test-00000-of-00001.parquet")) == EXPECTED
    named = open_images(dataset, label_column="number")
    assert named.class_names == [str(number) for number in range(12)]
    with pytest.raises(InputError, match="no column 'picture': set image_column to one of number, image, label"):
        open_images(dataset, image_column="picture")
    with pytest.raises(InputError, match="no column of images"):
        open_images(dataset.remove_columns("image"))


def test_what_numpy_would_unpickle(tmp_path):
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "x.npz", x=objects)
    np.savez(tmp_path / "classes.npz", x=PIXELS, classes=objects)
    (tmp_path / "text.npz").write_text("no arrays")
    for name in ("a.npy", "x.npz", "classes.npz", "text.npz"):
        with pytest.raises(InputError, match="it contains something other than arrays of numbers or text") as error:
            open_images(tmp_path / name)
        assert "allow_pickle" not in str(error.value)


@pytest.mark.parametrize("holdout, number", [(100, 12), (2, 1)])
def test_a_holdout_that_leaves_no_images(holdout, number, tmp_path):
    np.savez(tmp_path / "x.npz", x=PIXELS[:number])
    splits = {name: open_images(tmp_path / "x.npz", split=name, holdout=holdout) for name in ("train", "validation")}
    empty = [
        name for name in splits if fails_to_read(splits[name], f"holdout={holdout} leaves none of the {number} images")
    ]
    assert len(empty) == 1


def fails_to_read(source, message) -> bool:
    try:
        list(source)
    except InputError as error:
        assert message in str(error)
        return True
    return False


def test_what_holds_no_images_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match="contains no images: pass an .npz"):
        open_images(tmp_path)
    with pytest.raises(InputError, match="contains no images: pass an .npz"):
        open_images(tmp_path / "a.txt")
    (tmp_path / "b.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read"):
        open_images(tmp_path / "b.npz")
    with pytest.raises(InputError, match="no file or folder"):
        open_images(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", x=PIXELS.astype(np.float32))
    with pytest.raises(InputError, match="type float32: images must be uint8"):
        open_images(tmp_path / "d.npz")


def test_every_image_is_one_row(tmp_path):
    np.savez(tmp_path / "images.npz", x=PIXELS, y=LABELS)
    source = open_images(tmp_path / "images.npz")
    processor = processor_for(source, size=(2, 3), num_levels=4, resample=0)
    cache = cached_images(source, processor, tmp_path / "cache")
    rows = ImageRows(cache)
    assert len(rows) == 12 and rows.window_length == 7 and cache.num_bytes == 72
    expected = processor(list(PIXELS), labels=list(LABELS), return_tensors="pt").input_ids
    assert torch.stack([row["input_ids"] for row in rows]).equal(expected)
    assert rows[-1]["input_ids"].equal(expected[-1])
    assert cached_images(tmp_path / "images.npz", processor, tmp_path / "cache").path == cache.path
    other = SmtImageProcessor(2, num_levels=4)
    assert cached_images(source, other, tmp_path / "cache").path != cache.path
    assert cached_images(source, processor, tmp_path / "cache", max_images=5).num_documents == 5
    streams = TokenStreams(cache, 3, 2, seed=0)  # truncated back-propagation carries the memory through them
    assert streams[0]["input_ids"].shape == (3 + 1,)


def test_images_of_other_classes_are_refused(tmp_path, dataset):
    with pytest.raises(InputError, match="has the classes cat, dog, owl, but the student has ant, bee"):
        cached_images(dataset, SmtImageProcessor(4, num_classes=2, class_names=["ant", "bee"]), tmp_path)
    bare = open_images(dataset.remove_columns("label"))
    with pytest.raises(InputError, match="has no classes"):
        processor_for(bare, size=4)
    with pytest.raises(InputError, match="the data set, image 1: str is not an image"):
        build_image_cache([(PIXELS[0], None), ("b.png", None)], SmtImageProcessor(4), tmp_path / "cache")
    with pytest.raises(InputError, match="IterableDataset cannot be identified"):
        cached_images(dataset.to_iterable_dataset(), SmtImageProcessor(4), tmp_path)


def test_digits_come_with_scikit_learn():
    train, validation = open_images("digits"), open_images("digits", split="validation")
    assert train.class_names == [str(digit) for digit in range(10)]
    assert (len(list(train)), len(list(validation))) == (1497, 300)
    assert {label for _, label in validation} == set(range(10))
