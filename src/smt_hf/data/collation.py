"""From rows of tokens to batches, without a pad token: `attention_mask` and `documents` say what is padding."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from ..batch import IGNORED
from ..errors import InputError, one_line

# The padding of columns that have one item per token, `(T,)` in each row.
PADDING = {
    "input_ids": 0,
    "attention_mask": 0,
    "documents": -1,
    "labels": -100,
    "shift_labels": -100,
    "position_ids": 0,
    "token_type_ids": 0,
}


def collate(rows: Sequence[Mapping]) -> dict[str, torch.Tensor]:
    """Collates rows into a batch; the data collator of the trainers.

    Rows of different lengths are padded on the right, and get an `attention_mask` if they have none.

    Args:
        rows: rows with the same columns: lists, arrays or tensors of numbers. Columns with one item per token, `(T,)`, are
            `input_ids`, `attention_mask`, `documents`, `labels`, `shift_labels`, `position_ids` and
            `token_type_ids`; others have the same shape in all rows.

    Returns:
        The columns; those with one item per token are int64 `(B, T)`.

    Raises:
        InputError: for rows without `input_ids`, and for columns that differ between rows, hold anything but numbers, or do not
            fit each other.
    """
    if not isinstance(rows[0], Mapping):
        raise InputError(
            f"a row of the data is of type {type(rows[0]).__name__}: pass dictionaries with the column 'input_ids'"
        )
    names = list(rows[0])
    check_token_ids(names)
    if "document_ids" in names:
        raise InputError("column 'document_ids' is now called 'documents': rename it")
    for number, row in enumerate(rows):
        if set(row) != set(names):
            raise InputError(
                f"row {number} of a batch has the columns {', '.join(row)}, but the first row has {', '.join(names)}: "
                "all rows must have the same columns"
            )
    columns = {name: [_tensor(row[name], name) for row in rows] for name in names}
    lengths = _lengths({name: values for name, values in columns.items() if name in PADDING})
    if len(set(lengths)) > 1 and "attention_mask" not in columns:
        columns["attention_mask"] = [torch.ones(length, dtype=torch.long) for length in lengths]
    batch = {}
    for name, values in columns.items():
        if name in PADDING:
            values = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=PADDING[name])
        elif len({value.shape for value in values}) == 1:
            values = torch.stack(values)
        else:
            shapes = ", ".join(str(tuple(value.shape)) for value in values[:4])
            raise InputError(
                f"column {name!r} has rows of the shapes {shapes}, which cannot be padded: remove the column, or pass a "
                "data_collator"
            )
        batch[name] = values
    return batch


def check_token_ids(names: Iterable[str]) -> None:
    """Checks that the data have a column of token ids.

    Raises:
        InputError: naming the existing columns.
    """
    if "input_ids" not in names:
        raise InputError(
            f"the data have no column 'input_ids' (columns: {', '.join(names) or 'none'}): tokenize the texts, or rename the column of "
            "token ids"
        )


def check_whole_numbers(columns: Mapping) -> None:
    """Checks that a batch from any data collator has token ids, and whole numbers in the columns that have one per token.

    Raises:
        InputError: naming the column.
    """
    check_token_ids(columns)
    for name in ("input_ids", "documents", "labels", "shift_labels"):
        values = columns.get(name)
        if values is None:
            continue
        if not isinstance(values, torch.Tensor):
            raise InputError(
                f"{name} of a batch is of type {type(values).__name__}: let the data_collator return tensors"
            )
        if values.is_floating_point() or values.is_complex():
            dtype = str(values.dtype).removeprefix("torch.")
            raise InputError(f"{name} are of type {dtype}: pass whole numbers")


def check_vocabulary(columns: Mapping, vocab_size: int) -> None:
    """Checks that every token id in a batch has an embedding, and that every label that counts has a logit.

    Raises:
        InputError: naming the id.
    """
    read = "labels" if columns.get("shift_labels") is None else "shift_labels"
    labels = columns.get(read)
    if labels is not None:
        wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= vocab_size))]
        if len(wrong):
            raise InputError(
                f"{read} contain {int(wrong[0])}, which is neither {IGNORED} nor one of the model's {vocab_size} ids: "
                "correct the labels"
            )
    low, high = torch.stack(torch.aminmax(columns["input_ids"])).tolist()
    if low < 0 or high >= vocab_size:
        raise InputError(
            f"token id {low if low < 0 else high} is outside the model's vocabulary of {vocab_size} ids: use the "
            "tokenizer that the model was made for, or make the model with a larger vocab_size"
        )


class CheckedCollator:
    """A data collator that checks its batches on the host, where they are made: later, a check would wait for the device.

    Args:
        collator: makes the batches.
        vocab_size: number of ids that the model has.

    Raises:
        InputError: when called, for a batch that a training cannot read.
    """

    def __init__(self, collator: Callable, vocab_size: int):
        self.collator, self.vocab_size = collator, vocab_size

    def __call__(self, rows):
        batch = self.collator(rows)
        check_whole_numbers(batch)
        check_vocabulary(batch, self.vocab_size)
        return batch


def _tensor(value, name: str) -> torch.Tensor:
    try:
        value = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"column {name!r} contains {type(value).__name__}, which cannot be converted to a tensor of numbers "
            f"({one_line(error)[:100]}): remove the column"
        ) from error
    whole = not value.is_floating_point() or value.numel() == 0  # an empty list becomes a float tensor
    return value.long() if name in PADDING and whole else value


def _lengths(columns: dict[str, list[torch.Tensor]]) -> list[int]:
    """The number of tokens of every row."""
    lengths = []
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        shapes = {name: tuple(value.shape) for name, value in zip(columns, values, strict=True)}
        if len(set(shapes.values())) != 1 or values[0].ndim != 1:
            said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(
                f"row {number} of a batch has {said}: each must have the same number of items, one per token, as in (T,)"
            )
        lengths.append(len(values[0]))
    return lengths
