"""The document files in a folder, and their splits if it is laid out by splits."""

import functools
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.data_files import NON_WORDS_CHARS, SPLIT_KEYWORDS, DataFilesDict, sanitize_patterns
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from ..errors import InputError, one_line
from .files import EXPECTED, file_format, local_path

NO_DATA = {  # files that may accompany files of documents, in lower case
    "readme", "readme.md", "license", "license.md", "citation.cff", "thumbs.db", "desktop.ini",
    "config.json", "dataset_info.json", "dataset_infos.json",
}  # fmt: skip
KEYWORDS = {keyword: str(split) for split, keywords in SPLIT_KEYWORDS.items() for keyword in keywords}
SHOWN_FILES = 5
_keyword = re.compile(rf"(?:^|(?<=[{NON_WORDS_CHARS}]))({'|'.join(KEYWORDS)})(?=[{NON_WORDS_CHARS}]|$)")
_between = re.compile(r"\d+([-_ ]of[-_ ]\d+)?|[\W_]+")
_sharded = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")

logger = logging.getLogger(__name__)
say_once = functools.lru_cache(maxsize=None)(logger.warning)


def folder_files(folder: Path, split: str, config_name: str | None = None) -> list[Path]:
    """Return the document files of one split of a folder, sorted by path.

    All files in the folder and its subfolders count, except hidden ones, those that begin with two underscores, token
    caches, and a few such as `README.md` and `LICENSE`. Together they are the split `train`, unless the folder is
    laid out by splits as the `datasets` library documents it: by `configs` in the metadata of its `README.md`, or by
    the names of *all* its folders or files, as in `train/` and `test/`, `train.txt` and `valid.txt`, or
    `my_train_1.jsonl` and `my_test_1.jsonl`. Files that are left out are logged.

    Raises:
        InputError: for a file of another format, a folder without files, a split or configuration that does not exist, and
            names that may or may not mean splits.
    """
    files = data_files(folder)
    splits = _described_splits(folder, config_name) or _named_splits(folder, files) or {"train": files}
    if split not in splits:
        raise InputError(f"{str(folder)!r} has no split {split!r}: choose one of {', '.join(splits)}")
    left_out = sorted(set(files).difference(splits[split]))
    if left_out:
        say_once(
            f"{str(folder)!r} is laid out by splits ({', '.join(splits)}): {split} is {_names(folder, splits[split])}; "
            f"{_names(folder, left_out)} is left out"
        )
    return splits[split]


def data_files(folder: Path) -> list[Path]:
    """All document files in a folder and its subfolders; raises as [`folder_files`] does."""
    found = sorted(_walk(folder, {folder.resolve()}), key=lambda file: file.relative_to(folder).parts)
    unknown = [file for file in found if file_format(file) is None or not file.is_file()]
    if unknown:
        raise InputError(
            f"{str(folder)!r} contains files that cannot be read: {_names(folder, unknown)}; convert them or move them "
            f"elsewhere: a file of documents is {EXPECTED}"
        )
    if not found:
        raise InputError(f"{str(folder)!r} contains no data files: add {EXPECTED}")
    return found


def _names(folder: Path, files: list[Path]) -> str:
    names = [repr(os.path.relpath(file, folder)) for file in files[:SHOWN_FILES]]
    more = len(files) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
        if {"meta.json", "tokens.bin"} <= {entry.name for entry in entries}:  # a token cache
            return
        for entry in entries:
            if entry.name.startswith((".", "__")) or entry.name.lower() in NO_DATA or entry.name.endswith(".lock"):
                continue
            path = Path(entry.path)
            if not entry.is_dir():
                if local_path(path) is None:
                    raise InputError(f"{str(path)!r} is a link to a file that does not exist: fix or remove it")
                yield path
            elif (real := path.resolve()) not in seen:  # links may lead in circles
                yield from _walk(path, seen | {real})
    except OSError as error:
        raise InputError(f"cannot read {str(folder)!r}: {error.strerror}: check the folder's permissions") from error


# ---- splits --------------------------------------------------------------------------------------------------------


