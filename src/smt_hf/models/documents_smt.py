"""Where documents begin inside a window."""

import torch
from torch import nn


def check_attention_mask(attention_mask: torch.Tensor, batch_size: int, length: int, earlier: int = 0) -> torch.Tensor:
    """The mask of the columns at hand, bool `(B, T)`.

    Args:
        attention_mask: `(B, T)`, or `(B, earlier + T)`; 0 for padding.
        batch_size: B.
        length: T.
        earlier: columns that were read before.

    Raises:
        ValueError: for a mask of another shape.
    """
    shape = tuple(getattr(attention_mask, "shape", ()))
    if len(shape) != 2:
        raise ValueError(
            f"attention_mask has shape {shape}: only padding can be masked here, position by position; give "
            f"{(batch_size, length)} with 0 for padding, and document_ids for documents that must not see each other"
        )
    if shape not in {(batch_size, length), (batch_size, earlier + length)}:
        together = f", or {(batch_size, earlier + length)} with the {earlier} columns read before" if earlier else ""
        raise ValueError(
            f"attention_mask has shape {shape} and the inputs {(batch_size, length)}: give a mask of that shape{together}"
        )
    return attention_mask[:, shape[1] - length :].bool()


def separate_padding(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, document_ids: torch.Tensor | None
) -> torch.Tensor | None:
    """Document ids `(B, T)` in which padding is a document of its own, -1: nothing goes into it or out of it.

    Args:
        input_ids: `(B, T)`.
        attention_mask: `(B, T)`, 0 for padding.
        document_ids: `(B, T)`; one document a row when `None`.

    Returns:
        The ids, or `None` where there is neither padding nor a second document to speak of.
    """
    if attention_mask is None:
        return document_ids
    check_attention_mask(attention_mask, *input_ids.shape)
    document_ids = torch.zeros_like(input_ids) if document_ids is None else document_ids
    return document_ids.masked_fill(attention_mask == 0, -1)


def document_starts(input_ids: torch.Tensor, document_ids: torch.Tensor | None) -> torch.Tensor:
    """Bool `(B, T)`: where a token is the first of its document within the window."""
    documents = torch.zeros_like(input_ids) if document_ids is None else document_ids
    return nn.functional.pad(documents[:, 1:] != documents[:, :-1], (1, 0), value=True)


def tokens_read(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, document_ids: torch.Tensor | None
) -> torch.Tensor:
    """How many tokens of its document, padding left out, come before each column of the window: `(B, T)`.

    Args:
        input_ids: `(B, T)`, of which only the shape and the device matter.
        attention_mask: `(B, T)`, 0 for padding anywhere.
        document_ids: `(B, T)`; one document a row when `None`.
    """
    valid = torch.ones_like(input_ids) if attention_mask is None else (attention_mask != 0).long()
    earlier = valid.cumsum(dim=1) - valid
    begins = document_starts(input_ids, document_ids)
    return earlier - earlier.masked_fill(~begins, 0).cummax(dim=1).values


def packed_documents(
    position_ids: torch.Tensor | None, shape: tuple[int, int], attention_mask: torch.Tensor | None
) -> torch.Tensor | None:
    """Document ids `(B, T)` of packed rows as other models take them: a position 0 after the first begins a document.

    Args:
        position_ids: `(B, T)`, `(1, T)` or `(T,)`, counted from 0 within every document.
        shape: `(B, T)`.
        attention_mask: `(B, T)`; positions of padding, where it is 0, mean nothing.

    Returns:
        The ids, or `None` where no row holds a second document.
    """
    if position_ids is None:
        return None
    begins = (position_ids[..., -shape[1] :] == 0).expand(shape)
    if attention_mask is not None:
        begins = begins & attention_mask[:, -shape[1] :].bool()
    begins = nn.functional.pad(begins[:, 1:], (1, 0))
    return begins.cumsum(dim=1) if begins.any() else None
