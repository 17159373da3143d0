import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import StringCopy
from tests.tasks.conftest import few, rows_of, seeds


@few
@given(
    string_length=st.integers(1, 12),
    waiting=st.integers(0, 12),
    num_symbols=st.integers(2, 9),
    reverse=st.booleans(),
    feed_back=st.booleans(),
    seed=seeds,
)
def test_the_string_is_due_from_the_marker_on(string_length, waiting, num_symbols, reverse, feed_back, seed):
    task = StringCopy(
        length=2 * string_length + waiting,
        string_length=string_length,
        num_symbols=num_symbols,
        reverse=reverse,
        feed_back=feed_back,
    )
    for inputs, labels in rows_of(task, seed):
        marker, blank = inputs.index(0), num_symbols + 1
        string = [token for token in inputs[:marker] if token != blank]
        due = []
        for i in range(len(string)):
            due.append(string[-1 - i] if reverse else string[i])
        assert len(string) == string_length and all(1 <= token <= num_symbols for token in string)
        assert inputs[: marker + 1] == string + [blank] * waiting + [0]
        assert inputs[marker + 1 :] == (due[:-1] if feed_back else [blank] * (string_length - 1))
        assert labels == [-100] * marker + due


def test_symbols_are_uniform_and_independent():
    labels = StringCopy(length=8, string_length=4, num_symbols=3).sample(20_000, seed=0)["shift_labels"][:, 4:]
    strings, counts = (labels @ labels.new_tensor([1, 10, 100, 1000])).unique(return_counts=True)
    assert len(strings) == 81
    assert (counts / 20_000 - 1 / 81).abs().max() < 5 * (1 / 81 / 20_000) ** 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 31, "string_length": 16}, "length is 31: pass 32 or more .a string of 16"),
        ({"string_length": 0}, "string_length is 0"),
        ({"num_symbols": 1}, "num_symbols is 1"),
        ({"reverse": "yes"}, "reverse is 'yes': pass True or False"),
        ({"feed_back": 1}, "feed_back is 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        StringCopy(**options)
