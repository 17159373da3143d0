"""Folders that appear complete or not at all: written under another name, and removed if the writer was killed."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_name = re.compile(r"(\..+\.[0-9a-f]{32})(\.old)?")


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, hidden and locked; removed at the end unless it is published."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with FileLock(_lock(draft)):  # held before there is a draft and as long as the writer lives
        try:
            draft.mkdir()
            yield draft
        finally:
            _remove(draft)


def publish(draft: Path, path: Path) -> None:
    """Moves a draft to `path`, in place of any folder that is there."""
    while True:
        try:
            draft.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        with suppress(FileNotFoundError):  # another process may have removed it
            path.rename(_old(draft))
            shutil.rmtree(_old(draft), ignore_errors=True)


def remove_drafts(folder: Path, file_names: Collection[str]) -> None:
    """Removes the drafts of killed writers in a folder: those whose lock nobody holds.

    Args:
        folder: where to look.
        file_names: what a draft may hold; a folder with anything else in it is left alone.
    """
    for draft in {folder / match[1] for match in map(_name.fullmatch, os.listdir(folder)) if match}:
        with suppress(Timeout, OSError):  # alive, another user's, or just published
            held = {file.name for place in (draft, _old(draft)) if place.is_dir() for file in place.iterdir()}
            if held <= set(file_names):
                with FileLock(_lock(draft), timeout=0):
                    _remove(draft)


def _remove(draft: Path) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(_old(draft), ignore_errors=True)
    with suppress(OSError):
        _lock(draft).unlink()


def _old(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.old")


def _lock(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.lock")
