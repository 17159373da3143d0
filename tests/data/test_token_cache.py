import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import filelock
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from smt_hf.data import (
    TokenCache,
    build_token_cache,
    byte_tokenizer,
    cache_key,
    cached_tokens,
    encoding,
    folders,
    token_cache,
)
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


def test_several_processes_write_the_same_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "CHUNK_DOCUMENTS", 3)
    tokenizer = word_tokenizer({"<eos>": 0, "a": 1, "b": 2})
    documents = [f"a b {'a ' * number}" for number in range(20)]
    one = build_token_cache(documents, tokenizer, tmp_path / "one")
    two = build_token_cache(iter(documents), tokenizer, tmp_path / "two", num_proc=2)
    assert two.digest == one.digest and two.num_bytes == one.num_bytes


def test_an_error_in_another_process_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "CHUNK_DOCUMENTS", 1)
    tokenizer = word_tokenizer({"<eos>": 0, "a": 1, "far": 9})
    with pytest.raises(InputError, match="returns the id 9 but has only 3 tokens"):
        build_token_cache(["a", "a", "far", "a"], tokenizer, tmp_path / "cache", num_proc=2)
    assert not (tmp_path / "cache").exists()


def test_the_fast_path_equals_the_tokenizer(tmp_path, monkeypatch):
    fast = build_token_cache(DOCUMENTS, byte_tokenizer(), tmp_path / "fast")
    monkeypatch.setattr(encoding, "is_byte_tokenizer", lambda tokenizer: False)
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
    with pytest.raises(InputError, match="returns the id 9 but has only 3 tokens"):
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
    with pytest.raises(InputError, match="is not a token cache: choose another folder"):
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


@pytest.mark.parametrize("name", ["meta.json", "tokens.bin", "document_starts.bin"])
@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "gone"])
def test_cached_tokens_rebuilds_a_damaged_cache(tmp_path, name, damage, caplog):
    source = text_file(tmp_path)
    cache = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")
    file = cache.path / name
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        data[3] ^= 1
        file.write_bytes({"flipped": data, "short": data[:-8], "empty": b""}[damage])
    with pytest.raises(InputError, match="is damaged|is not a token cache") as caught:
        TokenCache.open(cache.path)
    assert str(cache.path) in str(caught.value) and "\n" not in str(caught.value)
    again = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")
    assert (again.path, again.digest) == (cache.path, cache.digest)
    assert again.tokens.tolist() == [*b"one", 256, *b"two", 256]
    assert str(cache.path) in caplog.text and "rebuilding it" in caplog.text
    assert TokenCache.open(cache.path).num_tokens == 8


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_token_cache(["one", "two", "é" * 20], byte_tokenizer(), tmp_path_factory.mktemp("whole") / "cache")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(whole, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("flipped") / "cache"
    shutil.copytree(whole.path, folder)
    file = folder / data.draw(st.sampled_from(sorted(os.listdir(folder))))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    assume(
        file.suffix != ".json" or not {content[place], file.read_bytes()[place]} <= set(b" \t\r\n")
    )  # says the same
    file.write_bytes(content)
    with pytest.raises(InputError, match="token cache"):
        TokenCache.open(folder)


def test_digest_is_of_the_data_alone(tmp_path):
    one = build_token_cache(["one", "two"], byte_tokenizer(), tmp_path / "one", {"source": "here"})
    two = build_token_cache(["one", "two"], byte_tokenizer(), tmp_path / "two", {"source": "there"})
    joined = build_token_cache(["one<|endoftext|>two"], byte_tokenizer(), tmp_path / "joined")
    assert one.digest == two.digest == TokenCache.open(one.path).digest == pickle.loads(pickle.dumps(one)).digest
    assert len({one.digest, joined.digest}) == 2


def test_unpickling_reads_no_tokens_but_knows_a_replaced_cache(tmp_path, monkeypatch):
    cache = build_token_cache(["one"], byte_tokenizer(), tmp_path / "cache")
    data = pickle.dumps(cache)
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "_data_digest", None)
        assert pickle.loads(data).tokens.tolist() == [*b"one", 256]
    build_token_cache(["two"], byte_tokenizer(), tmp_path / "cache")
    with pytest.raises(InputError, match="was replaced after it was opened"):
        pickle.loads(data)


