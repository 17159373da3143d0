"""What the reports on text and on images have in common."""

import math

import torch

from . import metrics


def loss_scores(losses: torch.Tensor, references: torch.Tensor) -> dict:
    """The metric `rollout_loss` of losses `(N, T)` in nats and tokens `(N, T)`; its standard error is `None` for one row."""
    scores = metrics.compute("rollout_loss", predictions=losses, references=references)
    error = scores["standard_error"]
    return scores | {"standard_error": None if math.isnan(error) else round(error, 4)}


def drift_curve(distances: list[torch.Tensor]) -> list[float]:
    """The drift of batches of squared distances `(N, T)`. The metric takes states, which would be gigabytes here."""
    return rounded(torch.cat(distances).double().mean(dim=0).tolist(), 6)


def rounded(values: list[float], digits: int = 4) -> list[float]:
    """Rounds values for a report."""
    return [round(value, digits) for value in values]
