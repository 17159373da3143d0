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


@torch.no_grad()
def guided_by_hand(student, processor, prompts: torch.Tensor, strength: float, temperature: float) -> np.ndarray:
    """Every image read anew as each class for every pixel, and Bayes' rule written out."""
    levels, drawn = processor.num_levels, prompts
    while drawn.shape[1] < processor.sequence_length:
        joint, following = [], []  # ln p(pixels | class), p(next pixel | class, pixels)
        for label in range(processor.num_classes):
            row = torch.cat([torch.full_like(drawn[:, :1], levels + label), drawn[:, 1:]], dim=1)
            probabilities = student(row, use_cache=False).logits[..., :levels].softmax(dim=-1)
            given = probabilities[:, :-1].gather(-1, row[:, 1:, None]).squeeze(-1)
            joint.append(given.log().sum(dim=1))
            following.append(probabilities[:, -1])
        prior, following = torch.stack(joint, dim=1).softmax(dim=1), torch.stack(following, dim=1)
        own = following[torch.arange(len(drawn)), drawn[:, 0] - levels]
        after = own * prior.gather(1, drawn[:, :1] - levels) / (following * prior[..., None]).sum(dim=1)
        chances = own * after ** (strength - 1)  # p(pixel | class) p(class | pixels and this one) ** (strength - 1)
        if temperature == 0:
            pixel = chances.argmax(dim=-1)
        else:
            chances = torch.nn.functional.pad(chances ** (1 / temperature), (0, student.config.vocab_size - levels))
            pixel = torch.multinomial(chances / chances.sum(dim=-1, keepdim=True), 1)[:, 0]
        drawn = torch.cat([drawn, pixel[:, None]], dim=1)
    return drawn[:, -processor.num_pixels :].numpy()


@pytest.mark.parametrize("given_rows", [0, 2])
@pytest.mark.parametrize("temperature", [0, 1.0, 0.7])
@pytest.mark.parametrize("strength", [1.5, 4.0])
def test_guidance_is_bayes_rule_with_the_student_as_classifier(strength, temperature, given_rows):
    student, processor = make(3)
    given = np.random.default_rng(0).integers(256, size=(3, 4)).astype(np.uint8)
    pixels = torch.from_numpy(processor.pixel_ids(given))[: 4 * given_rows].repeat(6, 1)
    classes = torch.tensor([[4 + number % 3] for number in range(6)])
    torch.manual_seed(5)
    expected = guided_by_hand(student, processor, torch.cat([classes, pixels], dim=1), strength, temperature)
    complete = {"complete": given, "complete_rows": given_rows} if given_rows else {}
    options = {"temperature": temperature, "seed": 5, **complete}
    images = generate_images(student, processor, 6, guidance=strength, **options)
    assert (ids(processor, images) == expected).all()
    if strength > 2 and temperature:
        assert (expected != ids(processor, generate_images(student, processor, 6, **options))).any()


def test_a_seed_decides_the_images_and_leaves_the_rest_alone():
    student, processor = make(0)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = generate_images(student, processor, 3, seed=5)
    assert torch.random.get_rng_state().equal(state)
    assert first == generate_images(student, processor, 3, seed=5) != generate_images(student, processor, 3, seed=6)


def test_guidance_needs_classes():
    student, processor = make(0)
    with pytest.raises(
        InputError, match="guidance=2 steers images towards a class, but the student has no classes: leave it out"
    ):
        generate_images(student, processor, 2, guidance=2.0)
    with pytest.raises(InputError, match="guidance=0.5 must be at least 1"):
        generate_images(*make(3), 2, guidance=0.5)


def test_wrong_wishes_are_refused_in_one_line():
    student, processor = make(3)
    for options, words in (
        ({"num_images": 0}, "num_images is 0"),
        ({"labels": 3}, "label 3 is not a class"),
        ({"labels": [0, 1]}, "2 labels were given for 1 images"),
        ({"complete": "half.png"}, "str is not an image"),
        ({"complete": np.zeros((3, 4), np.uint8), "complete_rows": 4}, "must be from 0 to 3"),
        ({"complete_rows": 1}, "pass complete"),
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
