"""The terms of a loss, and a training step as a value that they are computed from."""

from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from typing import Any

import torch

from ..batch import IGNORED, Batch
from ..losses import LossTerm, distillation


@dataclass(frozen=True, eq=False)
class Step:
    """What one micro-batch trains: made once, read by model, losses, counts and logs.

    Attributes:
        batch: the tokens, documents and targets.
        plan: which columns the step looks at; drawn from the seed and the optimiser step alone.
        targets: by the name of the term: token ids, or 0 where something else is compared; -100 for what does not count.
        chosen: `(N,)` on the CPU, which of all encoded memory tokens the uniformity loss looks at, if there is one.
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
    """One term of a loss. The entry in a trainer's list is all there is to it: weight, count, log and `--help` follow.

    Attributes:
        name: as it is logged; the weight is the argument `{name}_weight`.
        weight: the argument's default.
        help: what `--help` says of the argument.
        loss: from the model's output and the term's targets to a [`LossTerm`]; or, of a term without targets, from the output
            and the [`Step`] to a scalar.
        targets: from a [`Batch`] and a plan to what the term is compared with, see [`Step`].
    """

    name: str
    weight: float
    help: str
    loss: Callable[..., LossTerm | torch.Tensor]
    targets: Callable[[Batch, Any], torch.Tensor] | None = None


def kd_term(logits: Callable, targets: Callable[[Batch, Any], torch.Tensor]) -> Term:
    """The term of a student that also learns the predictions of its teacher's backbone.

    Args:
        logits: from the model's output to the student's logits.
        targets: as in [`Term`]: where predictions count.
    """

    def loss(output, targets, temperature=1.0):
        return distillation(logits(output), output.backbone_logits, targets, temperature)

    return Term("kd", 0.0, "Weight of the distance to the predictions of the teacher's backbone.", loss, targets)


def at_temperature(term: Term, temperature: float) -> Term:
    """A [`kd_term`] at a temperature."""
    return replace(term, loss=partial(term.loss, temperature=temperature))


def weights_of(terms: tuple[Term, ...]) -> type:
    """A dataclass with the weights of these terms, a base of a trainer's arguments."""
    fields = [
        (f"{term.name}_weight", float, field(default=term.weight, metadata={"help": term.help})) for term in terms
    ]
    return make_dataclass("Weights", fields)


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that belongs to one optimiser step of one run.

    Every micro-batch and every process of a step so looks at the same columns, and a resumed run at those of an
    uninterrupted one.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
