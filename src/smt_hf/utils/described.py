"""Builds the docstrings of options classes from the `help` texts of their fields."""

import inspect
import textwrap
from dataclasses import fields

from transformers import TrainingArguments


def described(kind: type) -> type:
    """Adds an Args section to a dataclass of training arguments: every field that it adds to `TrainingArguments` or changes.

    A class decorator, to be applied outside of `dataclass`. The texts are the fields' own `help`, so they are written only once.

    Raises:
        TypeError: if a field has no `help`.
    """
    classes = kind.__mro__[: kind.__mro__.index(TrainingArguments)]
    own = {name for each in classes for name in inspect.get_annotations(each)}
    entries = []
    for field in fields(kind):
        if field.name not in own:
            continue
        if not field.metadata.get("help"):
            raise TypeError(f"{kind.__name__}.{field.name} has no help: describe it in its metadata")
        entries.append(textwrap.fill(f"{field.name}: {field.metadata['help']}", 110, subsequent_indent="    "))
    section = "Args:\n" + textwrap.indent("\n".join(entries), "    ")
    kind.__doc__ = f"{inspect.getdoc(kind)}\n\n{section}\n"
    return kind
