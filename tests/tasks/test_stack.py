import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.tasks import Stack
from tests.tasks.conftest import few, rows_of, seeds


def heights(inputs):
    """How many symbols lie on the stack before every token."""
    height, before = 0, []
    for token in inputs:
        before.append(height)
        height += 1 if token else -1
    return before


@few
@given(length=st.integers(2, 40), num_symbols=st.integers(2, 6), depth=st.integers(1, 50), seed=seeds)
def test_pops_are_labelled_with_what_they_pop(length, num_symbols, depth, seed):
    for inputs, labels in rows_of(Stack(length=length, num_symbols=num_symbols, depth=depth), seed):
        stack = []
        for token, label in zip(inputs, labels, strict=True):
            if token == 0:
                assert label == stack.pop()
            else:
                assert 1 <= token <= num_symbols and label == -100
                stack.append(token)
                assert len(stack) <= depth


def test_pushes_and_pops_are_a_fair_coin_between_the_bounds():
    pops = {height: [] for height in range(4)}
    for inputs, _ in rows_of(Stack(length=50, depth=3), 0, num_rows=400):
        for token, height in zip(inputs, heights(inputs), strict=True):
            pops[height].append(token == 0)
    assert not any(pops[0]) and all(pops[3])
    for height in (1, 2):
        count = len(pops[height])
        assert count > 1000
        assert abs(sum(pops[height]) / count - 0.5) < 5 * 0.5 / count**0.5


def test_the_stack_gets_full():
    for depth in (1, 2, 10):
        rows = rows_of(Stack(length=300, depth=depth), 1, num_rows=8)
        assert max(max(heights(inputs)) for inputs, _ in rows) == depth


@pytest.mark.parametrize(
    "options, message",
    [
        ({"length": 1}, "length is 1: pass 2 or more"),
        ({"num_symbols": 1}, "num_symbols is 1"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(InputError, match=message):
        Stack(**options)
