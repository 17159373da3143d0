"""Reading the texts of one local file: text, JSON, JSON lines or Parquet, the first three also compressed."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from ..errors import InputError, one_line

TEXT, PARQUET = ".txt", ".parquet"
FORMATS = (TEXT, ".jsonl", ".json", PARQUET)
OPENERS = {
    "": open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path, mode: pyarrow.input_stream(str(path), compression="zstd"),
}
EXPECTED = f"one of {', '.join(FORMATS)}; all but {PARQUET} may be compressed ({', '.join(filter(None, OPENERS))})"
READ_CHARACTERS = 1 << 20
READ_ROWS = 1000
SHOWN_COLUMNS = 20


def local_path(source: str | os.PathLike) -> Path | None:
    """The file or folder of that name, `~` expanded; `None` if there is none.

    Raises:
        InputError: for a name that no file can have, and for a path without permission to read it.
    """
    try:
        path = Path(source).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RuntimeError) as error:  # too long, forbidden; a NUL in it; no such home
        raise InputError(f"cannot read {str(source)[:200]!r}: {_reason(error)}: check the path") from error
    return path


def file_format(path: Path) -> tuple[str, str] | None:
    """The format and the compression that a file's name ends in, as in `(".jsonl", ".gz")` or `(".txt", "")`.

    `None` if the name says neither, or says a compressed Parquet file.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = suffixes.pop() if suffixes and suffixes[-1] in OPENERS else ""
    kind = suffixes[-1] if suffixes else ""
    if kind not in FORMATS or (kind == PARQUET and compression):
        return None
    return kind, compression


def file_texts(
    path: Path, text_column: str = "text", separator: str = "<|endoftext|>", default: str | None = None
) -> Iterator[str | None]:
    """Return an iterator over the texts of a file, unchanged; a text may be empty or null.

    Args:
        path: the file. A byte order mark at its beginning is skipped; line breaks are kept as they are.
        text_column: the column with the text, the only one that is read (all formats but `.txt`).
        separator: the text between the documents of a `.txt` file.
        default: the format of a file whose name does not tell it; `None` refuses such a file.

    Raises:
        InputError: on iteration, naming the file and the line or row: for a name of no known format, contents that
            cannot be read, a row without the column, and a text that is not a string.
    """
    kind, compression = file_format(path) or (default, path.suffix.lower() if path.suffix.lower() in OPENERS else "")
    if kind is None:
        suffix = "".join(path.suffixes[-2:] if path.suffix.lower() in OPENERS else path.suffixes[-1:])
        raise InputError(f"{str(path)!r} has the extension {suffix!r}: pass {EXPECTED}")
    try:
        if kind == PARQUET:
            yield from row_texts(_parquet_rows(path, text_column), text_column, repr(str(path)))
            return
        with OPENERS[compression](path, "rb") as binary:
            # newline="\n": nothing is translated, and a line ends at "\n" alone
            with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="\n") as file:
                if kind == TEXT:
                    yield from _split(file, separator)
                else:
                    yield from row_texts(_json_rows(file), text_column, repr(str(path)))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{str(path)!r} is not UTF-8 (byte {byte:#04x}): {_encoding_remedy(path)}") from error
    except _JsonError as error:
        raise InputError(f"{str(path)!r}, {error}: fix or remove it") from error
    except (OSError, EOFError, KeyError, zlib.error, lzma.LZMAError, pyarrow.ArrowException) as error:
        raise InputError(
            f"cannot load {str(path)!r}: {_reason(error)}: check that it is readable and complete"
        ) from error


def _split(file: io.TextIOBase, separator: str) -> Iterator[str]:
    """Split a text at the separator, reading a piece at a time."""
    pieces, tail = [], ""  # of the current document: what is finished, and what may end in half a separator
    while text := file.read(READ_CHARACTERS):
        *ended, rest = (tail + text).split(separator)
        for last_piece in ended:
            yield "".join([*pieces, last_piece])
            pieces = []
        cut = max(len(rest) - len(separator) + 1, 0)
        pieces.append(rest[:cut])
        tail = rest[cut:]
    yield "".join([*pieces, tail])


# ---- rows: where they are, and what is in them -------------------------------------------------------------------


def row_texts(rows: Iterable[tuple[str, object]], text_column: str, name: str) -> Iterator[str | None]:
    """The texts of rows, each given with its place; a row may also be the text itself.

    Raises:
        InputError: naming the source and the place of a row without the column, or with something else in it.
    """
    for place, row in rows:
        text = row
        if isinstance(row, dict):
            if text_column not in row:
                columns = ", ".join(itertools.islice(row, SHOWN_COLUMNS)) or "none"
                raise InputError(
                    f"{name}, {place} has no column {text_column!r}: set text_column to one of its columns ({columns}), or remove the row"
                )
            text = row[text_column]
        if text is not None and not isinstance(text, str):
            kind = type(text).__name__
            raise InputError(f"{name}, {place} has {kind} in column {text_column!r}: use strings")
        yield text


def _parquet_rows(path: Path, text_column: str) -> Iterator[tuple[str, dict]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if text_column not in names:
            yield "row 1", dict.fromkeys(names)
        numbers = itertools.count(1)
        for batch in file.iter_batches(READ_ROWS, columns=[text_column]):
            for text in batch.column(text_column).to_pylist():
                yield f"row {next(numbers)}", {text_column: text}


class _JsonError(Exception):
    """Where a file is not JSON, and why."""


_decode = json.JSONDecoder().raw_decode
_blank = re.compile(r"[ \t\r\n]*")


def _json_rows(file: io.TextIOBase) -> Iterator[tuple[str, object]]:
    """The values of JSON lines, read line by line; an array, or values that span several lines, are read whole."""
    number, first = 1, file.read(1)
    while first.isspace():
        number += first == "\n"
        first = file.read(1)
    line = first + file.readline()
    if first == "[":
        values, *more = _values(line + file.read(), "the array")
        if more:
            raise _JsonError("the array: JSON parse error: there is more text after its end")
        yield from ((f"row {row}", value) for row, value in enumerate(values, 1))
    elif _goes_on(line):
        values = _values(line + file.read(), "after the first row")
        yield from ((f"row {row}", value) for row, value in enumerate(values, 1))
    else:
        while line:
            place = f"line {number}"
            yield from ((place, value) for value in _values(line, place))
            number, line = number + 1, file.readline()


def _goes_on(line: str) -> bool:
    """Whether the first line ends within a value."""
    try:
        _decode(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip())
    except (ValueError, RecursionError):
        pass
    return False


def _values(text: str, place: str) -> Iterator[object]:
    """The consecutive JSON values in a text."""
    start = _blank.match(text).end()
    while start < len(text):
        try:
            value, start = _decode(text, start)
        except (ValueError, RecursionError) as error:
            raise _JsonError(f"{place}: JSON parse error: {_reason(error)}") from error
        yield value
        start = _blank.match(text, start).end()


# ---- messages ---------------------------------------------------------------------------------------------------------


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or one_line(error) or type(error).__name__)[:300]


def _encoding_remedy(path: Path) -> str:
    """What to do about a file that is not UTF-8: some are not text at all."""
    start = b""
    if path.is_file():  # not a pipe, which cannot be read twice
        with open(path, "rb") as file:
            start = file.read(6)
    compressed = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst", b"PK": ".zip"}
    for magic, suffix in compressed.items():
        if start.startswith(magic) and path.suffix.lower() not in OPENERS:
            return f"it looks like a compressed {suffix} file; unpack it, or add the extension {suffix} to its name"
    return "convert it, for example with iconv, or leave it out if it is not text"
