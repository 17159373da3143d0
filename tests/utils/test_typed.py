"""Values of recipes against the types of fields."""

from dataclasses import dataclass, field, fields
from enum import Enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smt_hf.cli.options import ModelOptions, RunOptions
from smt_hf.data import DataOptions
from smt_hf.errors import InputError
from smt_hf.training import BpttTrainingArguments, DmtTrainingArguments, SmtTrainingArguments
from smt_hf.utils.typed import as_type, check_types, did_you_mean


class Colour(Enum):
    RED = "red"


@dataclass
class Fields:
    whole: int = 1
    maybe: int | None = None
    number: float = 0.0
    flag: bool = False
    text: str = ""
    texts: list[str] = field(default_factory=list)
    wholes: list[int] = field(default_factory=list)
    mapping: dict | str | None = None
    colour: Colour | str = "red"


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("whole", 3, 3),
        ("whole", 3.0, 3),
        ("maybe", None, None),
        ("number", 2, 2.0),
        ("number", "1e-3", 1e-3),
        ("flag", True, True),
        ("text", "8", "8"),
        ("texts", ["a"], ["a"]),
        ("wholes", (1, 2.0), [1, 2]),
        ("mapping", '{"a": 1}', {"a": 1}),
        ("mapping", {"a": 1}, {"a": 1}),
        ("mapping", None, None),
        ("colour", "blue", "blue"),
        ("colour", Colour.RED, Colour.RED),
    ],
)
def test_what_fits(name, value, expected):
    found = check_types(Fields, {name: value})[name]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("whole", 1.5, "whole=1.5 must be a whole number"),
        ("whole", "8", "whole='8' must be a whole number"),
        ("whole", True, "whole=True must be a whole number"),
        ("whole", None, "whole=null is not allowed: leave it out, or use a whole number"),
        ("whole", float("nan"), "whole=nan must be a whole number"),
        ("number", "fast", "number='fast' must be a number"),
        ("number", "nan", "number='nan' must be a number"),
        ("number", [0.1], r"number=\[0.1\] must be a number"),
        ("flag", [1], r"flag=\[1\] must be true or false"),
        ("flag", "yes", "flag='yes' must be true or false"),
        ("flag", 1, "flag=1 must be true or false"),
        ("text", 8, "text=8 must be text"),
        ("texts", "a", r"texts='a' must be a list: write \[a\]"),
        ("wholes", 3, r"wholes=3 must be a list: write \[3\]"),
        ("wholes", [1.5], "wholes=1.5 must be a whole number"),
        ("mapping", "{bad", "mapping='{bad' is not a JSON object of names and values"),
        ("mapping", "[1]", "is not a JSON object of names and values"),
        ("mapping", 5, "mapping=5 must be a mapping or text"),
    ],
)
def test_what_does_not(name, value, message):
    with pytest.raises(InputError, match=message):
        check_types(Fields, {name: value})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
KINDS = (ModelOptions, DataOptions, RunOptions, SmtTrainingArguments, DmtTrainingArguments, BpttTrainingArguments)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.data(), VALUES)
def test_any_value_of_any_field_is_typed_or_refused_by_name(kind, data, value):
    name = data.draw(st.sampled_from([each.name for each in fields(kind)]))
    try:
        check_types(kind, {name: value})
    except InputError as error:
        assert str(error).startswith(f"{name}=")


def test_types_of_todays_defaults():
    for kind in KINDS:
        instance = kind("x") if "output_dir" in {each.name for each in fields(kind)} else kind()
        check_types(kind, {each.name: getattr(instance, each.name) for each in fields(kind) if each.init})


def test_did_you_mean():
    assert did_you_mean("temprature", ["temperature", "top_p"]) == "did you mean 'temperature'?"
    assert did_you_mean("xyz", ["temperature"]) is None
    assert as_type("x", 5, int | None) == 5
