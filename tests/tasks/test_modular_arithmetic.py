import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import ModularArithmetic
from tests.tasks.conftest import few, rows_of, seeds


@few
@given(examples=st.integers(0, 5), more=st.integers(0, 20), modulus=st.integers(2, 12), data=st.data(), seed=seeds)
def test_one_map_explains_the_examples_and_the_answers(examples, more, modulus, data, seed):
    coefficients = data.draw(st.integers(2, modulus))
    length = 2 * examples + 1 + more
    task = ModularArithmetic(length=length, modulus=modulus, num_coefficients=coefficients, num_examples=examples)
    for inputs, labels in rows_of(task, seed):
        maps = [(slope, offset) for slope in range(coefficients) for offset in range(coefficients)]
        asked = {}
        for t in range(0, length, 2):
            if t >= 2 * examples:
                asked[t] = labels[t]
            answer = labels[t] if t in asked else inputs[t + 1]
            if t + 1 < length:
                assert inputs[t + 1] == answer
            maps = [(slope, offset) for slope, offset in maps if (slope * inputs[t] + offset) % modulus == answer]
        assert maps
        assert labels == [asked.get(t, -100) for t in range(length)]


@pytest.mark.parametrize(
    "modulus, coefficients", [(2, 2), (7, 2), (7, 7), (12, 2), (12, 5), (12, 12), (16, 4), (30, 6)]
)
def test_chance_by_counting(modulus, coefficients):
    counts = [0] * modulus
    for slope in range(coefficients):
        for offset in range(coefficients):
            for x in range(modulus):
                counts[(slope * x + offset) % modulus] += 1
    task = ModularArithmetic(modulus=modulus, num_coefficients=coefficients)
    assert task.chance == pytest.approx(max(counts) / sum(counts), rel=1e-12)


def test_x_and_the_map_are_uniform():
    sample = ModularArithmetic(length=4, modulus=5, num_coefficients=3).sample(50_000, seed=0)
    x, y = sample["input_ids"][:, ::2], sample["shift_labels"][:, ::2]
    assert (x.flatten().bincount() / 100_000 - 1 / 5).abs().max() < 5 * (1 / 5 / 100_000) ** 0.5
    zero_one = (x == x.new_tensor([0, 1])).all(1)  # f(0), f(1) give offset and slope
    offset, slope = y[zero_one, 0], (y[zero_one, 1] - y[zero_one, 0]) % 5
    counts = (3 * slope + offset).bincount()
    assert len(counts) == 9
    assert (counts / counts.sum() - 1 / 9).abs().max() < 5 * (1 / 9 / counts.sum()) ** 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 0}, "length is 0: pass 1 or more"),
        ({"length": 8, "num_examples": 4}, "length is 8: pass 9 or more .the examples and a question"),
        ({"modulus": 1}, "modulus is 1"),
        ({"modulus": 5, "num_coefficients": 6}, "num_coefficients is 6: pass 2 to 5 .the modulus"),
        ({"num_coefficients": 1}, "num_coefficients is 1"),
        ({"num_examples": -1}, "num_examples is -1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        ModularArithmetic(**options)
