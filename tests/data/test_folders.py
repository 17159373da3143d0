"""What a folder holds, all of it, and when it is laid out by splits."""

import gzip
import json
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smt_hf.data import build_token_cache, byte_tokenizer, cached_tokens, iter_documents
from smt_hf.data.folders import data_files
from smt_hf.errors import InputError
from tests.data.test_files import COMPRESSIONS, FORMS, words


def fill(folder, names):
    """Files whose one document is their name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.name if ".json" not in name else json.dumps({"text": file.name, "n": len(name)})
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder


def read(folder, **options):
    return sorted(iter_documents(folder, **options))


def base(names):
    return sorted(name.rpartition("/")[2] for name in names)


WHOLES = [
    ["cats.txt", "dogs.txt", "a-train-ride.txt"],
    ["cats.txt", "a-taste-test.txt"],
    ["cats.txt", "a-train-ride.txt", "a-taste-test.txt"],
    ["cats.jsonl", "dev-diary.jsonl"],
    ["a-taste-test.txt"],
    ["a-taste-test-1.txt", "a-taste-test-2.txt"],
    ["contest.txt", "trained.txt", "invalid.txt", "evaluate.txt"],
    ["train.txt", "cats.txt"],
    ["my test/cats.txt", "my test/dogs.txt"],
    ["cats/a.txt", "dogs/b.txt", "dev/c.txt"],
    ["Train.txt", "Test.txt"],
    ["a.txt", "b.jsonl", "c.json", "d.txt.gz", "e.jsonl.gz", "deep/er/f.txt"],
]


@pytest.mark.parametrize("names", WHOLES)
def test_one_whole(tmp_path, names, caplog):
    assert read(fill(tmp_path, names)) == base(names)
    assert not caplog.records
    with pytest.raises(InputError, match="has no split 'test': choose one of train"):
        iter_documents(tmp_path, split="test")


LAYOUTS = [
    {"train": ["train.txt"], "validation": ["valid.jsonl.gz"], "test": ["test.json"]},
    {"train": ["training-0.txt", "training-1.txt"], "test": ["testing.txt"]},
    {"train": ["my_train_file_1.jsonl", "my_train_file_2.jsonl"], "test": ["my_test_file_1.jsonl"]},
    {"train": ["TinyStories-train.txt"], "validation": ["TinyStories-valid.txt"]},
    {"train": ["train-clean.txt", "train-other.txt"], "validation": ["dev-clean.txt"]},
    {"train": ["train/a.txt", "train/deep/test.txt"], "test": ["test/b.txt"]},
    {"train": ["data/my-train/a.txt"], "test": ["data/my-test/a2.txt"]},
    {"train": ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"], "odd": ["data/odd-00000-of-00001.jsonl"]},
    {"train": ["news/train.txt"], "test": ["books/eval.txt"]},
    {"test": ["test.txt"]},
    {"validation": ["dev/a.txt", "dev/b.txt"]},
]  # fmt: skip


@pytest.mark.parametrize("splits", LAYOUTS)
def test_layouts_of_datasets(tmp_path, splits, caplog):
    fill(tmp_path, [name for names in splits.values() for name in names])
    for split, names in splits.items():
        caplog.clear()
        assert read(tmp_path, split=split) == base(names)
        left_out = [name for other, names in splits.items() if other != split for name in names]
        assert bool(caplog.records) == bool(left_out)
        assert all(os.path.join(*name.split("/")) in caplog.text for name in left_out)
    with pytest.raises(InputError, match=f"has no split 'none': choose one of {', '.join(splits)}$"):
        iter_documents(tmp_path, split="none")


@pytest.mark.parametrize(
    "names",
    [
        ["a-train-ride.txt", "a-taste-test.txt"],
        ["train-of-thought.txt", "test-of-time.txt"],
        ["train.txt", "test.txt", "notes.txt"],
        ["train/a.txt", "test/b.txt", "c.txt"],
        ["train.txt", "valid_small.txt"],
    ],
)
def test_names_that_may_mean_splits_or_not(tmp_path, names):
    with pytest.raises(InputError, match="may or may not be laid out by splits") as caught:
        iter_documents(fill(tmp_path, names))
    assert all(name in str(caught.value) for name in names[:2])


def test_said_once(tmp_path, caplog):
    fill(tmp_path, ["train.txt", "test.txt"])
    for _ in range(3):
        iter_documents(tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "train is 'train.txt'; 'test.txt' is left out" in record.message


def test_splits_described_in_the_readme(tmp_path):
    fill(tmp_path, ["cats.txt", "dogs.txt", "old/birds.txt", "more.jsonl"])
    readme = tmp_path / "README.md"
    readme.write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [cats.txt, more.jsonl]\n"
        "  - split: held\n    path: '*gs.txt'\n- config_name: old\n  data_files: old/*\n---\nA corpus.\n"
    )
    assert read(tmp_path) == ["cats.txt", "more.jsonl"]
    assert read(tmp_path, split="held") == ["dogs.txt"]
    assert read(tmp_path, config_name="old") == ["birds.txt"]
    with pytest.raises(InputError, match="has no split 'test': choose one of train, held"):
        iter_documents(tmp_path, split="test")
    with pytest.raises(
        InputError, match=r"has no configuration 'new': choose one that its README.md lists \(default, old\)"
    ):
        iter_documents(tmp_path, config_name="new")
    readme.write_text(
        "---\nconfigs:\n- config_name: a\n  data_files: cats.txt\n- config_name: b\n  data_files: dogs.txt\n---\n"
    )
    with pytest.raises(InputError, match="has several configurations: set config_name to one of a, b"):
        iter_documents(tmp_path)
    readme.write_text("---\nconfigs:\n- config_name: a\n  data_files: gone.txt\n---\n")
    with pytest.raises(InputError, match="README.md' lists files that cannot be read"):
        iter_documents(tmp_path)
    readme.write_text("---\nlicense: mit\n---\nNo word of files.\n")
    assert read(tmp_path) == ["birds.txt", "cats.txt", "dogs.txt", "more.jsonl"]
    with pytest.raises(InputError, match="has no configuration 'a'"):
        iter_documents(tmp_path, config_name="a")


def test_what_is_no_data(tmp_path):
    beside = [
        "README.md",
        "LICENSE",
        ".gitattributes",
        ".cache/x.bin",
        "__pycache__/x.txt",
        "dataset_infos.json",
        "sub/README",
    ]
    fill(tmp_path, ["a.txt", *beside])
    build_token_cache(["x"], byte_tokenizer(), tmp_path / "caches" / "one")
    (tmp_path / "caches" / "one.lock").touch()
    assert read(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["b.csv", "b.arrow", "sub/b.md", "b", "b.zip", "b.parquet.gz", "b.pdf"])
def test_files_of_other_kinds_are_named(tmp_path, name):
    fill(tmp_path, ["a.txt", name])
    with pytest.raises(InputError, match="contains files that cannot be read") as caught:
        iter_documents(tmp_path)
    assert name in str(caught.value)


def test_many_files_are_not_all_named(tmp_path):
    fill(tmp_path, [f"{i}.csv" for i in range(1000)])
    with pytest.raises(InputError, match="and 995 more") as caught:
        iter_documents(tmp_path)
    assert len(str(caught.value)) < 500


def test_links(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", ["a.txt", "deep/b.txt"])
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").symlink_to(elsewhere / "a.txt")
    (folder / "linked").symlink_to(elsewhere / "deep")
    (folder / "circle").symlink_to(folder)
    assert read(folder) == ["a.txt", "b.txt"]
    (folder / "gone.txt").symlink_to(elsewhere / "gone.txt")
    with pytest.raises(InputError, match="gone.txt' is a link to a file that does not exist"):
        iter_documents(folder)


def test_no_pipe_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(InputError, match="contains files that cannot be read: 'a.txt'"):
        iter_documents(tmp_path)
    with pytest.raises(InputError, match="is neither a file nor a folder"):
        iter_documents(tmp_path / "a.txt")


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(words.map(lambda text: text.strip("\r\n")).filter(len), min_size=1, max_size=6),
    data=st.data(),
)
def test_formats_side_by_side(tmp_path_factory, texts, data):
    folder = tmp_path_factory.mktemp("mixed")
    for number, text in enumerate(texts):
        suffix, form = FORMS[data.draw(st.sampled_from(sorted(FORMS)))]
        compression = "" if suffix == ".parquet" else data.draw(st.sampled_from(sorted(COMPRESSIONS)))
        (folder / f"{number}{suffix}{compression}").write_bytes(COMPRESSIONS[compression](form([text])))
        (folder / f"{number}z.txt").write_bytes(text.encode("utf-8-sig"))
    expected = [text for text in texts for _ in range(2)]
    assert list(iter_documents(folder)) == expected
    cache = cached_tokens(folder, byte_tokenizer(), folder / ".caches")
    assert cache.tokens.tolist() == [token for text in expected for token in [*text.encode(), 256]]


names = st.text("abtrainestvld-._ 0/", min_size=1, max_size=12).filter(
    lambda name: not set(name.split("/")) & {"", ".", ".."}
)


@settings(max_examples=100, deadline=None)
@given(
    stems=st.lists(names | st.sampled_from(["train", "test", "my-train", "dev/x", "train/y"]), min_size=1, max_size=5)
)
def test_every_file_is_read_by_some_split_or_refused(tmp_path_factory, stems):
    folder = tmp_path_factory.mktemp("folder")
    files = []
    for stem in stems:
        file = folder / f"{stem}.txt"
        if not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(file.relative_to(folder)))
            files.append(file)
    if not files:
        return
    assert sorted(data_files(folder)) == sorted(files)
    found = []
    for split in ("train", "validation", "test"):
        try:
            found += iter_documents(folder, split=split)
        except InputError as error:
            if "may or may not be laid out by splits" in str(error):
                return
            assert "has no split" in str(error)
    assert sorted(found) == sorted(str(file.relative_to(folder)) for file in files)