def test_caches_of_another_format(tmp_path):
    cache = build_token_cache(["one"], byte_tokenizer(), tmp_path / "cache")
    meta = json.loads((cache.path / "meta.json").read_text())
    (cache.path / "meta.json").write_text(json.dumps({**meta, "version": 1}))
    with pytest.raises(InputError, match="is of format 1, not 2: build it again"):
        TokenCache.open(cache.path)
    assert build_token_cache(["two"], byte_tokenizer(), tmp_path / "cache").tokens.tolist() == [*b"two", 256]


def test_a_read_only_cache_is_used(tmp_path, monkeypatch):
    source = text_file(tmp_path)
    cache = cached_tokens(source, byte_tokenizer(), tmp_path / "caches")

    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    for function in ("mkdir", "rename", "write_text"):
        monkeypatch.setattr(Path, function, read_only)
    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    assert cached_tokens(source, byte_tokenizer(), tmp_path / "caches").digest == cache.digest
    (cache.path / "tokens.bin").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write the token cache .*Read-only file system"):
        cached_tokens(source, byte_tokenizer(), tmp_path / "caches")


@pytest.mark.parametrize("place", ["file", "file/below", "n" * 300, "/proc/caches"])
def test_places_that_cannot_be_written(tmp_path, place):
    source = text_file(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write the token cache") as caught:
        cached_tokens(source, byte_tokenizer(), tmp_path / place)
    assert "\n" not in str(caught.value) and "Errno" not in str(caught.value)


def test_no_room(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write the token cache"):
            build_token_cache(["x" * 10_000] * 100, byte_tokenizer(), tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_errors_are_not_the_disks(tmp_path):
    def documents():
        yield "a"
        raise OSError("the user's")

    with pytest.raises(OSError, match="the user's"):
        build_token_cache(documents(), byte_tokenizer(), tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


SLOW_BUILD = """
import sys, time
from smt_hf.data import build_token_cache, byte_tokenizer
def documents():
    for _ in range(1000):
        yield "x" * 5_000_000
        print("written", flush=True)
        time.sleep(0.05)
build_token_cache(documents(), byte_tokenizer(), sys.argv[1])
"""


def start(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, stdout=subprocess.PIPE
    )


def drafts(folder):
    return [name for name in os.listdir(folder) if name.startswith(".")]


def test_drafts_of_killed_builds_are_removed_and_no_others(tmp_path):
    for name in ("slow", "killed"):
        (tmp_path / name).mkdir()
    slow = start(SLOW_BUILD, tmp_path / "cache")
    killed = start(SLOW_BUILD, tmp_path / "other")
    try:
        for process in (slow, killed):
            process.stdout.readline()
            process.stdout.readline()
        killed.kill()
        killed.wait()
        kept = tmp_path / f".mine.{'0' * 32}"  # a user's folder of such a name
        kept.mkdir()
        (kept / "notes.txt").touch()
        halfway = tmp_path / f".done.{'1' * 32}.old"  # killed while it replaced a cache
        halfway.mkdir()
        (halfway / "tokens.bin").touch()
        assert any(".other." in name for name in drafts(tmp_path))
        build_token_cache(["one"], byte_tokenizer(), tmp_path / "third")
        left = drafts(tmp_path)
        assert len(left) == 3 and kept.name in left  # the draft that is being written, and its lock
        assert all(name == kept.name or ".cache." in name for name in left)
        slow.stdout.readline()
        assert slow.poll() is None
    finally:
        for process in (slow, killed):
            process.kill()
            process.wait()
    build_token_cache(["one"], byte_tokenizer(), tmp_path / "third")
    assert drafts(tmp_path) == [kept.name]


def test_a_build_within_a_build(tmp_path):
    def documents():
        yield "a"
        yield str(build_token_cache(["inner"], byte_tokenizer(), tmp_path / "inner").num_tokens)

    assert build_token_cache(documents(), byte_tokenizer(), tmp_path / "outer").tokens.tolist() == [
        *b"a",
        256,
        *b"6",
        256,
    ]
    assert drafts(tmp_path) == []


COUNTED_BUILD = """
import sys, time
from smt_hf.data import byte_tokenizer, cached_tokens, token_cache
build = token_cache.build_token_cache
def slow(*args):
    print("built", flush=True)
    time.sleep(1)
    return build(*args)
token_cache.build_token_cache = slow
cache = cached_tokens(sys.argv[1], byte_tokenizer(), sys.argv[2])
print(cache.num_tokens, cache.digest)
"""


def test_processes_share_one_build(tmp_path):
    source = text_file(tmp_path)
    processes = [start(COUNTED_BUILD, source, tmp_path / "caches") for _ in range(2)]
    lines = [process.communicate(timeout=120)[0].decode().split("\n") for process in processes]
    assert sum("built" in line for line in lines) == 1
    assert len({line[-2] for line in lines}) == 1 and lines[0][-2].startswith("8 ")
    assert [name for name in os.listdir(tmp_path / "caches") if not name.endswith(".lock")] == [
        cached_tokens(source, byte_tokenizer(), tmp_path / "caches").path.name
    ]


def test_builds_of_one_path_at_once(tmp_path):
    def build(text):
        for _ in range(50):
            assert (
                bytes(build_token_cache([text], byte_tokenizer(), tmp_path / "cache").tokens[:3].tolist())
                == text.encode()
            )

    with ThreadPoolExecutor() as pool:
        list(pool.map(build, ("one", "two", "abc")))
    assert TokenCache.open(tmp_path / "cache").num_tokens == 4
    assert os.listdir(tmp_path) == ["cache"]


def test_sources_of_all_kinds(tmp_path, monkeypatch):
    source = text_file(tmp_path)
    tokenizer, caches = byte_tokenizer(), tmp_path / "caches"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    digests = {
        cached_tokens(given, tokenizer, caches).digest
        for given in (source, Path(source), "~/corpus.txt", "corpus.txt")
    }
    dataset = datasets.Dataset.from_dict({"text": ["one", "two"]})
    given = cached_tokens(dataset, tokenizer, caches)
    digests.add(given.digest)
    assert len(digests) == 1
    assert cached_tokens(datasets.Dataset.from_dict({"text": ["one", "two"]}), tokenizer, caches).path == given.path
    assert cached_tokens(datasets.DatasetDict(test=dataset), tokenizer, caches, split="test").digest == given.digest
    assert cached_tokens(dataset.select([1]), tokenizer, caches).tokens.tolist() == [*b"two", 256]
    dataset.save_to_disk(tmp_path / "saved")
    assert cached_tokens(tmp_path / "saved", tokenizer, caches).digest == given.digest
    with pytest.raises(InputError, match="an IterableDataset cannot be identified"):
        cached_tokens(dataset.to_iterable_dataset(), tokenizer, caches)


def test_defaults_given_or_not_are_one_cache(tmp_path):
    source = text_file(tmp_path)
    options = {"split": "train", "max_documents": None, "text_column": "text", "streaming": True}
    paths = {cached_tokens(source, byte_tokenizer(), tmp_path / "caches", **given).path for given in ({}, options)}
    assert len(paths) == 1


def test_a_cache_within_its_folder(tmp_path):
    source = text_file(tmp_path)
    first = cached_tokens(tmp_path, byte_tokenizer(), tmp_path / "caches")
    assert cached_tokens(tmp_path, byte_tokenizer(), tmp_path / "caches").path == first.path
    Path(source).write_text("three")
    assert cached_tokens(tmp_path, byte_tokenizer(), tmp_path / "caches").path != first.path


def test_the_split_that_is_read_is_said_though_the_cache_is_there(tmp_path, caplog):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(name)
    for _ in range(2):
        folders.say_once.cache_clear()  # as in another process
        caplog.clear()
        cached_tokens(tmp_path, byte_tokenizer(), tmp_path / "caches")
        assert caplog.text.count("'test.txt' is left out") == 1


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
    assert cache_key.default_cache_dir() == tmp_path / "hf" / "smt_hf"
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_key.default_cache_dir() == tmp_path / ".cache" / "smt_hf"
