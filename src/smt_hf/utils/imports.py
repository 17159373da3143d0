"""Imports users' own classes, named in a recipe or a flag."""

import importlib
import os
import sys

from ..errors import InputError, one_line

asked_for: list[str] = []  # modules imported this way, for child processes to import too


def load_module(name: str):
    """Imports a module, which may be in the working directory, as with `python -m`.

    Only for names that the user has written: a name from a download must not decide what is imported.

    Raises:
        InputError: if there is no such module, or it fails.
    """
    if not name or name.startswith(("-", ".")):
        raise InputError(f"{name!r} is not a module: write its name, such as my_cells")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise InputError(f"the module {name!r} cannot be imported ({one_line(error)}): check the name") from error
    asked_for.append(name)
    return module


def load_object(name: str):
    """The object named by `"module:Name"`. Raises the errors of [`load_module`]."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"{name!r} is not a class: write 'module:Class'")
    found = load_module(module)
    if not hasattr(found, attribute):
        raise InputError(f"{name!r}: the module {module!r} has no {attribute!r}: check the name")
    return getattr(found, attribute)
