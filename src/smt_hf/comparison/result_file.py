"""The file that a finished stage leaves: its settings, measurements and scores."""

import json
import os
from pathlib import Path

from ..errors import InputError

RESULT = "result.json"


def read_result(folder: Path, settings: dict) -> dict | None:
    """The result of a finished stage, or `None`.

    Raises:
        InputError: if it was made with other settings.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    difference = first_difference(result["settings"], json.loads(json.dumps(settings)))
    if difference is not None:
        raise InputError(
            f"{str(file)!r} was made with other settings ({difference}): choose another output_dir, or remove {str(folder)!r} "
            "and what went on from it to train it anew"
        )
    return result


def write_result(folder: Path, result: dict) -> dict:
    """Writes a result, whole or not at all, and returns it as it is read."""
    text = json.dumps(result) + "\n"
    unfinished = folder / f"{RESULT}.part"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / RESULT)
    return json.loads(text)


def first_difference(old, new, name: str = "") -> str | None:
    """Where two nested values of JSON first differ, and what stands there: `name: old, now new`; `None` if nowhere."""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {key: (old.get(key), new.get(key)) for key in [*new, *old]}
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = dict(enumerate(zip(old, new, strict=True)))
    else:
        return None if old == new else f"{name}: {old!r}, now {new!r}"
    found = (first_difference(*pair, f"{name}.{key}".lstrip(".")) for key, pair in pairs.items())
    return next(filter(None, found), None)
