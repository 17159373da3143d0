import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import ModularCounter, Parity
from tests.tasks.conftest import few, rows_of, seeds


@few
@given(length=st.integers(1, 40), seed=seeds)
def test_parity_of_all_bits_so_far(length, seed):
    for inputs, labels in rows_of(Parity(length=length), seed):
        assert set(inputs) <= {0, 1}
        assert labels == [inputs[: t + 1].count(1) % 2 for t in range(length)]


@few
@given(length=st.integers(1, 40), num_counters=st.integers(1, 5), modulus=st.integers(2, 7), seed=seeds)
def test_counters_one_step_at_a_time(length, num_counters, modulus, seed):
    task = ModularCounter(length=length, num_counters=num_counters, modulus=modulus)
    for inputs, labels in rows_of(task, seed):
        values = [0] * num_counters
        for token, label in zip(inputs, labels, strict=True):
            counter, amount = token // modulus, token % modulus
            values[counter] = (values[counter] + amount) % modulus
            assert label == values[counter]


def test_one_counter_of_two_is_parity():
    counter, parity = ModularCounter(num_counters=1, modulus=2), Parity()
    assert counter.vocab_size == parity.vocab_size and counter.chance == parity.chance
    assert rows_of(counter, 5) == rows_of(parity, 5)


def test_every_token_and_every_value_is_equally_likely():
    sample = ModularCounter(length=20, num_counters=3, modulus=4).sample(2000, seed=0)
    for values, number in ((sample["input_ids"], 12), (sample["shift_labels"], 4), (sample["shift_labels"][:, -1], 4)):
        found, counts = values.unique(return_counts=True)
        assert found.tolist() == list(range(number))
        assert (counts / values.numel() - 1 / number).abs().max() < 5 * (1 / number / values.numel()) ** 0.5


@pytest.mark.parametrize(
    "task, options, message",
    [
        (Parity, {"length": 0}, "length is 0"),
        (ModularCounter, {"length": 0}, "length is 0"),
        (ModularCounter, {"num_counters": 0}, "num_counters is 0"),
        (ModularCounter, {"modulus": 1}, "modulus is 1"),
    ],
)
def test_errors(task, options, message):
    with pytest.raises(InputError, match=message):
        task(**options)
