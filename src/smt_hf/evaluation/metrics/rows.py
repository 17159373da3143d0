"""The rows that a metric is given, as tensors."""

import numpy as np
import torch

from ...batch import IGNORED
from ...errors import InputError
from ...rollout import next_token_losses


def stack_rows(rows, name: str) -> torch.Tensor:
    """Rows of one shape as a tensor `(N, ...)`.

    Args:
        rows: `N` nested lists or arrays.
        name: their name, for the error.

    Raises:
        InputError: if there is no row, or their shapes differ.
    """
    if len(rows) == 0:
        raise InputError(f"{name} is empty: pass at least one row")
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return torch.from_numpy(rows)
    try:
        stacked = np.stack([_as_array(row) for row in rows])
    except ValueError as error:
        lengths = sorted({len(row) for row in rows})
        raise InputError(
            f"{name} has rows of different shapes (lengths {lengths}): cut the rows to one shape, or pad them and set their "
            f"references to {IGNORED} there"
        ) from error
    return torch.from_numpy(stacked)


def _as_array(row) -> np.ndarray:
    array = np.asarray(row)
    return np.stack([_as_array(part) for part in array]) if array.dtype == object else array


def token_losses(predictions, references) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of given rows, and which of them count.

    Args:
        predictions: `N` rows of logits `(T, V)` for the tokens of `references`, or of their losses `(T,)` in nats.
        references: `N` rows of token ids `(T,)`; -100 does not count.

    Returns:
        Losses in nats, float64 `(N, T)`, and bool `(N, T)`.

    Raises:
        InputError: if shapes do not belong together, an id has no logit, a loss is negative, or nothing counts.
    """
    given, targets = stack_rows(predictions, "predictions"), stack_rows(references, "references")
    if given.shape[:2] != targets.shape:
        raise InputError(
            f"predictions are of shape {tuple(given.shape)} and references of shape {tuple(targets.shape)}: pass a row of "
            "logits, or a loss, for every reference"
        )
    counted = targets != IGNORED
    if not counted.any():
        raise InputError(f"no reference counts, all are {IGNORED}: pass at least one token id")
    if given.ndim == 2:
        lowest = given[counted].min().item()
        if lowest < -1e-3:  # more than rounding
            raise InputError(f"a loss of {lowest:.4g} nats is negative: pass logits, or minus the log-probabilities")
        return given.double(), counted
    vocab_size = given.shape[-1]
    wrong = targets[counted & ((targets < 0) | (targets >= vocab_size))]
    if len(wrong):
        raise InputError(
            f"reference {int(wrong[0])} is neither {IGNORED} nor one of the {vocab_size} ids that have a logit: fix the "
            "references"
        )
    rows = [next_token_losses(torch.nn.Identity(), *row) for row in zip(given.split(1), targets.split(1), strict=True)]
    return torch.cat(rows).double(), counted
