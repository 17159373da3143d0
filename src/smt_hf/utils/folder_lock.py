"""Lets only one run at a time use a folder."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

LOCK = ".smt_hf.lock"
_held: dict[str, FileLock] = {}


def hold_folder(folder: str | Path) -> None:
    """Creates a folder and keeps other processes out of it until [`release_folders`] or the end of this process.

    Raises:
        InputError: if another process holds it.
        OSError: if it cannot be created or written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    key = str(folder.resolve())
    if key in _held:
        return
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"another run is writing to output_dir={str(folder)!r}: wait until it ends, or choose another folder"
        ) from error
    _held[key] = lock


def release_folders() -> None:
    """Unlocks all folders that this process holds."""
    while _held:
        _, lock = _held.popitem()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # while it is held: the next process creates a new one
        lock.release()
