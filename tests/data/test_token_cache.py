import json
import os
import pickle

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from smt_hf.data import TokenCache, build_token_cache, byte_tokenizer, cached_tokens, token_cache
from smt_hf.errors import InputError

DOCUMENTS = ["héllo", "", "a <|endoftext|> b\x00", "x" * 300]


def word_tokenizer(vocab):
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_byte_cache_is_exact(tmp_path):
    cache = build_token_cache(iter(DOCUMENTS), byte_tokenizer(), tmp_path / "cache")
    expected = [[*document.encode(), 256] for document in DOCUMENTS]
    assert cache.tokens.tolist() == sum(expected, [])
    assert cache.document_starts.tolist() == np.cumsum([0, *map(len, expected)])[:-1].tolist()
    assert (cache.tokens.dtype, cache.document_starts.dtype) == (np.uint16, np.int64)
    assert isinstance(cache.tokens, np.memmap) and isinstance(cache.document_starts, np.memmap)
    assert (cache.num_documents, cache.vocab_size) == (4, 258)
    assert cache.num_tokens == cache.num_bytes == sum(map(len, expected))


def test_chunks_do_not_change_the_cache(tmp_path, monkeypatch):
    whole = build_token_cache(DOCUMENTS, byte_tokenizer(), tmp_path / "whole")
    monkeypatch.setattr(token_cache, "CHUNK_DOCUMENTS", 3)
    monkeypatch.setattr(token_cache, "CHUNK_CHARACTERS", 6)
    parts = build_token_cache(DOCUMENTS, byte_tokenizer(), tmp_path / "parts")
    assert parts.tokens.tolist() == whole.tokens.tolist()
    assert parts.document_starts.tolist() == whole.document_starts.tolist()
    assert parts.num_bytes == whole.num_bytes


def test_the_fast_path_equals_the_tokenizer(tmp_path, monkeypatch):
    fast = build_token_cache(DOCUMENTS, byte_tokenizer(), tmp_path / "fast")
    monkeypatch.setattr(token_cache, "is_byte_tokenizer", lambda tokenizer: False)
    general = build_token_cache(DOCUMENTS, byte_tokenizer(), tmp_path / "general")
    assert general.tokens.tolist() == fast.tokens.tolist()
    assert general.document_starts.tolist() == fast.document_starts.tolist()


