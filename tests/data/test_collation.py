"""Batches without a pad token."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import default_data_collator

from smt_hf.batch import Batch
from smt_hf.data import collate
from smt_hf.data.collation import PADDING, check_vocabulary, check_whole_numbers
from smt_hf.errors import InputError
from smt_hf.models.documents_smt import separate_padding
from tests.conftest import tiny_model


def row(length, **columns):
    return {"input_ids": list(range(1, length + 1)), **columns}


def test_rows_of_one_length_are_stacked():
    rows = [row(3, labels=[1, -100, 2]), row(3, labels=[4, 5, 6])]
    batch = collate(rows)
    assert {name: values.tolist() for name, values in batch.items()} == {
        name: values.tolist() for name, values in default_data_collator(rows).items()
    }
    assert all(values.dtype == torch.int64 for values in batch.values())


def test_shorter_rows_are_padded_on_the_right():
    rows = [{name: [7] * length for name in PADDING} for length in (2, 4, 1)]
    batch = collate(rows)
    assert list(batch) == list(PADDING)
    for name, padding in PADDING.items():
        assert batch[name].tolist() == [[7, 7, padding, padding], [7] * 4, [7] + 3 * [padding]]


def test_padding_is_said():
    assert "attention_mask" not in collate([row(2), row(2)])
    batch = collate([row(2, documents=[0, 1]), row(3, documents=[0, 0, 0])])
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["documents"].tolist() == [[0, 1, -1], [0, 0, 0]]
    documents = separate_padding(**batch)
    assert torch.equal(documents, batch["documents"])
    assert (
        Batch.of(batch).targets.tolist() == Batch(batch["input_ids"], documents, batch["input_ids"]).targets.tolist()
    )


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4), data=st.data())
def test_every_row_is_there_whatever_it_is_made_of(lengths, data):
    made = [
        data.draw(st.sampled_from([list, tuple, np.array, torch.tensor, lambda ids: np.array(ids, dtype=np.uint16)]))
        for _ in lengths
    ]
    rows = [{"input_ids": make(list(range(length)))} for make, length in zip(made, lengths, strict=True)]
    if 0 in lengths:  # an empty list has the type of no integer
        rows = [{"input_ids": torch.arange(length)} for length in lengths]
    batch = collate(rows)
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    assert mask.sum(dim=1).tolist() == lengths
    for ids, keep, length in zip(batch["input_ids"], mask.bool(), lengths, strict=True):
        assert ids[keep].tolist() == list(range(length))
        assert keep[:length].all() and ids.dtype == torch.int64


def test_other_columns_need_one_shape():
    rows = [row(2, begins=torch.tensor(True), weight=0.5), row(2, begins=torch.tensor(False), weight=1)]
    batch = collate(rows)
    assert batch["begins"].tolist() == [True, False] and batch["weight"].tolist() == [0.5, 1]
    assert batch["begins"].dtype == torch.bool


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row(2), row(2, labels=[1, 2])],
            "row 1 of a batch has the columns input_ids, labels, but the first row has input_ids: all",
        ),
        (
            [row(2, labels=[1])],
            r"row 0 of a batch has input_ids \(2,\), labels \(1,\): each must have the same number",
        ),
        (
            [row(2), {"input_ids": [[1, 2]]}],
            r"row 1 of a batch has input_ids \(1, 2\): each must have .* one per token",
        ),
        ([{"text": "a word"}], r"no column 'input_ids' \(columns: text\): tokenize the texts"),
        (
            [{"ids": [1, 2], "n": 1}],
            r"no column 'input_ids' \(columns: ids, n\): .* or rename the column of token ids",
        ),
        ([{}], r"no column 'input_ids' \(columns: none\)"),
        (["a word"], "a row of the data is of type str: pass dictionaries with the column 'input_ids'"),
        ([[1, 2]], "a row of the data is of type list"),
        (
            [row(2, text="a word")],
            "column 'text' contains str, which cannot be converted to a tensor of numbers .*: remove the column",
        ),
        ([row(2, labels=None)], "column 'labels' contains NoneType"),
        (
            [row(2, n=[1]), row(2, n=[1, 2])],
            r"column 'n' has rows of the shapes \(1,\), \(2,\), which cannot be padded",
        ),
    ],
)
def test_rows_that_cannot_be(rows, message):
    with pytest.raises(InputError, match=message) as caught:
        collate(rows)
    assert "\n" not in str(caught.value)


def test_an_empty_list_is_a_row_of_no_ids():
    batch = collate([{"input_ids": []}, row(2)])
    assert batch["input_ids"].dtype == torch.int64 and batch["attention_mask"].tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize("name", ["input_ids", "documents", "labels", "shift_labels"])
def test_batches_that_are_no_ids(name):
    columns = {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 3)}
    check_whole_numbers(columns)
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        with pytest.raises(InputError, match=f"{name} are of type {str(dtype)[6:]}: pass whole numbers"):
            check_whole_numbers({**columns, name: torch.ones(2, 3, dtype=dtype)})
    with pytest.raises(InputError, match=f"{name} of a batch is of type list: let the data_collator return tensors"):
        check_whole_numbers({**columns, name: [[1, 2, 3]] * 2})
    with pytest.raises(InputError, match=r"no column 'input_ids' \(columns: labels\)"):
        check_whole_numbers({"labels": columns["input_ids"]})


@pytest.mark.parametrize("bad", [10, -1])
def test_ids_that_the_model_has_not(bad):
    with pytest.raises(InputError, match=f"token id {bad} is outside the model's vocabulary of 10 ids"):
        check_vocabulary({"input_ids": torch.tensor([[1, bad]])}, 10)


@pytest.mark.parametrize("name", ["labels", "shift_labels"])
def test_labels_that_the_model_has_not(name):
    columns = {"input_ids": torch.tensor([[1, 2]]), name: torch.tensor([[-100, 11]])}
    with pytest.raises(InputError, match=f"^{name} contain 11, which is neither -100 nor one of the model's 10 ids"):
        check_vocabulary(columns, 10)
    check_vocabulary(columns, 12)
    both = {"labels": torch.tensor([[11, 11]]), "shift_labels": torch.tensor([[-100, 3]])}
    check_vocabulary({**columns, **both}, 10)  # shift_labels take the place of labels


def test_padding_changes_no_loss():
    student = tiny_model().export_student()
    rows = [{"input_ids": list(range(1, length))} for length in (9, 4, 7)]
    targets = [Batch.of({"input_ids": torch.tensor([row["input_ids"]])}).targets[:, 1:-1] for row in rows]
    batch = collate(rows)
    together = student(**batch).logits
    for i, (row, target) in enumerate(zip(rows, targets, strict=True)):
        alone = student(**collate([row])).logits[0]
        torch.testing.assert_close(together[i, : len(alone)], alone)
        padded = Batch.of(batch).targets[i, 1:-1]
        assert padded[: target.shape[1]].tolist() == target[0].tolist()
        assert (padded[target.shape[1] :] == -100).all()
