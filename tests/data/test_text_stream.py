"""A corpus that is read as it comes: what the readers read, against all documents at hand."""

import itertools
import json

import datasets
import numpy as np
import pytest
import torch

from smt_hf.data import TextStream
from smt_hf.data.stream_documents import DocumentReader, open_shards
from smt_hf.data.stream_loader import StreamBatches
from smt_hf.data.stream_packing import RunningRows, Shuffled, Windows
from smt_hf.errors import InputError

LENGTHS = [3, 40, 1, 7, 90, 2, 17, 5, 29, 11, 8, 60]
TEXTS = [f"{number:02d}" + "abcdefghij"[number % 10] * length for number, length in enumerate(LENGTHS * 4)]
EOS = 256


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr("smt_hf.data.stream_documents.CHUNK_CHARACTERS", 100)
    monkeypatch.setattr("smt_hf.data.stream_loader.STATE_EVERY", 5)


@pytest.fixture
def folder(tmp_path):
    """Three shards of documents."""
    for shard in range(3):
        rows = [json.dumps({"text": text}) + "\n" for text in TEXTS[shard::3]]
        (tmp_path / f"part-{shard}.jsonl").write_text("".join(rows) + json.dumps({"text": ""}) + "\n")
    return tmp_path


def take(stage, number):
    return [stage.next() for _ in range(number)]


def text_of(ids):
    assert ids[-1] == EOS
    return bytes(ids[:-1].tolist()).decode()


def split_at_eos(ids):
    return bytes(0 if id == EOS else id for id in ids).decode().split("\0")


def reader(source, tokenizer, number=0, num_readers=1):
    return DocumentReader(*open_shards(source), tokenizer, number, num_readers)


@pytest.mark.parametrize("num_readers", [1, 2, 3, 4, 5, 7])
def test_every_document_once_a_pass(folder, tokenizer, num_readers):
    seen = []
    for number in range(num_readers):
        documents = reader(folder, tokenizer, number, num_readers)
        first = []
        while (text := text_of(documents.next())) not in first:
            first.append(text)
        second = [text] + [text_of(document) for document in take(documents, len(first) - 1)]
        assert sorted(second) == sorted(first)  # the second pass has begun, and is as whole
        seen += first
    assert sorted(seen) == sorted(TEXTS)


def test_shards_come_in_another_order_in_every_pass(folder, tokenizer):
    documents = reader(folder, tokenizer)
    passes = [[text_of(document) for document in take(documents, len(TEXTS))] for _ in range(6)]
    assert len({tuple(each) for each in passes}) > 1 and all(sorted(each) == sorted(TEXTS) for each in passes)


def stages(source, tokenizer):
    """Every stage over new documents."""

    def documents():
        return reader(source, tokenizer)

    return {
        "documents": documents,
        "shuffled": lambda: Shuffled(documents(), 7, (0,)),
        "windows": lambda: Windows(documents(), 16),
        "shuffled windows": lambda: Shuffled(Windows(documents(), 16), 5, (0,)),
        "rows": lambda: RunningRows(Shuffled(documents(), 4, (0,)), 3, 8),
    }


def as_json(stage):
    return json.dumps(stage.state(), default=lambda array: array.tolist())


@pytest.mark.parametrize("kind", ["documents", "shuffled", "windows", "shuffled windows", "rows"])
def test_a_stage_goes_on_from_any_state(folder, tokenizer, kind):
    make = stages(folder, tokenizer)[kind]
    whole, states, pieces = make(), [], []
    for _ in range(130):
        states.append(as_json(whole))
        pieces.append(whole.next())
    for begin in (0, 1, 4, 5, 6, 7, 48, 49, 97, 124):
        resumed = make()
        resumed.load(json.loads(states[begin]))
        for piece, expected in zip(take(resumed, 5), pieces[begin : begin + 5], strict=True):
            np.testing.assert_equal(piece, expected)
        assert as_json(resumed) == states[begin + 5]


