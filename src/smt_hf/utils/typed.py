"""Checks values from recipes against the types of the dataclass fields that they are meant for."""

import difflib
import json
import math
import os
import types
import typing
from collections.abc import Iterable
from enum import Enum

from ..errors import InputError

WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
}


def check_types(kind: type, values: dict) -> dict:
    """Converts a recipe's values to the types of a dataclass's fields.

    A `float` may be given as a whole number, or as a number in text (YAML reads `1e-3` as text), and a `dict` as the JSON text of
    an object. Nothing else is converted.

    Args:
        kind: the dataclass.
        values: the values by field name; names that are not fields are not changed.

    Raises:
        InputError: naming the first value of the wrong type.
    """
    hints = typing.get_type_hints(kind)
    return {name: as_type(name, value, hints[name]) if name in hints else value for name, value in values.items()}


def as_type(name: str, value, hint):
    """Converts one value to the type `hint`. Raises the errors of [`check_types`]."""
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    mapping = dict in map(_plain, choices)
    for choice in choices:
        fits, converted = _fit(name, value, choice)
        if fits and not (mapping and isinstance(converted, str) and not os.path.isfile(converted)):
            return converted
    if value is None:
        raise InputError(f"{name}=null is not allowed: leave it out, or use {_words(choices)}")
    if mapping and isinstance(value, str):
        raise InputError(f"{name}={value!r} is not a JSON object of names and values: write it like '{{\"name\": 1}}'")
    if list in map(_plain, choices):
        raise InputError(f"{name}={value!r} must be a list: write [{value}]")
    raise InputError(f"{name}={value!r} must be {_words(choices)}")


def _plain(choice):
    return typing.get_origin(choice) or choice


def _fit(name: str, value, choice) -> tuple[bool, object]:
    plain = _plain(choice)
    if plain is typing.Literal:
        return value in typing.get_args(choice), value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if plain in (type(None), None):
        return value is None, None
    if plain is typing.Any or not isinstance(plain, type):
        return True, value
    if plain is float:
        return (True, float(value)) if number or is_number_as_text(value) else (False, None)
    if plain is int:
        whole = number and (isinstance(value, int) or value.is_integer())
        return whole, int(value) if whole else None
    if plain is dict and isinstance(value, str):
        value = _json_object(value)
    if plain is dict and hasattr(value, "to_dict"):  # transformers has turned the mapping into an object
        return True, value
    if plain is list and isinstance(value, list | tuple):
        items = typing.get_args(choice)
        return True, [as_type(name, item, items[0]) for item in value] if items else list(value)
    if issubclass(plain, Enum):
        return isinstance(value, str | plain), value
    return isinstance(value, plain), value


def _json_object(text: str):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _words(choices: Iterable) -> str:
    words = []
    for choice in choices:
        if _plain(choice) is typing.Literal:
            words.append(f"one of {', '.join(map(str, typing.get_args(choice)))}")
        else:
            words.append(WORDS.get(_plain(choice), "text" if _is_enum(choice) else None))
    return " or ".join(dict.fromkeys(word for word in words if word))


def _is_enum(choice) -> bool:
    return isinstance(choice, type) and issubclass(choice, Enum)


def is_number_as_text(value) -> bool:
    """Whether a value is text that reads as a number, such as YAML's 1e-3, which lacks a point."""
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint such as `did you mean 'temperature'?`, with the nearest known name; `None` if none is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else None
