import pickle

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments, default_data_collator

from smt_hf.data import TokenWindows, build_token_cache, byte_tokenizer, evenly_spaced_windows
from smt_hf.errors import InputError


@pytest.fixture
def cache(tmp_path):
    """20 documents of 3 to 9 bytes, each with its eos."""
    texts = [chr(97 + i) * (3 + i % 7) for i in range(20)]
    return build_token_cache(texts, byte_tokenizer(), tmp_path / "cache")


def documents(cache, start, length):
    """The numbering by its definition: the document of each token, counted from that of the first."""
    documents = np.repeat(np.arange(cache.num_documents), np.diff([*cache.document_starts, cache.num_tokens]))
    return (documents[start : start + length] - documents[start]).tolist()


def start_of(cache, input_ids):
    """Where a window was taken; the test corpus repeats no window of 12 tokens."""
    windows = np.lib.stride_tricks.sliding_window_view(cache.tokens, len(input_ids))
    (start,) = (windows == input_ids.numpy()).all(1).nonzero()[0]
    return int(start)


def test_contiguous_windows(cache):
    windows = TokenWindows(cache, 12, random_offset=False)
    assert len(windows) == cache.num_tokens // 12
    for epoch in (0, 5):
        windows.set_epoch(epoch)
        for i, item in enumerate(windows):
            assert item["input_ids"].tolist() == cache.tokens[12 * i : 12 * i + 12].tolist()
            assert item["documents"].tolist() == documents(cache, 12 * i, 12)
            assert item["input_ids"].dtype == item["documents"].dtype == torch.int64


def test_every_start_and_length_numbers_documents_from_0(cache):
    for length in (1, 2, 5, cache.num_tokens):
        windows = evenly_spaced_windows(cache, length, cache.num_tokens - length + 1)
        for start, (input_ids, numbers) in enumerate(zip(*windows.values(), strict=True)):
            assert input_ids.tolist() == cache.tokens[start : start + length].tolist()
            assert numbers.tolist() == documents(cache, start, length)


def test_random_offsets_stay_near_and_inside(cache):
    windows = TokenWindows(cache, 12, seed=1)
    starts = set()
    for epoch in range(200):
        windows.set_epoch(epoch)
        for i, item in enumerate(windows):
            start = start_of(cache, item["input_ids"])
            assert max(0, 12 * i - 6) <= start <= 12 * i + 5
            assert item["documents"].tolist() == documents(cache, start, 12)
            starts.add(start)
    last = min(12 * (len(windows) - 1) + 5, cache.num_tokens - 12)
    assert starts == set(range(last + 1))


def test_offsets_depend_on_seed_epoch_and_index_only(cache):
    def take(seed, epoch):
        windows = TokenWindows(cache, 12, seed=seed)
        windows.set_epoch(epoch)
        return torch.stack([item["input_ids"] for item in windows])

    assert take(1, 2).equal(take(1, 2))
    assert not take(1, 2).equal(take(1, 3))
    assert not take(1, 2).equal(take(2, 2))
    windows = TokenWindows(cache, 12, seed=1)
    assert windows[3]["input_ids"].equal(take(1, 0)[3])
    assert windows[-1]["input_ids"].equal(take(1, 0)[-1])


def test_a_corpus_of_one_window(cache):
    windows = TokenWindows(cache, cache.num_tokens)
    assert len(windows) == 1
    assert windows[0]["input_ids"].tolist() == cache.tokens.tolist()
    with pytest.raises(IndexError):
        windows[1]


def test_evenly_spaced_windows(cache):
    windows = evenly_spaced_windows(cache, 12, 4)
    last = cache.num_tokens - 12
    starts = [0, last // 3, 2 * last // 3, last]
    assert windows["input_ids"].tolist() == [cache.tokens[s : s + 12].tolist() for s in starts]
    assert windows["documents"].tolist() == [documents(cache, s, 12) for s in starts]
    one = evenly_spaced_windows(cache, 12, 1)
    assert one["input_ids"].tolist() == [cache.tokens[:12].tolist()]


def test_errors(cache):
    count = cache.num_tokens
    for make in (TokenWindows, lambda *arguments: evenly_spaced_windows(*arguments, 2)):
        with pytest.raises(InputError, match=f"has {count} tokens but a window needs {count + 1}: .* of {count} or"):
            make(cache, count + 1)
        with pytest.raises(InputError, match="window_length is 0"):
            make(cache, 0)
    with pytest.raises(InputError, match="num_windows is 0"):
        evenly_spaced_windows(cache, 12, 0)
    with pytest.raises(InputError, match="seed is -1"):
        TokenWindows(cache, 12, seed=-1)


def test_default_data_collator_makes_the_batches(cache):
    windows = TokenWindows(cache, 12)
    batch = default_data_collator([windows[0], windows[1]])
    assert set(batch) == {"input_ids", "documents"}
    for name in batch:
        assert batch[name].equal(torch.stack([windows[0][name], windows[1][name]]))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_see_set_epoch(cache, context):
    windows = TokenWindows(cache, 12)
    assert len(pickle.dumps(windows)) < 5000
    loader = torch.utils.data.DataLoader(
        windows, num_workers=1, persistent_workers=True, multiprocessing_context=context, batch_size=len(windows)
    )
    for epoch in (0, 1):
        windows.set_epoch(epoch)
        (batch,) = loader
        assert batch["input_ids"].equal(torch.stack([item["input_ids"] for item in windows]))


def test_trainer_sets_the_epoch(cache, tmp_path):
    class Recorder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen = []

        def forward(self, input_ids, documents):
            self.seen.append(sorted(input_ids.tolist()))
            return {"loss": self.weight.square()}

    windows = TokenWindows(cache, 12)
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        num_train_epochs=3,
        per_device_train_batch_size=len(windows),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    model = Recorder()
    Trainer(model, arguments, train_dataset=windows, data_collator=default_data_collator).train()
    for epoch in range(3):
        windows.set_epoch(epoch)
        assert model.seen[epoch] == sorted(item["input_ids"].tolist() for item in windows)
