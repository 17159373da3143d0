"""Classes of the caller's own, named in a recipe or a flag."""

import importlib
import os
import sys

from ..errors import InputError, one_line

asked_for: list[str] = []  # modules that were imported this way, for processes of one's own to import too


def load_module(name: str):
    """Imports a module, which may be in the working directory, as with `python -m`.

    Only for names that the user has written: a name that came with a download must not decide what is imported.

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
    """What `"module:Name"` names; raises as [`load_module`] does."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"{name!r} is not a class: write 'module:Class'")
    found = load_module(module)
    if not hasattr(found, attribute):
        raise InputError(f"{name!r}: the module {module!r} has no {attribute!r}: check the name")
    return getattr(found, attribute)
