"""Drawing images: `generate()` against the recurrence step by step."""

import numpy as np
import pytest
import torch
from PIL import Image

from smt_hf import SmtImageProcessor, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.errors import InputError
from smt_hf.images import generate_images, image_grid


def make(num_classes: int) -> tuple[SmtRnnForCausalLM, SmtImageProcessor]:
    torch.manual_seed(0)
    processor = SmtImageProcessor((3, 4), num_levels=4, num_classes=num_classes)
    config = SmtRnnConfig(
        vocab_size=processor.vocab_size, hidden_size=16, num_memory_tokens=2, num_attention_heads=2,
        num_updater_layers=1, num_readout_layers=1, initializer_range=0.5,
    )  # fmt: skip
    return SmtRnnForCausalLM(config).eval(), processor


@torch.no_grad()
def step_by_step(student, processor, prompts: list[list[int]], temperature: float) -> np.ndarray:
    """The recurrence by hand: read the prompts, then sample pixel after pixel."""
    memory, drawn = student.model.start_memory(len(prompts)), torch.tensor(prompts, dtype=torch.long)
    for token in drawn.T:
        memory = student.update(memory, token)
    while drawn.shape[1] < processor.sequence_length:
        logits = student.readout(memory)
        logits[:, processor.num_levels :] = -torch.inf
        if temperature == 0:
            token = logits.argmax(dim=-1)
        else:
            token = torch.multinomial((logits / temperature).softmax(dim=-1), 1)[:, 0]
        drawn = torch.cat([drawn, token[:, None]], dim=1)
        memory = student.update(memory, token)
    return drawn[:, -processor.num_pixels :].numpy()


def ids(processor, images) -> np.ndarray:
    return np.stack([processor.pixel_ids(image) for image in images])


@pytest.mark.parametrize("temperature", [0, 1.0, 0.7])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_images_are_those_of_the_recurrence(num_classes, temperature):
    student, processor = make(num_classes)
    prompts = [[4 + number % 3] for number in range(5)] if num_classes else [[]] * 5
    torch.manual_seed(7)
    expected = step_by_step(student, processor, prompts, temperature)
    images = generate_images(student, processor, 5, temperature=temperature, seed=7)
    assert (ids(processor, images) == expected).all()
    if temperature:
        assert len({row.tobytes() for row in expected}) > 1


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_given_rows_stay_and_the_others_follow(num_classes):
    student, processor = make(num_classes)
    half = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4), dtype=np.uint8))
    given = processor.pixel_ids(half)[:8].tolist()
    label = {"labels": 2} if num_classes else {}
    prompts = [([6] if num_classes else []) + given] * 4
    torch.manual_seed(3)
    expected = step_by_step(student, processor, prompts, 1.0)
    images = generate_images(student, processor, 4, complete=half, complete_rows=2, seed=3, **label)
    assert (ids(processor, images) == expected).all() and (expected[:, :8] == given).all()
    (whole,) = generate_images(student, processor, 1, complete=half, complete_rows=3, **label)
    assert processor.pixel_ids(whole).tolist() == processor.pixel_ids(half).tolist()


def test_a_seed_decides_the_images_and_leaves_the_rest_alone():
    student, processor = make(0)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = generate_images(student, processor, 3, seed=5)
    assert torch.random.get_rng_state().equal(state)
    assert first == generate_images(student, processor, 3, seed=5) != generate_images(student, processor, 3, seed=6)


def test_wrong_wishes_are_refused_in_one_line():
    student, processor = make(3)
    for options, words in (
        ({"num_images": 0}, "num_images is 0"),
        ({"labels": 3}, "label 3 is no class"),
        ({"labels": [0, 1]}, "2 labels were given for 1 images"),
        ({"complete": "half.png"}, "str is no image"),
        ({"complete": np.zeros((3, 4), np.uint8), "complete_rows": 4}, "must be from 0 to 3"),
        ({"complete_rows": 1}, "give complete"),
        ({"temperature": -1.0}, "temperature=-1.0 must be"),
        ({"temperature": float("nan")}, "temperature=nan must be"),
        ({"top_p": 2.0}, "top_p=2.0 must be above 0 and at most 1"),
        ({"top_p": 0.0}, "top_p=0.0 must be"),
        ({"batch_size": 0}, "batch_size=0 must be"),
    ):
        with pytest.raises(InputError, match=words):
            generate_images(student, processor, **options)
    with pytest.raises(InputError, match="there are no classes"):
        generate_images(*make(0), labels=1)
    with pytest.raises(InputError, match="has 8 ids but the student's vocab_size is 7"):
        generate_images(student, SmtImageProcessor((3, 4), num_levels=8))


@pytest.mark.parametrize("labels", [[0, 1], np.array([0, 1]), torch.tensor([0, 1]), range(2)])
def test_labels_of_every_kind_draw_the_same(labels):
    student, processor = make(3)
    expected = generate_images(student, processor, 2, labels=[0, 1], seed=0)
    assert generate_images(student, processor, 2, labels=labels, seed=0) == expected


@pytest.mark.parametrize("vocab_size, fits", [(4, True), (8, True), (64, True), (128, True), (5, False), (258, False)])
def test_a_vocabulary_may_be_rounded_up_and_is_no_other(vocab_size, fits):
    student, processor = make(0)
    student.resize_token_embeddings(vocab_size)
    if fits:
        assert len(generate_images(student, processor, 2)) == 2
        return
    with pytest.raises(InputError, match=f"has 4 ids but the student's vocab_size is {vocab_size}: use the processor"):
        generate_images(student, processor, 2)


def test_a_grid_shows_every_image():
    images = [Image.new("L", (4, 3), value) for value in (0, 100, 255)]
    grid = image_grid(images, columns=2, scale=2, gap=1)
    assert grid.size == (2 * 9 + 1, 2 * 7 + 1)
    assert [grid.getpixel(place) for place in ((1, 1), (10, 1), (1, 8))] == [0, 100, 255]
    with pytest.raises(InputError, match="images of one size"):
        image_grid([])
