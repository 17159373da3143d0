import gzip
import json
import os
import subprocess
import sys

import datasets
import pytest

from smt_hf.data import files, iter_documents, iter_text_file
from smt_hf.errors import InputError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def write_rows(path, rows):
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def test_text_file_is_split_at_the_separator(tmp_path):
    source = write(tmp_path / "a.txt", "\none\n\ntwo \n<|endoftext|>\n\r\n<|endoftext|>\n  héllo\r\n<|endoftext|>\n")
    assert list(iter_documents(source)) == ["one\n\ntwo ", "  héllo"]
    assert list(iter_documents(source, max_documents=1)) == ["one\n\ntwo "]


def test_text_file_without_separator_is_one_document(tmp_path):
    source = write(tmp_path / "a.txt", "\ufeffone\r\ntwo\n")
    assert list(iter_documents(source)) == ["one\r\ntwo"]
    assert list(iter_documents(source, separator="\n")) == ["one", "two"]


@pytest.mark.parametrize("characters", [1, 2, 3, 7, 1000])
def test_separators_across_reads(tmp_path, monkeypatch, characters):
    monkeypatch.setattr(files, "READ_CHARACTERS", characters)
    text = "a<|endoftext|>bc<|endoftext|<|endoftext|>" + "d" * 50 + "<|endoftext|>e<|"
    source = write(tmp_path / "a.txt", text)
    assert list(iter_documents(source)) == ["a", "bc<|endoftext|", "d" * 50, "e<|"]


def test_text_is_read_lazily(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "READ_CHARACTERS", 1)
    source = write(tmp_path / "a.txt", b"good<|endoftext|>" + b"x" * 100_000 + b"\xff")
    texts = iter_documents(source)
    assert next(texts) == "good"
    with pytest.raises(InputError, match="not UTF-8 .byte 0xff"):
        next(texts)


def test_json_and_parquet(tmp_path):
    rows = [{"text": "one\n", "n": 1}, {"text": "", "n": 2}, {"text": None, "n": 3}, {"text": "two", "n": 4}]
    sources = [write_rows(tmp_path / "a.jsonl", rows), write(tmp_path / "a.json", json.dumps(rows))]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    for source in [*sources, str(tmp_path / "a.parquet")]:
        assert list(iter_documents(source)) == ["one", "two"]
        assert list(iter_documents(source, split="validation")) == ["one", "two"]  # a file has no splits


def test_more_rows_than_one_read(tmp_path):
    source = write_rows(tmp_path / "a.jsonl", [{"story": str(i)} for i in range(2500)])
    assert list(iter_documents(source, text_column="story")) == [str(i) for i in range(2500)]


@pytest.mark.parametrize("streaming", [False, True])
def test_folder_of_json(tmp_path, streaming):
    write_rows(tmp_path / "train.jsonl", [{"text": "t"}])
    write_rows(tmp_path / "test.jsonl", [{"text": "u"}])
    assert list(iter_documents(str(tmp_path), streaming=streaming)) == ["t"]
    assert list(iter_documents(str(tmp_path), split="test", streaming=streaming)) == ["u"]
    with pytest.raises(InputError, match="has no split 'dev': choose one of train, test"):
        iter_documents(str(tmp_path), split="dev", streaming=streaming)


def test_folder_of_text(tmp_path):
    write(tmp_path / "train.txt", "a\nb<|endoftext|>c")
    write(tmp_path / "valid.txt", "d")
    assert list(iter_documents(str(tmp_path))) == ["a\nb", "c"]
    assert list(iter_documents(str(tmp_path), split="validation")) == ["d"]
    with pytest.raises(InputError, match="has no split 'test': choose one of train, validation"):
        iter_documents(str(tmp_path), split="test")


def test_saved_to_disk(tmp_path):
    one = datasets.Dataset.from_dict({"text": ["p", "q"]})
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one, test=one.select([1])).save_to_disk(tmp_path / "two")
    assert list(iter_documents(str(tmp_path / "one"))) == ["p", "q"]
    assert list(iter_documents(str(tmp_path / "two"), split="test")) == ["q"]
    with pytest.raises(InputError, match="has no split 'dev': choose one of train, test"):
        iter_documents(str(tmp_path / "two"), split="dev")