def test_windows_are_the_running_text(folder, tokenizer):
    documents = np.concatenate(take(reader(folder, tokenizer), 2 * len(TEXTS)))
    windows = take(Windows(reader(folder, tokenizer), 16), 100)
    np.testing.assert_equal(np.concatenate([ids for ids, _ in windows]), documents[: 16 * 100])
    for ids, numbers in windows:  # a document ends with its eos token
        np.testing.assert_equal(numbers, np.concatenate([[0], np.cumsum(ids == EOS)[:-1]]))


def test_a_buffer_gives_every_piece_once(folder, tokenizer):
    plain, shuffled = reader(folder, tokenizer), Shuffled(reader(folder, tokenizer), 7, (0,))
    for _ in range(4):
        expected, got = ([text_of(piece) for piece in take(stage, 7)] for stage in (plain, shuffled))
        assert sorted(got) == sorted(expected)


def test_rows_run_through_whole_documents(folder, tokenizer):
    rows = RunningRows(reader(folder, tokenizer), 3, 8)
    texts, finished = [[] for _ in range(3)], []
    for _ in range(150):
        ids, documents, continued = rows.next()
        for row in range(3):
            text = texts[row]
            if text:
                assert text[-1] == ids[row, 0]  # the target of the segment before
                assert continued[row] == (len(text) > 1 and text[-2] != EOS)
                text.pop()
            else:
                assert not continued[row]
            text.extend(ids[row].tolist())
            np.testing.assert_equal(documents[row], np.concatenate([[0], np.cumsum(ids[row] == EOS)[:-1]]))
    for text in texts:
        finished += split_at_eos(text)[:-1]
    assert set(finished) == set(TEXTS)


# ---- the batches of a training -------------------------------------------------------------------------------------


def batches(stream, number, **options):
    taken = list(itertools.islice(iter(StreamBatches(stream, **options)), number))
    return [{name: values.clone() for name, values in batch.items()} for batch in taken]


def rows_of(batches_):
    return torch.cat([batch["input_ids"] for batch in batches_])


@pytest.mark.parametrize("running", [False, True])
def test_the_same_steps_however_they_are_dealt_out(folder, tokenizer, running):
    stream = TextStream(folder, tokenizer, 12, num_readers=4, shuffle_buffer_size=6)
    if running:
        stream = stream.as_running_text(11)
    whole = batches(stream, 9, batch_size=8)
    accumulated = batches(stream, 18, batch_size=4, num_batches=2)
    for step in range(9):
        assert torch.equal(rows_of(accumulated[2 * step : 2 * step + 2]), rows_of(whole[step : step + 1]))
    for num_processes in (2, 4):
        parts = [
            batches(stream, 9, batch_size=8 // num_processes, process=process, num_processes=num_processes)
            for process in range(num_processes)
        ]
        for step in range(9):
            for name in whole[step]:
                assert torch.equal(torch.cat([part[step][name] for part in parts]), whole[step][name])


def test_workers_change_nothing(folder, tokenizer):
    stream = TextStream(folder, tokenizer, 12, num_readers=2, shuffle_buffer_size=6)
    assert torch.equal(
        rows_of(batches(stream, 8, batch_size=4, num_workers=2)), rows_of(batches(stream, 8, batch_size=4))
    )


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 5, 6, 13])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_goes_on_in_mid_stream(folder, tokenizer, tmp_path, running, steps, num_workers):
    stream = TextStream(folder, tokenizer, 12, num_readers=2, shuffle_buffer_size=6)
    if running:
        stream = stream.as_running_text(11)
    whole = rows_of(batches(stream, 40, batch_size=2, num_batches=2))
    begun = StreamBatches(stream, batch_size=2, num_batches=2, num_workers=num_workers)
    read = iter(begun)
    before = rows_of([next(read) for _ in range(2 * steps)])
    begun.save(tmp_path, is_main_process=True)
    del read
    resumed = StreamBatches(stream, batch_size=4)  # dealt out otherwise
    resumed.go_on(tmp_path, steps)
    read = iter(resumed)
    assert [next(read) for _ in range(steps)] == [{}] * steps
    after = rows_of([next(read) for _ in range(20 - steps)])
    assert torch.equal(torch.cat([before, after]), whole)


