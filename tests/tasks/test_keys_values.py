import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import KeysValues
from smt_hf.tasks.keys_values import distinct
from tests.tasks.conftest import few, rows_of, seeds


@few
@given(
    key_length=st.integers(1, 4),
    num_keys=st.integers(1, 8),
    num_values=st.integers(2, 8),
    num_queries=st.integers(1, 5),
    waiting=st.integers(0, 9),
    data=st.data(),
    seed=seeds,
)
def test_an_answer_is_the_value_of_the_queried_key(key_length, num_keys, num_values, num_queries, waiting, data, seed):
    num_pairs = data.draw(st.integers(1, min(num_keys**key_length, 10)))
    task = KeysValues(
        length=2 * key_length * num_pairs + num_queries * (2 * key_length - 1) + waiting,
        num_pairs=num_pairs,
        num_keys=num_keys,
        num_values=num_values,
        key_length=key_length,
        num_queries=num_queries,
    )
    for inputs, labels in rows_of(task, seed):
        values = {}
        for pair in range(num_pairs):
            start = 2 * key_length * pair
            key = tuple(inputs[start : start + key_length])
            value = inputs[start + key_length : start + 2 * key_length]
            assert all(num_values < token <= num_values + num_keys for token in key)
            assert all(1 <= token <= num_values for token in value)
            values[key] = value
        assert len(values) == num_pairs
        inputs, labels = inputs[2 * key_length * num_pairs :], labels[2 * key_length * num_pairs :]
        assert inputs[:waiting] == [0] * waiting and labels[:waiting] == [-100] * waiting
        for start in range(waiting, len(inputs), 2 * key_length - 1):
            query, blanks = inputs[start : start + key_length], inputs[start + key_length : start + 2 * key_length - 1]
            assert blanks == [0] * (key_length - 1)
            unlabelled, answer = [-100] * (key_length - 1), values[tuple(query)]
            assert labels[start : start + 2 * key_length - 1] == unlabelled + answer


@pytest.mark.parametrize("num_values, count", [(4, 1), (4, 2), (4, 4), (5, 3)])
def test_every_ordered_choice_is_equally_likely(num_values, count):
    rows = distinct(np.random.default_rng(0), num_values, (50_000, count))
    found, counts = np.unique(rows, axis=0, return_counts=True)
    number = np.prod(range(num_values - count + 1, num_values + 1))
    assert len(found) == number and all(len(set(row)) == count for row in found.tolist())
    assert abs(counts / 50_000 - 1 / number).max() < 5 * (1 / number / 50_000) ** 0.5


@pytest.mark.parametrize("query", [-1, -2])
def test_queries_reach_every_pair_equally_often(query):
    sample = KeysValues(length=10, num_pairs=4, num_keys=4, num_queries=2).sample(20_000, seed=0)["input_ids"]
    place = (sample[:, :8:2] == sample[:, [query]]).int().argmax(1)
    assert (place.bincount(minlength=4) / 20_000 - 0.25).abs().max() < 5 * (0.25 / 20_000) ** 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 16, "num_pairs": 8}, "length is 16: pass 17 or more .the pairs"),
        ({"length": 16, "num_pairs": 2, "key_length": 3}, "length is 16: pass 17 or more"),
        ({"length": 9, "num_pairs": 4, "num_queries": 2}, "length is 9: pass 10 or more .the pairs, the queries"),
        ({"num_queries": 0}, "num_queries is 0"),
        ({"num_pairs": 0}, "num_pairs is 0"),
        (
            {"num_pairs": 5, "num_keys": 2, "key_length": 2},
            "num_pairs is 5: pass 1 to 4 .there are no more different keys",
        ),
        ({"num_keys": 0}, "num_keys is 0"),
        ({"num_values": 1}, "num_values is 1"),
        ({"key_length": 0}, "key_length is 0"),
        ({"num_keys": 2, "key_length": 63}, "key_length is 63 with num_keys 2: lower one"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        KeysValues(**options)


def test_keys_of_62_bits():
    task = KeysValues(length=1000, num_keys=2, key_length=62, num_pairs=3)
    assert len(rows_of(task, 0)) == 4