def test_bpe_tokenizer(tmp_path):
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(["the cat sat on the mat"] * 10, vocab_size=280, special_tokens=["</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="</s>")
    texts = ["the cat </s> sat", "on the mat"]
    cache = build_token_cache(texts, tokenizer, tmp_path / "cache")
    ids = [tokenizer(text, split_special_tokens=True).input_ids + [tokenizer.eos_token_id] for text in texts]
    assert cache.tokens.tolist() == ids[0] + ids[1]
    assert cache.tokens.tolist().count(tokenizer.eos_token_id) == 2
    assert cache.document_starts.tolist() == [0, len(ids[0])]
    assert cache.num_bytes == len(texts[0]) + len(texts[1]) + 2 > cache.num_tokens


def test_tokenizer_without_a_backend(tmp_path):
    tokenizer = ByT5Tokenizer()
    cache = build_token_cache(["ab", "é"], tokenizer, tmp_path / "cache")
    assert cache.tokens.tolist() == [100, 101, 1, 0xC3 + 3, 0xA9 + 3, 1]
    assert cached_tokens(text_file(tmp_path), tokenizer, tmp_path / "caches").num_documents == 2


def test_large_vocabulary_takes_uint32(tmp_path):
    tokenizer = word_tokenizer({"<eos>": 0} | {f"w{i}": i for i in range(1, 70_000)})
    cache = build_token_cache(["w69999 w1"], tokenizer, tmp_path / "cache")
    assert cache.tokens.dtype == np.uint32
    assert cache.tokens.tolist() == [69999, 1, 0]


def test_lone_surrogates_do_not_crash(tmp_path):
    cache = build_token_cache(["a\ud800b"], byte_tokenizer(), tmp_path / "cache")
    assert cache.tokens.tolist() == [*b"a?b", 256]


def test_errors_leave_nothing_behind(tmp_path):
    with pytest.raises(InputError, match="there are no documents"):
        build_token_cache([], byte_tokenizer(), tmp_path / "cache")
    with pytest.raises(InputError, match="gives the id 9 but has only 3 tokens"):
        build_token_cache(["a b"], word_tokenizer({"<eos>": 0, "a": 1, "b": 9}), tmp_path / "cache")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no eos token"):
        build_token_cache(["a"], tokenizer, tmp_path / "cache")

    def crash():
        yield "a"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        build_token_cache(crash(), byte_tokenizer(), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_is_replaced_and_nothing_else_is(tmp_path):
    old = build_token_cache(["old"], byte_tokenizer(), tmp_path / "cache")
    build_token_cache(["new"], byte_tokenizer(), tmp_path / "cache")
    assert TokenCache.open(tmp_path / "cache").tokens.tolist() == [*b"new", 256]
    assert old.tokens.tolist() == [*b"old", 256]  # still mapped
    assert os.listdir(tmp_path) == ["cache"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(InputError, match="is not a token cache: give another folder"):
        build_token_cache(["a"], byte_tokenizer(), tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_open_checks_the_folder(tmp_path):
    with pytest.raises(InputError, match="is not a token cache"):
        TokenCache.open(tmp_path / "missing")
    cache = build_token_cache(["abc"], byte_tokenizer(), tmp_path / "cache")
    (cache.path / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(InputError, match="is damaged"):
        TokenCache.open(cache.path)


def test_pickle_stores_the_path_only(tmp_path):
    cache = build_token_cache(["a" * 100_000], byte_tokenizer(), tmp_path / "cache")
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert pickle.loads(data).tokens.tolist() == cache.tokens.tolist()


def text_file(tmp_path, text="one<|endoftext|>two"):
    path = tmp_path / "corpus.txt"
    path.write_text(text)
    return str(path)


def test_cached_tokens_is_built_once(tmp_path, monkeypatch):
    source = text_file(tmp_path)
    first = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")
    assert first.tokens.tolist() == [*b"one", 256, *b"two", 256]
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "build_token_cache", None)
        again = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")
        reloaded = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
        copy = cached_tokens(source, reloaded, tmp_path / "caches", streaming=True)
    assert again.path == copy.path == first.path
    assert json.loads((first.path / "meta.json").read_text())["fingerprint"]["source"][0] == source


def test_cached_tokens_is_rebuilt_when_something_changes(tmp_path):
    source = text_file(tmp_path)
    tokenizer = byte_tokenizer()
    paths = [cached_tokens(source, tokenizer, tmp_path / "caches").path]
    paths.append(cached_tokens(source, tokenizer, tmp_path / "caches", max_documents=1).path)
    tokenizer.add_tokens(["one"])
    paths.append(cached_tokens(source, tokenizer, tmp_path / "caches").path)
    os.utime(source, ns=(0, 0))
    paths.append(cached_tokens(source, byte_tokenizer(), tmp_path / "caches").path)
    assert len(set(paths)) == 4
    text_file(tmp_path, "three")
    assert cached_tokens(source, byte_tokenizer(), tmp_path / "caches").tokens.tolist() == [*b"three", 256]


def test_cached_tokens_mends_a_damaged_cache(tmp_path):
    source = text_file(tmp_path)
    cache = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")
    (cache.path / "tokens.bin").write_bytes(b"\0\0")
    assert cached_tokens(source, byte_tokenizer(), tmp_path / "caches").num_tokens == 8


def test_cached_tokens_of_a_folder(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "train.txt").write_text("one")
    source = str(tmp_path / "corpus")
    assert cached_tokens(source, byte_tokenizer(), tmp_path / "caches").num_tokens == 4
    (tmp_path / "corpus" / "train.txt").write_text("three")
    assert cached_tokens(source, byte_tokenizer(), tmp_path / "caches").num_tokens == 6


def test_default_cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "mine"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert cached_tokens(text_file(tmp_path), byte_tokenizer()).path.parent == tmp_path / "mine"
    monkeypatch.delenv("SMT_HF_CACHE")
    assert token_cache.default_cache_dir() == tmp_path / "hf" / "smt_hf"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_cache.default_cache_dir() == tmp_path / ".cache" / "smt_hf"
