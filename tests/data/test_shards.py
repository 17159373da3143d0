"""Token caches built in shards: merged, they are to the byte what one machine builds."""

import shutil
import tracemalloc
from itertools import chain

import datasets
import numpy as np
import pytest
from PIL import Image

from smt_hf import SmtImageProcessor
from smt_hf.data import (
    Shard,
    TokenCache,
    byte_tokenizer,
    cached_images,
    cached_tokens,
    image_key,
    iter_documents,
    merge_shards,
    merging,
    open_images,
    text_key,
    token_cache,
)
from smt_hf.errors import InputError
from smt_hf.utils import digests

TEXTS = [f"document {number} " * (number % 4) for number in range(11)]  # some are empty
SEPARATOR = "<|endoftext|>"


def one_file(tmp_path):
    (tmp_path / "corpus.txt").write_text(SEPARATOR.join(TEXTS))
    return tmp_path / "corpus.txt"


def one_file_each(tmp_path):
    (tmp_path / "corpus").mkdir()
    for number, text in enumerate(filter(None, TEXTS)):
        (tmp_path / "corpus" / f"part-{number}.txt").write_text(f"{text}{SEPARATOR}more")
    return tmp_path / "corpus"


def rows(tmp_path):
    return datasets.Dataset.from_dict({"text": TEXTS})


def contents(cache: TokenCache) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(cache.path.iterdir())}


def build_all(source, num_shards, cache_dir, tokenizer=None, **options):
    tokenizer = tokenizer or byte_tokenizer()
    return [
        cached_tokens(source, tokenizer, cache_dir, shard=Shard(num_shards, index), **options)
        for index in range(num_shards)
    ]


@pytest.mark.parametrize("num_shards", [1, 2, 3, 7])
@pytest.mark.parametrize("options", [{}, {"max_documents": 7}])
@pytest.mark.parametrize("make", [one_file, one_file_each, rows])
def test_merged_shards_are_the_whole(tmp_path, monkeypatch, make, options, num_shards):
    source, tokenizer = make(tmp_path), byte_tokenizer()
    whole = cached_tokens(source, tokenizer, tmp_path / "one", **options)
    shards = build_all(source, num_shards, tmp_path / "many", **options)
    assert sum(shard.num_documents for shard in shards) == whole.num_documents
    monkeypatch.setattr(merging, "CHUNK_DOCUMENTS", 2)
    key = text_key(source, tokenizer, **options)
    merged = merge_shards(key, num_shards, tmp_path / "many")
    assert contents(merged) == contents(whole)
    assert [path.name for path in (tmp_path / "many").iterdir() if path.suffix != ".lock"] == [merged.path.name]
    monkeypatch.setattr(token_cache, "build_token_cache", None)
    assert cached_tokens(source, tokenizer, tmp_path / "many", **options).path == merged.path
    assert merge_shards(key, num_shards, tmp_path / "many").path == merged.path


@pytest.mark.parametrize("files", [1, 2, 5])
def test_streams_are_cut_too(files):
    stream = datasets.Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(num_shards=files)
    for options in ({}, {"max_documents": 5}):
        parts = [list(iter_documents(stream, shard=Shard(2, index), **options)) for index in range(2)]
        assert list(chain(*parts)) == list(iter_documents(stream, **options)) and all(parts)


def test_files_of_other_shards_are_not_read(tmp_path):
    source = one_file_each(tmp_path)
    (source / "part-7.txt").write_bytes(b"\xff")
    assert list(iter_documents(source, shard=Shard(2, 0)))
    with pytest.raises(InputError, match=r"part-7\.txt' is not UTF-8"):
        list(iter_documents(source, shard=Shard(2, 1)))


def test_rows_of_a_shard_are_numbered_as_in_the_whole():
    dataset = datasets.Dataset.from_dict({"text": [["a"]] * 6})
    with pytest.raises(InputError, match="row 4 has list"):
        list(iter_documents(dataset, shard=Shard(2, 1)))