def test_killed_at_any_step_no_document_is_lost_or_read_twice(folder, tokenizer, tmp_path):
    """Resumed after every step, the documents of a pass come out whole and once."""
    stream = TextStream(folder, tokenizer, 8, shuffle_buffer_size=1)
    ids, steps = [], 0
    total = sum(len(text) + 1 for text in TEXTS)
    while len(ids) < total:
        part = StreamBatches(stream, batch_size=1)
        if steps:
            part.go_on(tmp_path, steps)
        read = iter(part)
        ids += list(itertools.islice(read, steps, steps + 1))[0]["input_ids"].flatten().tolist()
        part.save(tmp_path, is_main_process=True)
        steps += 1
    documents = split_at_eos(ids[:total])
    assert documents.pop() == "" and sorted(documents) == sorted(TEXTS)


# ---- sources and refusals --------------------------------------------------------------------------------------------


def test_sources(folder, tokenizer, tmp_path):
    table = datasets.Dataset.from_dict({"story": TEXTS, "other": list(range(len(TEXTS)))})
    for source in (table, table.to_iterable_dataset(num_shards=3), datasets.DatasetDict({"train": table})):
        stream = TextStream(source, tokenizer, 16, text_column="story", shuffle_buffer_size=1)
        first = next(iter(stream))
        assert first["input_ids"].shape == first["documents"].shape == (16,)
    text = tmp_path / "one.txt"
    text.write_text("<|endoftext|>".join(TEXTS))
    documents = reader(text, tokenizer)
    assert [text_of(document) for document in take(documents, len(TEXTS))] == TEXTS
    few = DocumentReader(*open_shards(text, max_documents=3), tokenizer)
    assert [text_of(document) for document in take(few, 4)] == [*TEXTS[:3], TEXTS[0]]


def test_identity(folder, tokenizer):
    stream = TextStream(folder, tokenizer, 16)
    assert stream.identity() == TextStream(folder, tokenizer, 16).identity()
    for other in (TextStream(folder, tokenizer, 16, seed=1), TextStream(folder, tokenizer, 16, max_documents=5)):
        assert other.identity() != stream.identity()
    (folder / "part-0.jsonl").write_text(json.dumps({"text": "another"}) + "\n")
    assert TextStream(folder, tokenizer, 16).identity() != stream.identity()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_processes": 3}, "num_readers=2 is not a multiple of the 3 processes and workers"),
        ({"num_workers": 4}, "num_readers=2 is not a multiple of the 4"),
        ({"batch_size": 3}, "num_readers=2 does not divide the 3 rows of a step"),
    ],
)
def test_readers_that_cannot_be_shared_out(folder, tokenizer, options, message):
    with pytest.raises(InputError, match=message):
        StreamBatches(TextStream(folder, tokenizer, 16, num_readers=2), **{"batch_size": 2, **options})


def test_refusals(folder, tokenizer, tmp_path):
    with pytest.raises(InputError, match="no column 'title': set text_column to one of text"):
        TextStream(datasets.Dataset.from_dict({"text": TEXTS}), tokenizer, 16, text_column="title")
    with pytest.raises(InputError, match="no column 'title'"):
        TextStream(folder, tokenizer, 16, text_column="title")
    with pytest.raises(InputError, match="window_length is 0: pass 1 or more"):
        TextStream(folder, tokenizer, 0)
    with pytest.raises(InputError, match="contains no documents"):
        TextStream(datasets.Dataset.from_dict({"text": []}), tokenizer, 16)
    empty = datasets.Dataset.from_dict({"text": ["", None]})
    with pytest.raises(InputError, match="reader 1 of 1 finds no document"):
        next(iter(TextStream(empty, tokenizer, 16)))
    numbers = datasets.Dataset.from_dict({"text": [1, 2]})
    with pytest.raises(InputError, match="has int in column 'text'"):
        next(iter(TextStream(numbers, tokenizer, 16)))
    with pytest.raises(InputError, match="has no text_stream.json"):
        StreamBatches(TextStream(folder, tokenizer, 16), 2).go_on(tmp_path, 1)
