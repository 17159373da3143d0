"""Checks of the values in a recipe, before any conversion."""

import dataclasses
import json

from ..errors import InputError
from ..utils.renamed import hint_for


def mapping(name: str, value) -> dict:
    """The value of a field that is a mapping, or JSON text of one; empty for `None`.

    Raises:
        InputError: if it is neither.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InputError(f"{name}={value!r} is not JSON ({error}): fix it") from error
    if not isinstance(value, dict):
        raise InputError(f"{name}={value!r} must be a mapping of names to values")
    return value


def check_list(name: str, values, kind, distinct: bool = True) -> None:
    """Checks that a field is a list of one kind of values.

    Raises:
        InputError: if it is not a list, is empty, or has an item of another kind or, with `distinct`, the same item twice.
    """
    if not isinstance(values, list | tuple):
        raise InputError(f"{name}={values!r} must be a list: write [{values}]")
    if not values:
        raise InputError(f"{name} is empty: give at least one")
    for value in values:
        if not (isinstance(value, str) if kind is str else is_number(value, kind)):
            words = {str: "text", int: "a whole number"}.get(kind, "a number")
            raise InputError(f"{name}={values}: {value!r} must be {words}")
        if distinct and values.count(value) > 1:
            raise InputError(f"{name}={values}: {value!r} appears twice: list it once")


def check_fields(where: str, values: dict, *classes: type, elsewhere: dict) -> None:
    """Checks that names are fields of one of these dataclasses.

    Args:
        where: what the names belong to.
        values: the values by name.
        classes: the dataclasses.
        elsewhere: by name, where to set what cannot be set here.

    Raises:
        InputError: naming the first name that is not a field, or that is set elsewhere.
    """
    known = [field.name for kind in classes for field in dataclasses.fields(kind)]
    for name in values:
        if name in elsewhere:
            raise InputError(f"{where}: {name} cannot be set here: {elsewhere[name]}")
        if name not in known:
            hint = hint_for(name, known) or f"see {', '.join(kind.__name__ for kind in classes)}"
            raise InputError(f"{where}: unknown field {name!r}: {hint}")


def is_number(value, kinds=(int, float)) -> bool:
    """Whether a value is a number of these kinds; `True` and `False` are not."""
    return isinstance(value, kinds) and not isinstance(value, bool)
