"""One run in one folder at a time."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

LOCK = ".smt_hf.lock"
_held: dict[str, FileLock] = {}


def hold_folder(folder: str | Path) -> None:
    """Makes a folder and keeps other processes out of it until [`release_folders`], or this process's end, however it ends.

    Raises:
        InputError: if another process holds it.
        OSError: if it cannot be made or written to.
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
            f"another run is writing to output_dir={str(folder)!r}: wait for its end, or give another folder"
        ) from error
    _held[key] = lock


def release_folders() -> None:
    """Lets other processes into all folders that this one holds."""
    while _held:
        _, lock = _held.popitem()
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # while it is held: who opens it next makes a new one
        lock.release()
