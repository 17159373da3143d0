"""The bounds of options."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smt_hf.errors import InputError
from smt_hf.utils.bounds import BOUNDS, Bounds, bounds_of, check_bounds

NUMBERS = st.integers(-(2**40), 2**40) | st.floats()


@pytest.mark.parametrize(
    "bounds, words, inside, outside",
    [
        (Bounds(1), "at least 1", [1, 1.5, 10**12], [0, -1, 0.999]),
        (Bounds(0, open_low=True), "above 0", [1e-9, 5], [0, -0.0]),
        (Bounds(0, 1), "from 0 to 1", [0, 0.5, 1], [-0.1, 1.1]),
        (Bounds(0, 1, open_high=True), "at least 0 and below 1", [0, 0.999], [1]),
        (Bounds(0, 1, open_low=True), "above 0 and at most 1", [1], [0]),
        (Bounds(1, besides=(-1,)), "-1 or at least 1", [-1, 1], [0, -2]),
        (Bounds(0, 2**32 - 1), "from 0 to 4294967295", [2**32 - 1], [2**32]),
    ],
)
def test_bounds(bounds, words, inside, outside):
    assert str(bounds) == words
    assert all(number in bounds for number in inside)
    assert not any(number in bounds for number in [*outside, math.nan, math.inf, -math.inf])


@given(st.sampled_from(sorted(BOUNDS)), NUMBERS)
def test_what_is_accepted_lies_inside_and_is_finite(name, number):
    try:
        check_bounds({name: number})
    except InputError as error:
        finite = "" if math.isfinite(number) else "a finite number, "
        assert f"{name}={number!r} must be {finite}{bounds_of(name)}" == str(error)
        assert number not in BOUNDS[name]
    else:
        assert math.isfinite(number) and number in BOUNDS[name]


def test_lists_names_and_dataclasses():
    @dataclass
    class Options:
        num_sweeps: list
        dataset: str | None = None
        other: float = math.nan

    check_bounds(Options([0, 3]))
    with pytest.raises(InputError, match=r"num_sweeps=\[1, -2\]: -2 must be at least 0"):
        check_bounds(Options([1, -2]))
    with pytest.raises(InputError, match="dataset='' is empty: pass a value, or leave it out"):
        check_bounds(Options([1], dataset=""))
    check_bounds({"seed": None, "num_windows": "left to the types", "unknown": -1})
