"""The losses of SMT, DMT and BPTT, as pure functions on tensors.

Every loss is returned as a `LossTerm`: the sum over its items and the number of items. A trainer divides the sum by the
number of items in the whole optimiser step, so gradient accumulation and several processes give the same result as one
batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from .batch import IGNORED
from .models.documents_smt import columns_on
from .models.layers_smt import squared_distance


class LossTerm(NamedTuple):
    """A loss before averaging: the sum over its items, and how many items there are (both scalars)."""

    total: torch.Tensor
    count: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """The mean over the items; 0 when there are none."""
        return self.total / self.count.clamp(min=1)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> LossTerm:
    """Cross-entropy in nats of `logits` `(..., V)` against `targets` `(...)`; targets of -100 are ignored."""
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return LossTerm(total, (targets != IGNORED).sum())


def distillation(logits: torch.Tensor, taught: torch.Tensor, targets: torch.Tensor, temperature: float) -> LossTerm:
    """Knowledge distillation (Hinton et al., arXiv 1503.02531): `T^2 KL(p_T || q_T)` in nats of softened predictions.

    Args:
        logits: `(..., V)`, the student's logits.
        taught: `(..., V)`, the logits to imitate; they receive no gradient.
        targets: `(...)`, -100 where the prediction does not count.
        temperature: T; both logits are divided by it.
    """
    log_q = (logits.float() / temperature).log_softmax(dim=-1)
    log_p = (taught.detach().float() / temperature).log_softmax(dim=-1)
    counted = targets != IGNORED
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
    return LossTerm((divergence * counted).sum() * temperature**2, counted.sum())


def dynamics(predicted: torch.Tensor, target: torch.Tensor, counted: torch.Tensor) -> LossTerm:
    """Mean squared error of transitions between memories `(..., K, D)`: `L_dyn` (Kumar & Isola).

    Args:
        predicted: the student's memories.
        target: the teacher's memories.
        counted: `(...)`, -100 for transitions that do not count.
    """
    valid = counted != IGNORED
    return LossTerm((squared_distance(predicted, target) * valid).sum(), valid.sum())


def uniformity(memory: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
    """Uniformity loss `log mean exp(-2 ||u_a - u_b||^2)` over pairs of L2-normalised memory tokens (Kumar & Isola).

    Args:
        memory: `(..., K, D)`.
        chosen: `(N,)`, indices of the tokens to use, from [`sample_tokens`]; all tokens when `None`.

    Returns:
        A scalar between -8 (no two tokens near each other) and 0 (all the same). It is not a sum over items: with
        gradient accumulation or several processes, each batch has its own value.
    """
    tokens = F.normalize(memory.float().flatten(0, -2), dim=-1)
    if chosen is not None:
        tokens = tokens[columns_on(tokens.device, chosen)]
    return torch.pdist(tokens).square().mul(-2).exp().mean().log()


def sample_tokens(num_tokens: int, num_samples: int = 512, generator: torch.Generator | None = None):
    """Draws the memory tokens `(num_samples,)` for the uniformity loss; `None` (use all) if there are at most `num_samples`.

    Args:
        num_tokens: number of tokens in all memories.
        num_samples: number of tokens to draw.
        generator: CPU generator; torch's global one when `None`.
    """
    if num_tokens <= num_samples:
        return None
    return torch.randperm(num_tokens, generator=generator)[:num_samples]


def effective_rank(memory: torch.Tensor) -> torch.Tensor:
    """Effective rank of memory tokens `(..., D)`: the exponential of the entropy of their covariance's spectrum.

    Between 1 (all on one line, or all the same) and D; NaN if any value is not finite. It does not depend on how far
    apart the tokens are. Roy & Vetterli, The effective rank, EUSIPCO 2007, computed from eigenvalues.
    """
    tokens = memory.detach().float().flatten(0, -2)
    if not tokens.isfinite().all():
        return tokens.new_tensor(float("nan"))
    tokens = tokens - tokens.mean(dim=0)
    spectrum = torch.linalg.eigvalsh(tokens.T @ tokens).clamp(min=0)
    weights = spectrum / spectrum.sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    return torch.special.entr(weights).sum().exp()


def memory_variance(memory: torch.Tensor) -> torch.Tensor:
    """Variance between memories `(..., K, D)` as a fraction of their mean square, over all K x D values.

    A scalar between 0 (all memories are the same: collapsed) and 1; NaN if any value is not finite. Unlike the effective
    rank, it measures how far apart memories are. Differences among the K tokens of one memory do not raise it.
    """
    memories = memory.detach().float().flatten(0, -3)
    mean_square = memories.square().mean().clamp(min=torch.finfo(memories.dtype).tiny)
    return memories.var(dim=0, correction=0).mean() / mean_square
