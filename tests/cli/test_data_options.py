"""Training, evaluation and `generate` read the same text in the same way."""

import gzip
import json

import datasets
import pytest
import torch

from smt_hf.cli.generate import GenerateOptions, read
from smt_hf.cli.main import main
from smt_hf.data import DataOptions, byte_tokenizer, cached_tokens
from smt_hf.errors import InputError
from tests.conftest import tiny_model


@pytest.fixture(scope="module")
def student():
    return tiny_model(vocab_size=258).export_student().eval()


FORMS = {
    "plain.txt": b"One day a cat",
    "no_extension": b"One day a cat",
    "notes.md": b"\xef\xbb\xbfOne day\r\na cat\r\n",
    "crlf.txt": b"One day\r\na cat",
    "several.txt": b"One day<|endoftext|>\n<|endoftext|>\na cat\n",
    "specials.txt": "One <|pad|> day, héllo \u2028 \x00".encode(),
    "compressed.txt.gz": gzip.compress(b"One day<|endoftext|>a cat"),
    "rows.jsonl": b'{"text": "One day"}\n{"n": 1, "text": "a <|endoftext|> cat \\ud800"}\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_generate_reads_a_file_as_training_does(student, tmp_path, monkeypatch, name):
    file = tmp_path / name
    file.write_bytes(FORMS[name])
    twin = file if file.suffix in (".txt", ".gz", ".jsonl") else file.with_suffix(".txt")
    twin.write_bytes(FORMS[name])
    tokens = cached_tokens(twin, byte_tokenizer(), tmp_path / "caches").tokens
    expected = student.read(torch.tensor([tokens[:-1].tolist()]))
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in (str(file), f"~/{name}"):
        found = read(student, byte_tokenizer(), GenerateOptions(text_file=given))
        assert torch.equal(found.states, expected.states) and found.num_tokens.tolist() == [len(tokens) - 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "contains no documents"), (b"\n", "contains no documents"), (b"\xff\xfe" * 9, "text.bin' is not UTF-8"), (None, "no file")],
)  # fmt: skip
def test_files_that_generate_cannot_read(student, tmp_path, content, message):
    file = tmp_path / "text.bin"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(student, byte_tokenizer(), GenerateOptions(text_file=str(file)))
    assert "\n" not in str(caught.value) and "codec" not in str(caught.value)


def test_home_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.txt").write_text("one")
    (tmp_path / "corpus").mkdir()
    for name in ("train", "valid"):
        (tmp_path / "corpus" / f"{name}.txt").write_text(name)
    file = DataOptions(dataset="~/train.txt", eval_split="validation", cache_dir="~/caches")
    assert file.tokens(byte_tokenizer()).num_tokens == 4
    assert file.eval_tokens(byte_tokenizer()) is None  # a file has no splits
    folder = DataOptions(dataset="~/corpus", eval_split="validation", cache_dir="~/caches")
    assert bytes(folder.eval_tokens(byte_tokenizer()).tokens[:-1].tolist()) == b"valid"
    assert (tmp_path / "caches").is_dir()


def test_a_folder_without_splits_has_no_validation_text(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / f"{name}.txt").write_text(name)
    options = DataOptions(dataset=str(tmp_path), eval_split="validation", cache_dir=str(tmp_path / ".caches"))
    assert options.tokens(byte_tokenizer()).num_documents == 2
    with pytest.raises(InputError, match="has no split 'validation': choose one of train"):
        options.eval_tokens(byte_tokenizer())


def test_evaluate_reads_what_training_reads(dmt_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    texts = ["Tom had a dog. " * 9, "A cat sat. " * 9]
    forms = {
        "a.jsonl.gz": lambda file: file.write_bytes(gzip.compress("\n".join(json.dumps({"text": text}) for text in texts).encode())),
        "a.parquet": lambda file: datasets.Dataset.from_dict({"text": texts}).to_parquet(file),
        "a.txt": lambda file: file.write_text("\ufeff" + "<|endoftext|>\r\n".join(texts), newline=""),
    }  # fmt: skip
    reports = []
    for name, write in forms.items():
        write(tmp_path / name)
        argv = ["evaluate", str(dmt_run), "--dataset", f"~/{name}", "--cache_dir", "~/caches"]
        sizes = ["--context_length", "8", "--rollout_steps", "16", "--num_windows", "4", "--json", "true"]
        capsys.readouterr()
        assert main([*argv, *sizes]) == 0
        reports.append(json.loads(capsys.readouterr().out))
        assert reports[-1].pop("dataset") == name
    assert reports[0] == reports[1] == reports[2]
