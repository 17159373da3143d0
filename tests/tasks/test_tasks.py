"""What holds for every task."""

import dataclasses
import hashlib

import pytest
import torch

from smt_hf.errors import InputError
from smt_hf.tasks import TASKS, load_task

every_task = pytest.mark.parametrize("name", TASKS)
SHA256_OF_SEED_3 = {
    "retrieval": "f31f565de26954c6",
    "string_copy": "53a11fdeb648057c",
    "stack": "8948a86a04a308ab",
    "parity": "0d5b85eab358c714",
    "modular_counter": "76fe3274a0f65de5",
    "keys_values": "5ae4f84a363a624c",
    "modular_arithmetic": "79567d136ce7b24c",
}


@every_task
def test_form_of_a_sample(name):
    task = load_task(name, length=150)
    sample = task.sample(20, seed=0)
    assert set(sample) == {"input_ids", "shift_labels"}
    for values in sample.values():
        assert values.shape == (20, 150) and values.dtype == torch.int64
    assert 0 <= sample["input_ids"].min() and sample["input_ids"].max() < task.vocab_size
    labels = sample["shift_labels"][sample["shift_labels"] != -100]
    assert len(labels) and 0 <= labels.min() and labels.max() < task.vocab_size


@every_task
def test_ids_do_not_depend_on_the_length(name):
    """A comparison's lengths share models that were trained on short rows."""
    assert len({load_task(name, length=length).vocab_size for length in (50, 51, 150)}) == 1


@every_task
def test_same_seed_gives_the_same_rows_everywhere(name):
    sample = load_task(name).sample(50, seed=3)
    data = b"".join(values.numpy().astype("<i8").tobytes() for values in sample.values())
    assert hashlib.sha256(data).hexdigest()[:16] == SHA256_OF_SEED_3[name]


@every_task
def test_seeds(name):
    task = load_task(name)
    assert not task.sample(5, 0)["input_ids"].equal(task.sample(5, 1)["input_ids"])
    assert not task.sample(5, (1, 2))["input_ids"].equal(task.sample(5, (1, 3))["input_ids"])
    for seed in (-1, (0, -1)):
        with pytest.raises(InputError, match="seed is -1: pass 0 or more"):
            task.sample(5, seed)
    with pytest.raises(InputError, match="seed is 0.5: pass a whole number"):
        task.sample(5, 0.5)
    with pytest.raises(InputError, match="num_rows is 0"):
        task.sample(0, 0)


@every_task
def test_no_constant_answer_beats_chance(name):
    task = load_task(name)
    labels = torch.cat([task.sample(4000, seed)["shift_labels"] for seed in range(3)])
    labels = labels[labels != -100]
    best = labels.bincount().max() / len(labels)
    assert task.chance - 0.02 < best < task.chance + 0.02


@every_task
def test_options_that_are_no_numbers(name):
    for field in dataclasses.fields(TASKS[name]):
        for value in (None, "3", 3.0) if field.type is bool else (None, "3", 3.0, True):
            with pytest.raises(InputError, match=f"{field.name} is {value!r}: pass"):
                load_task(name, **{field.name: value})


def test_names():
    with pytest.raises(InputError, match="'copy' is unknown: choose one of retrieval, string_copy, "):
        load_task("copy")
    with pytest.raises(InputError, match="'stack' has no option 'width': choose among length, num_symbols, depth"):
        load_task("stack", width=3)
    assert load_task("stack", depth=3) == TASKS["stack"](depth=3)