def test_missing_column_and_wrong_type(tmp_path):
    source = write_rows(tmp_path / "a.jsonl", [{"story": "x", "n": 1}])
    with pytest.raises(InputError, match=r"has no column 'text': set text_column to one of its columns \(story, n\)"):
        iter_documents(source)
    with pytest.raises(InputError, match="has int in column 'n'"):
        list(iter_documents(source, text_column="n"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "contains no documents"),
        ("a.txt", "\n<|endoftext|>\n", "contains no documents"),
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "\n\n", "contains no documents"),
        ("a.jsonl", '{"text": ""}\n', "contains no documents"),
        ("a.jsonl", '{"text": "a"}\n{"text":', "JSON parse error"),
        ("a.parquet", "no", "cannot load"),
        ("a.csv", "text\na", "extension '.csv': pass one of .txt, .jsonl, .json, .parquet"),
        ("a.tar.gz", "", "extension '.tar.gz'"),
        ("a.parquet.gz", "", "extension '.parquet.gz'"),
        ("a", "a", "extension ''"),
        ("a.txt.gz", "a", "Not a gzipped file"),
        ("a.txt", b"\x1f\x8b\x08\0", "looks like a compressed .gz file"),
        ("a.txt", b"\xff\xfea\0", "not UTF-8 .byte 0xff.: convert it, for example with iconv"),
        ("a.jsonl", b'{"text": "\xff"}', "not UTF-8 .byte 0xff"),
    ],
)
def test_contents_that_cannot_work(tmp_path, name, content, message):
    source = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        list(iter_documents(source))
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["missing.txt", "/no/such/folder", "a/b/c"])
def test_missing_file(source):
    with pytest.raises(InputError, match=f"no file or folder '{source}': check the path .a Hub dataset id"):
        iter_documents(source)


def test_options_out_of_range(tmp_path):
    source = write(tmp_path / "a.txt", "a")
    with pytest.raises(InputError, match="separator is empty"):
        iter_documents(source, separator="")
    for number in (0, -1, 1.5, "2"):
        with pytest.raises(InputError, match=f"max_documents is {number}: pass a whole number of 1 or more"):
            iter_documents(source, max_documents=number)


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="contains no data files"):
        iter_documents(str(tmp_path))


def test_paths_of_all_kinds(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("one")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path / "a.txt", "a.txt", "./a.txt", "~/a.txt", tmp_path, "~", "."):
        assert list(iter_documents(source)) == ["one"]


@pytest.mark.parametrize(
    "source",
    ["", None, 5, b"a.txt", ["a.txt"], "a\0.txt", "/" + "n" * 300 + ".txt", "~nobody-here/a.txt", "./gone", "gone/", "gone.txt.gz"],
)  # fmt: skip
def test_sources_that_cannot_be(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # which "" is not taken for
    with pytest.raises(InputError) as caught:
        iter_documents(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_path_is_no_hub_id(tmp_path):
    with pytest.raises(InputError, match="there is no file or folder"):
        iter_documents(tmp_path / "nobody")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("one")
    file.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        iter_documents(file)


def test_dataset_objects():
    dataset = datasets.Dataset.from_dict({"n": [1, 2, 3], "text": ["one\n", None, "two"]})
    for given in (dataset, dataset.to_iterable_dataset(), dataset.with_format("numpy"), dataset.with_format("pandas")):
        assert list(iter_documents(given)) == ["one", "two"]
        assert list(iter_documents(given, max_documents=1)) == ["one"]
    splits = datasets.DatasetDict(train=dataset, test=dataset.select([2]))
    assert list(iter_documents(splits, split="test")) == ["two"]
    assert list(iter_documents(datasets.IterableDatasetDict(test=dataset.to_iterable_dataset()), split="test")) == [
        "one",
        "two",
    ]
    with pytest.raises(InputError, match="the given DatasetDict has no split 'dev': choose one of train, test"):
        iter_documents(splits, split="dev")
    with pytest.raises(InputError, match="the given Dataset has no column 'story': set text_column to one of n, text"):
        iter_documents(dataset, text_column="story")
    with pytest.raises(InputError, match="the given Dataset, row 1 has int in column 'n'"):
        iter_documents(dataset, text_column="n")


def test_text_file_of_any_name(tmp_path):
    texts = {"chapter": "one", "chapter.md": "one", "a.txt": "one", "a.jsonl": '{"text": "one"}'}
    for name, text in texts.items():
        assert list(iter_text_file(write(tmp_path / name, text))) == ["one"]
    assert list(iter_text_file(write(tmp_path / "notes.md.gz", gzip.compress(b"one<|endoftext|>\ntwo")))) == [
        "one",
        "two",
    ]
    for content, message in {
        b"\n": "contains no documents",
        b"a\xff": "not UTF-8",
        b"\x1f\x8b\x08": "looks like a compressed .gz",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            list(iter_text_file(write(tmp_path / "b.bin", content)))
        assert "b.bin" in str(caught.value)
    for source in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match="there is no file"):
            iter_text_file(source)


def test_hub_out_of_reach():
    code = "from smt_hf.data import iter_documents; iter_documents('nobody/nothing')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("smt_hf.errors.InputError: cannot load 'nobody/nothing': the Hub cannot be reached")
