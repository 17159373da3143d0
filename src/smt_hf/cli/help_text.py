"""What `--help` says about a flag, and how it is laid out."""

import argparse
import textwrap
from enum import Enum

from transformers.hf_argparser import string_to_bool

from ..utils.bounds import bounds_of

METAVARS = {int: "N", float: "X", string_to_bool: "BOOL"}


class HelpFormatter(argparse.HelpFormatter):
    """Shows one spelling of each flag, and wraps paragraphs to the terminal; example lines stay as they are."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28)

    def _format_action_invocation(self, action) -> str:
        names = action.option_strings if action.dest == "help" else action.option_strings[:1]
        words = ", ".join(names)
        if action.nargs == 0:
            return words
        words = f"{words} {self._format_args(action, action.metavar)}"
        return f"{action.metavar}, {words}" if action.metavar == action.dest.upper() else words

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (
            part if "\n  " in part else textwrap.fill(part, width, initial_indent=indent, subsequent_indent=indent)
            for part in text.split("\n\n")
        )
        return "\n\n".join(paragraphs)


def describe(action: argparse.Action, required: bool, positional: bool) -> None:
    """Completes a flag's help: its bounds, choices and default, and a short word for its value."""
    notes = []
    if action.choices:
        notes.append(f"one of {', '.join(map(str, action.choices))}")
    if (bounds := bounds_of(action.dest)) is not None:
        notes.append(bounds)
    notes.append("required" if required else f"default: {shown(action.default)}")
    text = (action.help or "").replace("%%", "%").rstrip().rstrip(".")
    action.help = f"{text} ({'; '.join(notes)}).".replace("%", "%%")
    action.metavar = METAVARS.get(action.type, "NAME" if action.choices else "TEXT")
    if positional:
        action.metavar = action.dest.upper()


def shown(default) -> str:
    """A default as you would write it in a recipe or after a flag."""
    if default is None or default == []:
        return "none"
    if isinstance(default, Enum):
        return str(default.value)
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list):
        return " ".join(map(shown, default))
    return "''" if default == "" else str(default)