PIXELS = np.arange(12, dtype=np.uint8).reshape(12, 1, 1) * 16 * np.ones((1, 4, 4), dtype=np.uint8)
LABELS = np.arange(12) % 3


def arrays(tmp_path):
    np.savez(tmp_path / "images.npz", x=PIXELS, y=LABELS)
    return tmp_path / "images.npz"


def class_folders(tmp_path):
    for number, (image, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (tmp_path / "images" / f"{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"{label}" / f"{number:02}.png")
    return tmp_path / "images"


def image_rows(tmp_path):
    columns = {"image": [Image.fromarray(image) for image in PIXELS], "label": LABELS}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["0", "1", "2"]))
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.mark.parametrize("max_images", [None, 5])
@pytest.mark.parametrize("make", [arrays, class_folders, image_rows])
def test_images(tmp_path, make, max_images):
    options = {} if make is image_rows else {"holdout": 3}
    source = open_images(make(tmp_path), **options)
    processor = SmtImageProcessor(4, num_levels=16, num_classes=3, class_names=["0", "1", "2"])
    whole = cached_images(source, processor, tmp_path / "one", max_images)
    for index in range(3):
        cached_images(source, processor, tmp_path / "many", max_images, shard=Shard(3, index))
    merged = merge_shards(image_key(source, processor, max_images), 3, tmp_path / "many")
    assert contents(merged) == contents(whole)


def test_only_the_images_of_a_shard_are_read(tmp_path):
    folder = class_folders(tmp_path)
    (folder / "2" / "11.png").write_bytes(b"no image")
    source, processor = open_images(folder), SmtImageProcessor(4, num_levels=16)
    assert cached_images(source, processor, tmp_path, shard=Shard(2, 0)).num_documents == 6
    with pytest.raises(InputError, match=r"11\.png' is not a readable image"):
        cached_images(source, processor, tmp_path, shard=Shard(2, 1))


def test_too_many_shards(tmp_path):
    with pytest.raises(InputError, match="num_shards=9 exceeds the 8 documents of .*corpus.txt': lower it"):
        build_all(one_file(tmp_path), 9, tmp_path)
    with pytest.raises(InputError, match="num_shards=13 exceeds the 12 images of .*images.npz': lower it"):
        open_images(arrays(tmp_path)).part(Shard(13, 0))
    with pytest.raises(InputError, match=r"shard_index=2 is out of range for num_shards=2: .* from 0 to 1"):
        Shard(2, 2)
    with pytest.raises(InputError, match="num_shards=2 exceeds the 0 documents"):
        iter_documents(datasets.Dataset.from_dict({"text": [""]}), shard=Shard(2, 1))


def test_shards_without_a_document(tmp_path):
    """Whole rows or files may all be empty; a corpus may not."""
    for texts, num_shards in ((["a", "", "", "b"], 4), (["", ""], 2)):
        source = datasets.Dataset.from_dict({"text": texts})
        shards = build_all(source, num_shards, tmp_path)
        assert [shard.num_documents for shard in shards] == [int(bool(text)) for text in texts]
        assert [TokenCache.open(shard.path).num_tokens for shard in shards] == [2 * bool(text) for text in texts]
        key = text_key(source, byte_tokenizer())
        if any(texts):
            assert merge_shards(key, num_shards, tmp_path).tokens.tolist() == [ord("a"), 256, ord("b"), 256]
        else:
            with pytest.raises(InputError, match="there are no documents"):
                merge_shards(key, num_shards, tmp_path)


def test_a_shard_is_built_once(tmp_path, monkeypatch):
    source = one_file(tmp_path)
    first = build_all(source, 2, tmp_path / "caches")
    monkeypatch.setattr(token_cache, "build_token_cache", None)
    assert [cache.path for cache in build_all(source, 2, tmp_path / "caches")] == [cache.path for cache in first]


