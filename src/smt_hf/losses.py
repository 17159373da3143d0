"""The losses of SMT, DMT and BPTT, as pure functions on tensors.

Every loss is returned as a `LossTerm`: the sum over its items and the number of items. A trainer divides the sum by the
number of items in the whole optimiser step, so that gradient accumulation and several processes give what one batch
gives.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from .models.documents_smt import document_starts, separate_padding, tokens_read

IGNORED = -100


class LossTerm(NamedTuple):
    """A loss before averaging: the sum over its items, and how many items there are (both scalars)."""

    total: torch.Tensor
    count: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """The mean over the items; 0 when there are none."""
        return self.total / self.count.clamp(min=1)


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> LossTerm:
    """Cross-entropy in nats of `logits` `(..., V)` against `targets` `(...)`; -100 is ignored."""
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    return LossTerm(total, (targets != IGNORED).sum())


def dynamics(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> LossTerm:
    """Mean squared error of one-step transitions, `L_dyn` (Kumar & Isola).

    Args:
        predicted: memories `(..., K, D)`.
        target: memories `(..., K, D)`.
        valid: bool `(...)`, which transitions count.

    Returns:
        The sum over transitions of the error averaged over the K x D numbers of a memory.
    """
    error = (predicted.float() - target.float()).square().mean(dim=(-2, -1))
    return LossTerm((error * valid).sum(), valid.sum())


def uniformity(memory: torch.Tensor, num_samples: int = 512, generator: torch.Generator | None = None) -> torch.Tensor:
    """Uniformity loss `log mean exp(-2 ||u_a - u_b||^2)` over pairs of L2-normalised memory tokens (Kumar & Isola).

    Args:
        memory: `(..., K, D)`.
        num_samples: how many of its tokens are drawn, all when there are no more.
        generator: a CPU generator to draw them with; torch's global one when `None`.

    Returns:
        A scalar between -8 (no two tokens near each other) and 0 (all the same). It is no sum over items: with
        gradient accumulation or several processes each batch has its own.
    """
    tokens = F.normalize(memory.float().flatten(0, -2), dim=-1)
    if len(tokens) > num_samples:
        tokens = tokens[torch.randperm(len(tokens), generator=generator)[:num_samples].to(tokens.device)]
    return torch.pdist(tokens).square().mul(-2).exp().mean().log()


def next_targets(
    input_ids: torch.Tensor,
    labels: torch.Tensor | None = None,
    shift_labels: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    document_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """The target that belongs to the memory after each position.

    Args:
        input_ids: `(B, T)`.
        labels: `(B, T)` token ids at their own positions, as everywhere in `transformers`: label t + 1 is read from the
            memory after token t. -100 is ignored. `input_ids` themselves when `None`.
        shift_labels: `(B, T)` targets that are aligned already: number t is read from the memory after token t, -100 is
            ignored. They take the place of `labels`, and masks and documents do not change them.
        attention_mask: `(B, T)`, 0 for padding, which is no target.
        document_ids: `(B, T)`; the first token of a document is no target of the one before.

    Returns:
        `(B, T + 1)`: entry t + 1 is the target of the state after position t, entry 0 that of the empty context.
    """
    ignored = input_ids.new_full((len(input_ids), 1), IGNORED)
    if shift_labels is not None:
        return torch.cat([ignored, shift_labels], dim=1)
    targets = input_ids if labels is None else labels
    if attention_mask is not None:
        targets = targets.masked_fill(attention_mask == 0, IGNORED)
    begins = document_starts(input_ids, separate_padding(input_ids, attention_mask, document_ids))
    begins[:, 0] = False  # read from the empty context
    return torch.cat([targets.masked_fill(begins, IGNORED), ignored], dim=1)


def first_targets(
    labels: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    document_ids: torch.Tensor | None = None,
    continued: torch.Tensor | None = None,
) -> torch.Tensor:
    """The labels that are read from the initial memory: the first of every window and of every document in it.

    Args:
        labels: `(B, T)` token ids at their own positions, such as `input_ids`; -100 is ignored.
        attention_mask: `(B, T)`, 0 for padding anywhere.
        document_ids: `(B, T)`; one document a row when `None`.
        continued: bool `(B,)`, rows whose first document began before the window.

    Returns:
        `(B, T)`, -100 everywhere else.
    """
    first = tokens_read(labels, attention_mask, document_ids) == 0
    if attention_mask is not None:
        first &= attention_mask != 0
    if continued is not None:
        later = document_starts(labels, document_ids).cumsum(dim=1) > 1
        first &= later | ~continued[:, None]
    return labels.masked_fill(~first, IGNORED)


def future_targets(
    targets: torch.Tensor,
    positions: torch.Tensor,
    horizon: int,
    attention_mask: torch.Tensor | None = None,
    document_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """The targets of decoding `horizon` tokens from the memories after `positions`.

    Args:
        targets: `(B, T + 1)` from [`next_targets`].
        positions: `(M,)` in -1..T-1.
        horizon: T_f.
        attention_mask, document_ids: `(B, T)`, as for [`next_targets`].

    Returns:
        `(B, M, T_f)`: step j of position t is the target of the state after position t + j; -100 past the window, and
        past the document of the context.
    """
    batch_size, length = targets.shape[0], targets.shape[1] - 1
    states = positions[:, None] + torch.arange(horizon, device=targets.device)  # the state after position t + j
    inside = states < length
    future = targets[:, (states + 1).clamp(max=length)]
    documents = separate_padding(targets[:, 1:], attention_mask, document_ids)
    if documents is None:
        return future.masked_fill(~inside, IGNORED)
    own = documents[:, positions.clamp(min=0)][..., None]
    same = documents[:, states.clamp(min=0, max=length - 1)] == own
    return future.masked_fill(~(same & inside).expand(batch_size, -1, -1), IGNORED)


def smt_targets(
    input_ids: torch.Tensor,
    segment_starts: torch.Tensor,
    decoded_ids: torch.Tensor,
    positions: torch.Tensor,
    horizon: int,
    segment_length: int = 1,
    labels: torch.Tensor | None = None,
    shift_labels: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    document_ids: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """What each term of `L_smt` is compared with, or where it counts.

    Args:
        input_ids: `(B, T)`.
        segment_starts: `(S,)`, decoded_ids: `(M,)`, horizon: T_f, segment_length: J, as given to `SmtForPreTraining`.
        positions: `(P,)`, the encoded positions.
        labels, shift_labels, attention_mask, document_ids: `(B, T)`, see [`next_targets`].

    Returns:
        `decoding` `(B, M, T_f)`, `readout` `(B, P)`, `stream` `(B, last position + 1)` and `student` `(B, S, J)` target
        ids, -100 where there is none; `dynamics` `(B, S)`: -100 at segments that end in padding, 0 elsewhere.
    """
    targets = next_targets(input_ids, labels, shift_labels, attention_mask, document_ids)
    padding = torch.zeros_like(input_ids)
    if attention_mask is not None:
        padding = padding.masked_fill(attention_mask == 0, IGNORED)
    columns = segment_starts[:, None] + torch.arange(segment_length, device=input_ids.device)
    return {
        "decoding": future_targets(targets, decoded_ids, horizon, attention_mask, document_ids),
        "dynamics": padding[:, columns[:, -1]],
        "readout": targets[:, positions + 1],
        "stream": targets[:, 1 : int(positions[-1]) + 2],
        "student": targets[:, columns + 1],
    }


def smt_losses(output, targets: dict[str, torch.Tensor]) -> dict[str, LossTerm]:
    """The terms of `L_smt` that are sums over items.

    Args:
        output: an `SmtForPreTrainingOutput`.
        targets: from [`smt_targets`] for the same arguments.

    Returns:
        `decoding`, `dynamics`, `readout`, and `stream` and `student` where the model gave their logits.
    """
    terms = {
        "decoding": cross_entropy(output.decoding_logits, targets["decoding"]),
        "dynamics": dynamics(output.predicted_memory, output.target_memory, targets["dynamics"] != IGNORED),
        "readout": cross_entropy(output.readout_logits, targets["readout"]),
    }
    for name, logits in (("stream", output.stream_logits), ("student", output.student_logits)):
        if logits is not None:
            terms[name] = cross_entropy(logits, targets[name])
    return terms


def effective_rank(memory: torch.Tensor) -> torch.Tensor:
    """Effective rank of memory tokens `(..., D)`: the exponential of the entropy of their covariance's spectrum.

    Between 1 (all on one line, or all the same) and D; NaN if a number is not finite. It does not see how far apart the
    tokens are. Roy & Vetterli, The effective rank, EUSIPCO 2007, on eigenvalues.
    """
    tokens = memory.detach().float().flatten(0, -2)
    if not tokens.isfinite().all():
        return tokens.new_tensor(float("nan"))
    tokens = tokens - tokens.mean(dim=0)
    spectrum = torch.linalg.eigvalsh(tokens.T @ tokens).clamp(min=0)
    weights = spectrum / spectrum.sum().clamp(min=torch.finfo(spectrum.dtype).tiny)
    return torch.special.entr(weights).sum().exp()


def memory_variance(memory: torch.Tensor) -> torch.Tensor:
    """Variance of memories `(..., K, D)` from one to another, as a share of their mean square; over all K x D numbers.

    A scalar between 0 (all memories are the same: collapsed) and 1; NaN if a number is not finite. Unlike the effective
    rank it says how far apart memories are, and the K tokens of a memory may differ without raising it.
    """
    memories = memory.detach().float().flatten(0, -3)
    mean_square = memories.square().mean().clamp(min=torch.finfo(memories.dtype).tiny)
    return memories.var(dim=0, correction=0).mean() / mean_square
