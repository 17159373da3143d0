"""Documents: which tokens of a window belong together, and where each document begins."""

from collections.abc import Mapping

import torch
from torch import nn


def check_attention_mask(attention_mask: torch.Tensor, batch_size: int, length: int, earlier: int = 0) -> torch.Tensor:
    """Checks an attention mask and returns its part for the current columns, bool `(B, T)`.

    Args:
        attention_mask: `(B, T)`, or `(B, earlier + T)`; 0 for padding.
        batch_size: B.
        length: T.
        earlier: number of columns read before.

    Raises:
        ValueError: for a mask of another shape.
    """
    shape = tuple(getattr(attention_mask, "shape", ()))
    if len(shape) != 2:
        raise ValueError(
            f"attention_mask has shape {shape}: only padding can be masked, position by position; pass "
            f"{(batch_size, length)} with 0 for padding, and `documents` for documents that must not see each other"
        )
    if shape not in {(batch_size, length), (batch_size, earlier + length)}:
        together = f", or {(batch_size, earlier + length)} with the {earlier} columns read before" if earlier else ""
        raise ValueError(
            f"attention_mask has shape {shape}, but the inputs have {(batch_size, length)}: pass a mask of that shape{together}"
        )
    return attention_mask[:, shape[1] - length :].bool()


def columns_on(device: torch.device, columns: torch.Tensor) -> torch.Tensor:
    """Moves column indices to a device. Those of a plan are on the CPU, where reading them does not wait for a GPU."""
    return columns.to(device, non_blocking=columns.device.type == "cpu")


def check_names(arguments: Mapping) -> None:
    """Refuses keyword arguments that a forward pass would ignore.

    Raises:
        TypeError: for the name that `documents` had in version 0.1.
        ValueError: for fields of packed rows from collators of other models, if there are no positions, and for attentions.
    """
    if arguments.get("document_ids") is not None:
        raise TypeError("document_ids is now called documents: rename the argument or the column")
    for name in ("seq_idx", "cu_seq_lens_q", "cu_seq_lens_k"):
        if arguments.get(name) is not None and arguments.get("position_ids") is None:
            raise ValueError(
                f"{name} is not supported: let the collator return position_ids, which keep documents apart"
            )
    if arguments.get("output_attentions"):
        raise ValueError(
            "output_attentions=True: a memory does not attend to earlier tokens, so there are no attentions; leave it out"
        )


def check_columns(shape: tuple[int, ...], **columns: torch.Tensor | None) -> None:
    """Checks that each given column has one item for every token.

    Args:
        shape: `(B, T)` of the tokens.
        columns: columns by name, or `None`.

    Raises:
        ValueError: naming the column and both shapes.
    """
    for name, column in columns.items():
        if column is not None and tuple(column.shape) != tuple(shape):
            raise ValueError(
                f"{name} has shape {tuple(column.shape)}, but the inputs have {tuple(shape)}: pass one for every token"
            )


def separate_padding(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Returns documents `(B, T)` in which padding is -1.

    Args:
        input_ids: `(B, T)`, of which only the shape and the device matter.
        attention_mask: `(B, T)`, 0 for padding.
        documents: `(B, T)`; when `None`, derived from `position_ids`, see [`packed_documents`], or else one document per row.
        position_ids: positions of packed rows.

    Returns:
        The documents, or `None` if each row is one document without padding.
    """
    mask = None if attention_mask is None else check_attention_mask(attention_mask, *input_ids.shape)
    if documents is None:
        documents = packed_documents(position_ids, tuple(input_ids.shape), mask)
    if mask is None:
        return documents
    return (torch.zeros_like(input_ids) if documents is None else documents).masked_fill(~mask, -1)


def document_starts(documents: torch.Tensor) -> torch.Tensor:
    """Bool `(B, T)`: whether a token is the first of its document within the window; padding, -1, belongs to no document."""
    real = documents >= 0
    columns = torch.arange(documents.shape[1], device=documents.device)
    last_real = torch.where(real, columns, -1).cummax(dim=1).values
    before = nn.functional.pad(last_real[:, :-1], (1, 0), value=-1)  # the last real token before each column
    return real & ((before < 0) | (documents.gather(1, before.clamp(min=0)) != documents))


def last_columns(documents: torch.Tensor) -> torch.Tensor:
    """The column of the last real token of every row, `(B, 1)`; -1 if the row is all padding."""
    columns = torch.arange(documents.shape[1], device=documents.device)
    return torch.where(documents >= 0, columns, -1).amax(dim=1, keepdim=True)


def tokens_read(documents: torch.Tensor) -> torch.Tensor:
    """The number of tokens of the same document before each column of the window, without padding: `(B, T)`."""
    real = (documents >= 0).long()
    earlier = real.cumsum(dim=1) - real
    return earlier - earlier.masked_fill(~document_starts(documents), 0).cummax(dim=1).values


def cuts_between(bptt_horizon: int, length: int, attention_mask, documents) -> list[bool] | torch.Tensor:
    """The tokens before which the memory is detached, `(T,)` or `(B, T)`: after every H tokens of a document, without padding."""
    if documents is None and attention_mask is None:
        return [0 < t and t % bptt_horizon == 0 for t in range(length)]
    documents = attention_mask.long() - 1 if documents is None else documents
    read = tokens_read(documents)
    return (documents >= 0) & (read > 0) & (read % bptt_horizon == 0)


def packed_documents(
    position_ids: torch.Tensor | None, shape: tuple[int, int], attention_mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Documents `(B, T)` of rows packed as for other models: every position 0 after the first token begins a document.

    Args:
        position_ids: `(B, T)`, `(1, T)` or `(T,)`, counted from 0 within every document.
        shape: `(B, T)`.
        attention_mask: `(B, T)`, 0 for padding, whose positions are ignored.

    Returns:
        The documents, or `None` if no row has more than one.
    """
    if position_ids is None:
        return None
    begins = (position_ids[..., -shape[1] :] == 0).expand(shape)
    if attention_mask is not None:
        mask = attention_mask[:, -shape[1] :].bool()
        begins = begins & mask & (mask.cumsum(dim=1) > 1)  # the first token after padding begins no second document
    begins = nn.functional.pad(begins[:, 1:], (1, 0))
    return begins.cumsum(dim=1) if begins.any() else None


def own_labels(
    labels: torch.Tensor,
    attention_mask: torch.Tensor | None,
    documents: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    continues: bool,
) -> torch.Tensor:
    """The labels `(B, T)`, with -100 at padding and at the first token of every document, which nothing before it predicts.

    If a row `continues` from a cache and holds one document, its first token is predicted.
    """
    begins = documents is not None or not continues
    if attention_mask is not None:
        attention_mask = attention_mask[:, -labels.shape[1] :]
    documents = separate_padding(labels, attention_mask, documents, None if continues else position_ids)
    if documents is None:
        return labels
    ignored = documents < 0
    return labels.masked_fill(ignored | document_starts(documents) if begins else ignored, -100)
