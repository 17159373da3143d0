import pickle
import random

import pytest
import torch
from transformers import default_data_collator

from smt_hf.errors import InputError
from smt_hf.tasks import TASKS, Retrieval, Stack, TaskDataset, load_task, to_datasets

TASK = Stack(length=12)


def take(dataset, epoch=0):
    dataset.set_epoch(epoch)
    return torch.stack([torch.stack([item["input_ids"], item["shift_labels"]]) for item in dataset])


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_of_the_blocks(name):
    task = load_task(name)
    rows = TaskDataset(task, 600, seed=7)
    rows.set_epoch(2)
    for i in (0, 255, 256, 599, -1):
        block = task.sample(256, (7, 2, range(600)[i] // 256))
        for column in ("input_ids", "shift_labels"):
            assert rows[i][column].dtype == torch.int64
            assert rows[i][column].equal(block[column][range(600)[i] % 256])


def test_rows_depend_neither_on_order_nor_on_their_number():
    expected = take(TaskDataset(TASK, 700))
    order = random.Random(0).sample(range(300), 300)
    shorter = TaskDataset(TASK, 300)
    for i in order:
        assert shorter[i]["input_ids"].equal(expected[i, 0])
    assert len(shorter) == 300
    with pytest.raises(IndexError):
        shorter[300]


def test_epochs_and_seeds_bring_new_rows():
    dataset = TaskDataset(TASK, 300, seed=1)
    first, second = take(dataset, 0), take(dataset, 1)
    assert not first[:256].equal(second[:256]) and not first[256:].equal(second[256:])
    assert take(dataset, 0).equal(first)
    assert not first.equal(take(TaskDataset(TASK, 300, seed=2)))


def test_only_one_epoch_is_kept():
    dataset = TaskDataset(Retrieval(length=64), 2000)
    for epoch in range(3):
        take(dataset, epoch)
    kept = sum(rows.nbytes for block in dataset._blocks.values() for rows in block.values())
    assert kept == 2048 * 64 * 4
    assert len(pickle.dumps(dataset)) < 5000


def test_ids_above_16_bits():
    item = TaskDataset(Retrieval(length=64, num_symbols=10**6), 1)[0]
    assert item["input_ids"].max() > 1 << 16
    assert item["shift_labels"][-1] in item["input_ids"]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_see_set_epoch(context):
    dataset = TaskDataset(TASK, 20)
    loader = torch.utils.data.DataLoader(
        dataset, num_workers=1, persistent_workers=True, multiprocessing_context=context, batch_size=20
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        (batch,) = loader
        expected = take(dataset, epoch)
        assert batch["input_ids"].equal(expected[:, 0]) and batch["shift_labels"].equal(expected[:, 1])


def test_default_data_collator_makes_the_batches():
    dataset = TaskDataset(TASK, 20)
    batch = default_data_collator([dataset[0], dataset[1]])
    assert set(batch) == {"input_ids", "shift_labels"}
    for name in batch:
        assert batch[name].equal(torch.stack([dataset[0][name], dataset[1][name]]))


@pytest.mark.parametrize("num_rows", [1, 256, 300])
def test_to_datasets(num_rows):
    converted = to_datasets(TASK, num_rows, seed=4)
    assert converted.column_names == ["input_ids", "shift_labels"]
    columns = [torch.tensor(converted[name][:]) for name in converted.column_names]
    assert torch.stack(columns, dim=1).equal(take(TaskDataset(TASK, num_rows, seed=4)))


@pytest.mark.parametrize("make", [TaskDataset, to_datasets])
def test_errors(make):
    with pytest.raises(InputError, match="num_rows is 0"):
        make(TASK, 0)
    with pytest.raises(InputError, match="seed is -1"):
        make(TASK, 2, seed=-1)
