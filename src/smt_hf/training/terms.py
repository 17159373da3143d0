"""The terms of a loss, and the training step as a value from which they are computed."""

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from typing import Any

import torch

from ..batch import IGNORED, Batch
from ..losses import LossTerm, distillation


@dataclass(frozen=True, eq=False)
class Step:
    """The training data of one micro-batch: built once, and read by model, losses, counts and logs.

    Attributes:
        batch: the tokens, documents and targets.
        plan: the columns that the step uses; drawn from the seed and the optimiser step alone.
        targets: by the name of the term: token ids, or 0 if something else is compared; -100 for what does not count.
        chosen: `(N,)` on the CPU, indices of the encoded memory tokens for the uniformity loss, if there is one.
    """

    batch: Batch
    plan: Any
    targets: dict[str, torch.Tensor]
    chosen: torch.Tensor | None = None

    def counts(self) -> dict[str, torch.Tensor]:
        """The number of items of every averaged term."""
        return {name: (targets != IGNORED).sum() for name, targets in self.targets.items()}


@dataclass(frozen=True)
class Term:
    """One term of a loss. Adding it to a trainer's list is enough: weight, count, log and `--help` follow from it.

    Attributes:
        name: name in the logs; the weight is the argument `{name}_weight`.
        weight: default of that argument.
        help: `--help` text of that argument.
        loss: maps the model's output and the term's targets to a [`LossTerm`]; for a term without targets, maps the output
            and the [`Step`] to a scalar.
        targets: maps a [`Batch`] and a plan to the term's targets, see [`Step`].
    """

    name: str
    weight: float
    help: str
    loss: Callable[..., LossTerm | torch.Tensor]
    targets: Callable[[Batch, Any], torch.Tensor] | None = None


def kd_term(logits: Callable, targets: Callable[[Batch, Any], torch.Tensor]) -> Term:
    """The term for a student that also learns the predictions of its teacher's backbone.

    Args:
        logits: maps the model's output to the student's logits.
        targets: as in [`Term`]; they mark where predictions count.
    """

    def loss(output, targets, temperature=1.0):
        return distillation(logits(output), output.backbone_logits, targets, temperature)

    return Term("kd", 0.0, "Weight of the distance to the predictions of the teacher's backbone.", loss, targets)


def at_temperature(term: Term, temperature: float) -> Term:
    """A copy of a [`kd_term`] at a given temperature."""
    return replace(term, loss=partial(term.loss, temperature=temperature))


def weights_of(terms: tuple[Term, ...]) -> type:
    """A dataclass with the weights of these terms, as a base class for a trainer's arguments."""
    fields = [
        (f"{term.name}_weight", float, field(default=term.weight, metadata={"help": term.help})) for term in terms
    ]
    return make_dataclass("Weights", fields)


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator for one optimiser step of one run.

    With it, every micro-batch and every process of a step uses the same columns, and a resumed run uses the same ones as an
    uninterrupted run.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
