import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import Retrieval
from tests.tasks.conftest import few, rows_of, seeds


@few
@given(length=st.integers(3, 40), num_symbols=st.integers(2, 12), seed=seeds)
def test_the_only_label_is_the_symbol_after_the_first_marker(length, num_symbols, seed):
    for inputs, labels in rows_of(Retrieval(length=length, num_symbols=num_symbols), seed):
        marker = inputs.index(0)
        assert [t for t, token in enumerate(inputs) if token == 0] == [marker, length - 1]
        assert all(1 <= token <= num_symbols for t, token in enumerate(inputs) if t not in (marker, length - 1))
        assert marker + 1 < length / 2
        assert labels == [-100] * (length - 1) + [inputs[marker + 1]]


@pytest.mark.parametrize("length", [3, 4, 5, 20, 21])
def test_needles_and_columns_are_uniform(length):
    sample = Retrieval(length=length, num_symbols=5).sample(20_000, seed=0)
    columns = 1 + (sample["input_ids"][:, :-1] == 0).int().argmax(1)
    allowed = [t for t in range(1, length) if t < length / 2]
    for values, expected in ((columns, allowed), (sample["shift_labels"][:, -1], list(range(1, 6)))):
        found, counts = values.unique(return_counts=True)
        assert found.tolist() == expected
        share = 1 / len(expected)
        assert (counts / 20_000 - share).abs().max() < 5 * (share / 20_000) ** 0.5


@pytest.mark.parametrize(
    "options, message", [({"length": 2}, "length is 2: pass 3 or more"), ({"num_symbols": 1}, "num_symbols is 1")]
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        Retrieval(**options)