class TestWhatCannotBeMerged:
    @pytest.fixture
    def source(self, tmp_path):
        return one_file(tmp_path)

    @pytest.fixture
    def shards(self, tmp_path, source):
        return build_all(source, 3, tmp_path / "caches")

    @pytest.fixture
    def refused(self, tmp_path, source):
        def check(message, num_shards=3, tokenizer=None, **options):
            key = text_key(source, tokenizer or byte_tokenizer(), **options)
            before = sorted((tmp_path / "caches").iterdir())
            with pytest.raises(InputError, match=message) as caught:
                merge_shards(key, num_shards, tmp_path / "caches")
            assert "\n" not in str(caught.value)
            after = sorted((tmp_path / "caches").iterdir())
            assert [path for path in after if path.suffix != ".lock"] == [
                path for path in before if path.suffix != ".lock"
            ]

        return check

    def test_missing_shards(self, shards, refused):
        shutil.rmtree(shards[0].path)
        shutil.rmtree(shards[2].path)
        refused(r"some of the 3 shards of '.*corpus.txt' are not in .*: build shard 0, 2 with the same data")

    def test_another_number(self, shards, refused):
        refused(r"build shard 0, 1 with .* \(there are shards of num_shards=3\)", num_shards=2)

    def test_another_tokenizer(self, shards, refused):
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens(["document"])
        refused(r"\(there is '.*-00000-of-00003', made with a different tokenizer\)", tokenizer=tokenizer)

    def test_other_options(self, shards, refused):
        refused(
            r"made with separator=.* instead of '--', max_documents=None instead of 9", max_documents=9, separator="--"
        )

    def test_other_data(self, shards, refused, source):
        source.write_text("other text")
        refused("made with a different source")

    def test_a_renamed_shard(self, tmp_path, source, shards, refused):
        other = cached_tokens(source, byte_tokenizer(), tmp_path / "caches", max_documents=3, shard=Shard(3, 1))
        shutil.rmtree(shards[1].path)
        other.path.rename(shards[1].path)
        refused("-00001-of-00003' was made with max_documents=3 instead of None: build shard 1 of 3 again")

    def test_another_shard_in_its_place(self, shards, refused):
        shutil.rmtree(shards[1].path)
        shutil.copytree(shards[0].path, shards[1].path)
        refused("-00001-of-00003' was made with index=0 instead of 1: build shard 1 of 3 again")

    @pytest.mark.parametrize("file", ["tokens.bin", "document_starts.bin", "meta.json"])
    def test_a_damaged_shard(self, tmp_path, source, shards, refused, file):
        file = shards[1].path / file
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        refused("-00001-of-00003' is damaged")
        assert build_all(source, 3, tmp_path / "caches")[1].digest == shards[1].digest
        merge_shards(text_key(source, byte_tokenizer()), 3, tmp_path / "caches")


def test_an_interrupted_merge_changes_nothing(tmp_path, monkeypatch):
    source, key = one_file(tmp_path), text_key(one_file(tmp_path), byte_tokenizer())
    whole = cached_tokens(source, byte_tokenizer(), tmp_path / "one")
    shards = build_all(source, 2, tmp_path / "caches")

    def interrupt(*args):
        raise KeyboardInterrupt

    for place, name in ((token_cache, "publish"), (merging, "_remove")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                merge_shards(key, 2, tmp_path / "caches")
        assert key.path(tmp_path / "caches").exists() == (name == "_remove")
        assert all(TokenCache.open(shard.path).digest == shard.digest for shard in shards)
    assert contents(merge_shards(key, 2, tmp_path / "caches")) == contents(whole)
    assert not any(shard.path.exists() for shard in shards)


def test_a_merge_holds_no_tokens(tmp_path, monkeypatch):
    source = datasets.Dataset.from_dict({"text": ["x" * 4_000_000] * 2 + ["y"] * 4})
    build_all(source, 3, tmp_path)
    monkeypatch.setattr(digests, "READ_BYTES", 1 << 16)
    tracemalloc.start()
    try:
        merged = merge_shards(text_key(source, byte_tokenizer()), 3, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 < merged.tokens.nbytes
    finally:
        tracemalloc.stop()
