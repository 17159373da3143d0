"""Classes of the caller's own, named in a recipe or a flag."""

import importlib
import os
import sys

from ..errors import InputError, one_line


def load_object(name: str):
    """Imports what `"module:Name"` names.

    Modules of the working directory are found too, as with `python -m`. Only for names that the user has written: a name that
    came with a download must not decide what is imported.

    Raises:
        InputError: if there is no such module, it fails, or it has no such name.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise InputError(f"{name!r} is no class: write 'module:Class'")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise InputError(f"{name!r}: the module {module!r} cannot be imported ({one_line(error)})") from error
    if not hasattr(found, attribute):
        raise InputError(f"{name!r}: the module {module!r} has no {attribute!r}: check the name")
    return getattr(found, attribute)
