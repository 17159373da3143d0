"""Rollouts of the student on its own states, and the matching teacher states, for training and evaluation."""

import torch

from .losses import squared_distance
from .models.cache_smt_rnn import SmtRnnCache
from .models.documents_smt import document_starts


@torch.no_grad()
def rollout(student, input_ids, memory=None, documents=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs the student over a sequence and returns its states.

    Args:
        student: an `SmtRnnForCausalLM`.
        input_ids: `(B, T)`.
        memory: `(B, K, D)` to start from; the learned initial memory when `None`.
        documents: `(B, T)`; the memory is reset at every document after the first.

    Returns:
        The states before and after every token, each `(B, T, K, D)`.
    """
    if memory is None:
        memory = student.model.start_memory(len(input_ids))
    options = {"documents": documents, "output_memory": True, "use_cache": False}
    after = student.model(input_ids, cache=SmtRnnCache(memory), **options).memory
    before = torch.cat([memory[:, None], after[:, :-1]], dim=1)
    if documents is not None:
        begins = document_starts(documents)
        begins[:, 0] = False
        before = torch.where(begins[..., None, None], student.initial_memory, before)
    return before, after


@torch.no_grad()
def next_token_losses(readout, before: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of every token, predicted from the state before it.

    Args:
        readout: a function from memories `(..., K, D)` to logits `(..., V)`.
        before: `(B, T, K, D)`.
        input_ids: `(B, T)`.

    Returns:
        `(B, T)`.
    """
    logits = readout(before).float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), input_ids.flatten(), reduction="none").view(
        input_ids.shape
    )


@torch.no_grad()
def teacher_states(teacher, input_ids, positions, documents=None, chunk_size=64):
    """The teacher's states after the given positions, encoded a few positions at a time to limit memory use.

    Args:
        teacher: an `SmtTeacherModel`.
        input_ids: `(B, T)`.
        positions: `(N,)` in -1..T-1.
        documents: `(B, T)`, -1 for padding.
        chunk_size: number of positions encoded in one pass.

    Returns:
        `(B, N, K, D)`.
    """
    chunks = positions.split(chunk_size)
    return torch.cat([encode_positions(teacher, input_ids, chunk, documents).memory for chunk in chunks], dim=1)


@torch.no_grad()
def encode_positions(teacher, input_ids, positions, documents=None, backbone_logits: bool = False):
    """Encodes positions `(N,)` with the teacher, which sees only the tokens up to the last of them.

    Args:
        teacher: an `SmtTeacherModel`.
        input_ids: `(B, T)`; `documents` has the same shape.
        positions: in -1..T-1.
        backbone_logits: also return the predictions of the teacher's backbone.

    Returns:
        The output of the teacher's forward pass.
    """
    context = slice(0, max(int(positions.max()) + 1, 1))
    seen = None if documents is None else documents[:, context]
    options = {"documents": seen, "output_backbone_logits": backbone_logits, "return_dict": True}
    return teacher(input_ids[:, context], positions, **options)


@torch.no_grad()
def teacher_rollout(teacher, input_ids, documents=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's counterpart of [`rollout`]: its states before and after every token of a window, each `(B, T, K, D)`.

    Every document begins from the empty context.
    """
    positions = torch.arange(-1, input_ids.shape[1])
    states = teacher_states(teacher, input_ids, positions, documents=documents)
    before = states[:, :-1]
    if documents is not None:
        before = torch.where(document_starts(documents)[..., None, None], states[:, :1], before)
    return before, states[:, 1:]


@torch.no_grad()
def drift(student, teacher, input_ids, documents=None) -> torch.Tensor:
    """Mean squared distance between the student's own state and the teacher's at every step of a cold-start rollout.

    Args:
        student: an `SmtRnnForCausalLM`.
        teacher: an `SmtTeacherModel`.
        input_ids: `(B, T)`; `documents` has the same shape.

    Returns:
        `(T,)`, averaged over the batch and the values of a memory.
    """
    target = teacher_rollout(teacher, input_ids, documents)[1]
    after = rollout(student, input_ids, documents=documents)[1]
    return squared_distance(after, target).mean(dim=0)


# ---- DMT: reaching the student's own states without a gradient ---------------------------------------------------------


@torch.no_grad()
def sweep_states(student, teacher_states, input_ids, begins, num_sweeps: int) -> torch.Tensor:
    """Runs exact bounded rollouts from every segment of a window at once.

    One sweep runs all segments in parallel and passes the end state of each to the next. After n sweeps, the state before
    a segment is what the student reaches from the teacher's state n segments earlier (or from the first state, if there
    are fewer). With segments of one token, these are exact n-step rollouts from every position.

    Args:
        student: an `SmtRnnForCausalLM`.
        teacher_states: `(B, S, K, D)`, the teacher's states before the segments.
        input_ids: `(B, S, J)`.
        begins: bool `(B, S, J)`, tokens that begin a document and so are read from the initial memory; or `None`.
        num_sweeps: n.

    Returns:
        The student's states before the segments, `(B, S, K, D)`.
    """
    num_segments = input_ids.shape[1]
    states = teacher_states
    for _ in range(min(num_sweeps, num_segments - 1)):
        ends = unroll_segments(student, states[:, :-1], input_ids[:, :-1], begins)
        if begins is not None:
            ends = torch.where(begins[:, 1:, 0, None, None], student.initial_memory, ends)
        states = torch.cat([teacher_states[:, :1], ends], dim=1)
    return states


@torch.no_grad()
def sequential_states(student, teacher_states, input_ids, begins) -> torch.Tensor:
    """The paper's rollout: from the first state on, the student runs alone. Arguments and result as for [`sweep_states`]."""
    states = [teacher_states[:, :1]]
    for segment in range(input_ids.shape[1] - 1):
        part = slice(segment, segment + 1)
        end = unroll_segments(student, states[-1], input_ids[:, part], None if begins is None else begins[:, part])
        if begins is not None:
            end = torch.where(begins[:, segment + 1, 0, None, None, None], student.initial_memory, end)
        states.append(end)
    return torch.cat(states, dim=1)


def unroll_segments(student, states, input_ids, begins=None) -> torch.Tensor:
    """The student's states `(B, S, K, D)` after segments `(B, S, J)` that start from `states` `(B, S, K, D)`."""
    num_segments = input_ids.shape[1]
    _, ends = student.model.unroll(
        student.model.embed_tokens(input_ids.flatten(0, 1)),
        states.flatten(0, 1),
        begins=None if begins is None else begins[:, :num_segments].flatten(0, 1),
        keep=1,
    )
    return ends.unflatten(0, states.shape[:2])
