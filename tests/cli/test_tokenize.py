"""`smt-hf tokenize`: the cache that other commands find, on one machine or in shards."""

import numpy as np
import pytest

from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer, cached_tokens, token_cache


@pytest.fixture
def tokenize(tmp_path):
    def run(source, *argv):
        return main(["tokenize", str(source), "--cache_dir", str(tmp_path / "cache"), *map(str, argv)])

    return run


def test_one_machine(stories, tokenize, tmp_path, monkeypatch, capsys):
    source = stories / "train.txt"
    assert tokenize(source) == 0
    monkeypatch.setattr(token_cache, "build_token_cache", None)
    cache = cached_tokens(str(source), byte_tokenizer(), tmp_path / "cache")
    assert capsys.readouterr().out == f"{cache.num_tokens:,} tokens in 60 documents\n{cache.path}\n"


def test_three_machines(stories, tokenize, tmp_path, monkeypatch, cache, capsys):
    source = stories / "train.txt"
    for index in (2, 0, 1):
        assert tokenize(source, "--num_shards", 3, "--shard_index", index) == 0
        assert capsys.readouterr().out.startswith(f"shard {index} of 3: ")
    assert tokenize(source, "--num_shards", 3, "--merge", "true") == 0
    monkeypatch.setattr(token_cache, "build_token_cache", None)
    merged = cached_tokens(str(source), byte_tokenizer(), tmp_path / "cache")
    assert merged.path.name == cache.path.name
    for file in cache.path.iterdir():
        assert (merged.path / file.name).read_bytes() == file.read_bytes()


def test_images(tokenize, tmp_path, capsys):
    pixels = np.arange(5 * 16, dtype=np.uint8).reshape(5, 4, 4)
    np.savez(tmp_path / "images.npz", x=pixels, y=np.arange(5) % 2)
    options = (tmp_path / "images.npz", "--image_size", 4, "--class_conditional", "true")
    for index in range(2):
        assert tokenize(*options, "--num_shards", 2, "--shard_index", index) == 0
    assert tokenize(*options, "--num_shards", 2, "--merge", "true") == 0
    assert "85 tokens in 5 documents" in capsys.readouterr().out


def test_the_tokenizer_of_a_model(smt_run, stories, tokenize, cache, capsys):
    assert tokenize(stories / "train.txt", "--model", smt_run) == 0
    assert cache.path.name in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, says",
    [
        (["--shard_index", 0], "shard_index=0 needs the number of shards: pass --num_shards"),
        (["--merge", "true"], "merge needs the number of shards: pass --num_shards"),
        (["--num_shards", 2], "num_shards=2: pass --shard_index on each machine, or --merge true once"),
        (
            ["--num_shards", 2, "--shard_index", 0, "--merge", "true"],
            "shard_index=0 and merge: pass --shard_index on each",
        ),
        (["--num_shards", 2, "--shard_index", 2], "shard_index=2 is out of range for num_shards=2"),
        (["--num_shards", 0, "--shard_index", 0], "num_shards=0 must be at least 1"),
        (["--num_shards", 2, "--merge", "true"], "build shard 0, 1 with the same data, tokenizer and options"),
        (["--num_shards", 99, "--shard_index", 0], "num_shards=99 exceeds the 60 documents"),
    ],
)
def test_bad_input(stories, tokenize, argv, says, capsys):
    assert tokenize(stories / "train.txt", *argv) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
