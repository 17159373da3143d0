"""Running the student on its own states, and comparing it with the teacher."""

import torch

from .models.cache_smt_rnn import SmtRnnCache
from .models.documents_smt import document_starts


@torch.no_grad()
def rollout(student, input_ids, memory=None, document_ids=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The student's states over a sequence.

    Args:
        student: an `SmtRnnForCausalLM`.
        input_ids: `(B, T)`.
        memory: `(B, K, D)` to start from; the learned initial memory when `None`.
        document_ids: `(B, T)`; the memory starts afresh at every document after the first.

    Returns:
        The states before and after every token, each `(B, T, K, D)`.
    """
    if memory is None:
        memory = student.model.start_memory(len(input_ids))
    after = student.model(input_ids, cache=SmtRnnCache(memory), document_ids=document_ids, output_memory=True).memory
    before = torch.cat([memory[:, None], after[:, :-1]], dim=1)
    if document_ids is not None:
        begins = document_starts(input_ids, document_ids)
        begins[:, 0] = False
        before = torch.where(begins[..., None, None], student.initial_memory, before)
    return before, after


@torch.no_grad()
def next_token_losses(readout, before: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats of every token read from the state before it.

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
def teacher_states(teacher, input_ids, positions, attention_mask=None, document_ids=None, chunk_size=64):
    """The teacher's states after given positions, encoded a few positions at a time to bound the memory.

    Args:
        teacher: an `SmtTeacherModel`.
        input_ids: `(B, T)`.
        positions: `(N,)` in -1..T-1.
        attention_mask, document_ids: `(B, T)`.
        chunk_size: positions encoded in one pass.

    Returns:
        `(B, N, K, D)`.
    """
    chunks = []
    for chunk in positions.split(chunk_size):
        context = slice(0, max(int(chunk.max()) + 1, 1))
        mask = None if attention_mask is None else attention_mask[:, context]
        documents = None if document_ids is None else document_ids[:, context]
        chunks.append(teacher.encode(input_ids[:, context], chunk, mask, documents))
    return torch.cat(chunks, dim=1)


@torch.no_grad()
def teacher_rollout(teacher, input_ids, document_ids=None) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's states before and after every token of a window, each `(B, T, K, D)`, as [`rollout`] gives the
    student's; a document begins from the empty context."""
    positions = torch.arange(-1, input_ids.shape[1], device=input_ids.device)
    states = teacher_states(teacher, input_ids, positions, document_ids=document_ids)
    begins = document_starts(input_ids, document_ids)
    return torch.where(begins[..., None, None], states[:, :1], states[:, :-1]), states[:, 1:]


@torch.no_grad()
def drift(student, teacher, input_ids, document_ids=None) -> torch.Tensor:
    """Mean squared distance between the student's own state and the teacher's, by step of a cold-start rollout.

    Args:
        student: an `SmtRnnForCausalLM`.
        teacher: an `SmtTeacherModel`.
        input_ids: `(B, T)`, and `document_ids` likewise.

    Returns:
        `(T,)`, averaged over the batch and the numbers of a memory.
    """
    target = teacher_rollout(teacher, input_ids, document_ids)[1]
    after = rollout(student, input_ids, document_ids=document_ids)[1]
    return squared_distance(after, target).mean(dim=0)


def squared_distance(memory: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of memories `(..., K, D)`: `(...)`."""
    return (memory.float() - other.float()).square().mean(dim=(-2, -1))