def _described_splits(folder: Path, config_name: str | None) -> dict[str, list[Path]] | None:
    """The files of every split of a configuration in the metadata of a `README.md`; `None` without such metadata."""
    readme, configs, files = folder / "README.md", MetadataConfigs(), {}
    try:
        if readme.is_file():
            configs = MetadataConfigs.from_dataset_card_data(
                DatasetCard.load(readme, ignore_metadata_errors=True).data
            )
        name = config_name or (configs.get_default_config_name() if configs else None)
        config = configs.get(name, {})
        if "data_files" in config:
            base = str(folder / config.get("data_dir", ""))
            files = DataFilesDict.from_local_or_remote(sanitize_patterns(config["data_files"]), base)
    except Exception as error:  # whatever the metadata hold
        raise InputError(f"{str(readme)!r} lists files that cannot be read: {one_line(error)[:300]}") from error
    if configs and name is None:
        raise InputError(f"{str(folder)!r} has several configurations: set config_name to one of {', '.join(configs)}")
    if config_name is not None and config_name not in configs:
        there = ", ".join(configs) or "none, so leave config_name out"
        raise InputError(
            f"{str(folder)!r} has no configuration {config_name!r}: choose one that its README.md lists ({there})"
        )
    splits = {split: [Path(file) for file in found] for split, found in files.items()}
    for file in itertools.chain.from_iterable(splits.values()):
        if local_path(file) is None or file_format(file) is None:
            raise InputError(f"{str(readme)!r} lists {str(file)!r}, which does not exist or is not {EXPECTED}")
    return splits or None


def _named_splits(folder: Path, files: list[Path]) -> dict[str, list[Path]] | None:
    """The files of every split if the folders or the names of all files name splits, else `None`."""
    paths = [file.relative_to(folder) for file in files]
    sharded = [_sharded.fullmatch(path.as_posix()) for path in paths]
    if all(sharded):
        return _grouped([match[1] for match in sharded], files)
    by_folder = [_word(path.parts[:-1]) for path in paths]
    by_name = [_word([path.name[: -len("".join(file_format(path)))]]) for path in paths]
    for words in (by_folder, by_name):
        if None in words:
            continue
        rests = {split: {rest for name, rest in words if name == split} for split, _ in words}
        if len(rests) == 1 and any(map(any, rests.values())):
            continue  # all files have a word such as "test" in their names, and none is left out
        if not any(all(few <= many for few in rests.values()) for many in rests.values()):
            # such as 'a-train-ride.txt' and 'a-taste-test.txt', not 'my-train-1.txt' and 'my-test-1.txt'
            raise _unclear(folder, words, files)
        return _grouped([split for split, _ in words], files)
    words = [folder_word or name_word for folder_word, name_word in zip(by_folder, by_name, strict=True)]
    if len({split for split, rest in filter(None, words) if not rest}) > 1:
        # such as train.txt, test.txt and notes.txt
        raise _unclear(folder, words, files)
    return None


def _word(names: Sequence[str]) -> tuple[str, str] | None:
    """The one split that the names of folders or a file contain, and the rest of that name without numbers."""
    found = [(KEYWORDS[match[1]], match) for name in names for match in _keyword.finditer(name)]
    if len({split for split, _ in found}) != 1:
        return None
    split, match = found[0]
    before, after = match.string[: match.start()], match.string[match.end() :]
    rest = [_between.sub(" ", text).strip() for text in (before, after)]
    return split, " * ".join(rest) if any(rest) else ""


def _grouped(splits: list[str], files: list[Path]) -> dict[str, list[Path]]:
    known = list(dict.fromkeys(KEYWORDS.values()))
    order = sorted(set(splits), key=lambda split: (known.index(split) if split in known else len(known), split))
    return {split: [file for file, name in zip(files, splits, strict=True) if name == split] for split in order}


def _unclear(folder: Path, words: list[tuple[str, str] | None], files: list[Path]) -> InputError:
    examples = {word[0] if word else "none": file for word, file in reversed(list(zip(words, files, strict=True)))}
    said = ", ".join(f"{_names(folder, [file])} in {split}" for split, file in examples.items())
    return InputError(
        f"{str(folder)!r} may or may not be laid out by splits ({said}): put the files of each split into a folder with "
        "its name, such as train or test, or name no file after a split"
    )
