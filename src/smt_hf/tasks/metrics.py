"""The accuracy on the labelled steps of a task."""

import torch

from ..errors import InputError
from ..losses import IGNORED


def task_accuracy(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """The exact share of the labelled steps that are right.

    Args:
        predictions: ids `(N, T)`, or logits `(N, T, V)`, of which the largest counts.
        labels: `(N, T)`; -100 means no label.

    Raises:
        InputError: for shapes that do not match, or if there is no label.
    """
    right, labelled = _right(predictions, labels)
    return int(right.sum()) / int(labelled.sum())


def row_accuracy(predictions: torch.Tensor, labels: torch.Tensor) -> float:
    """The exact share of the rows whose labelled steps are all right; rows without a label do not count.

    Args:
        predictions: ids `(N, T)`, or logits `(N, T, V)`, of which the largest counts.
        labels: `(N, T)`; -100 means no label.

    Raises:
        InputError: for shapes that do not match, or if there is no label.
    """
    right, labelled = _right(predictions, labels)
    counted = labelled.any(dim=-1)
    return int(((right == labelled).all(dim=-1) & counted).sum()) / int(counted.sum())


def _right(predictions, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a prediction matches its label, and where there is a label, each `(N, T)` bool."""
    predictions, labels = torch.as_tensor(predictions), torch.as_tensor(labels)
    if predictions.ndim == labels.ndim + 1 and predictions.shape[:-1] == labels.shape:
        predictions = predictions.argmax(dim=-1)
    elif predictions.shape != labels.shape or predictions.is_floating_point():
        raise InputError(
            f"predictions are {predictions.dtype} of shape {tuple(predictions.shape)} and labels of shape "
            f"{tuple(labels.shape)}: pass ids of the labels' shape, or logits with one more dimension"
        )
    labelled = labels != IGNORED
    if not labelled.any():
        raise InputError("no step has a label, all are -100: pass labels for at least one step")
    return (predictions == labels) & labelled, labelled
