"""The file that a finished stage leaves: its settings, measurements and scores."""

import json
import os
from pathlib import Path

from ..errors import InputError
from ..utils.differences import differences

RESULT = "result.json"


def read_result(folder: Path, settings: dict) -> dict | None:
    """The result of a finished stage; `None` if there is none.

    Raises:
        InputError: if it is damaged, or was made with other settings.
    """
    file = folder / RESULT
    if not file.is_file():
        return None
    result = load_result(file)
    found = differences(result["settings"], json.loads(json.dumps(settings)))
    if found:
        name, (old, new) = next(iter(found.items()))
        raise InputError(
            f"{str(file)!r} was made with different settings ({name}: {old!r}, now {new!r}): choose another output_dir, or remove "
            f"{str(folder)!r} and the stages that continue from it to train them again"
        )
    return result


def load_result(file: Path) -> dict:
    """Loads a result file.

    Raises:
        InputError: if it is damaged.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        result["settings"]["stages"], result["trace"][-1]["steps"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"{str(file)!r} is damaged: remove {str(file.parent)!r} to train the stage again") from error
    return result


def write_result(folder: Path, result: dict) -> dict:
    """Writes a result, completely or not at all, and returns it as it will be read."""
    text = json.dumps(result) + "\n"
    unfinished = folder / f"{RESULT}.part"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, folder / RESULT)
    return json.loads(text)
