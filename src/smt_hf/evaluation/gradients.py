"""How strongly a loss depends on the memories before it: what BPTT and SMT have to learn from."""

import torch
import torch.nn.functional as F

from ..batch import IGNORED
from ..errors import InputError
from ..losses import squared_distance
from ..rollout import teacher_rollout


def bptt_gradient_norms(student, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Norms of the gradient of the last labelled step's loss with respect to the student's own memories.

    Args:
        student: an `SmtRnnForCausalLM`.
        input_ids: `(B, T)`.
        labels: `(B, T)`, aligned; -100 is no label. The loss is that of the last column with labels.

    Returns:
        `(T + 1,)`: the norm of `dL/dm_t`, averaged over the rows, for the memory before any token, after the first, and so
        on; 0 after the labelled step.

    Raises:
        InputError: if there is no label.
    """
    labelled = (labels != IGNORED).any(dim=0).nonzero()
    if not len(labelled):
        raise InputError("no step has a label, all are -100: pass labels for at least one step")
    column = int(labelled[-1])
    with torch.enable_grad():
        memory = student.model.start_memory(len(input_ids)).detach().requires_grad_()
        memories = [memory]
        for t in range(column + 1):
            memory = student.update(memory, input_ids[:, t])
            memories.append(memory)
        loss = F.cross_entropy(
            student.readout(memory).float(), labels[:, column], ignore_index=IGNORED, reduction="sum"
        )
        gradients = torch.autograd.grad(loss, memories)
    norms = torch.stack([gradient.flatten(1).norm(dim=1).mean() for gradient in gradients])
    return F.pad(norms, (0, input_ids.shape[1] - column - 1))


def smt_gradient_norms(student, teacher, input_ids: torch.Tensor) -> torch.Tensor:
    """Norms of the gradient of every transition's dynamics loss with respect to the memory that it starts from.

    No path of SMT is longer than its segments: the loss of a transition reaches the memory before it directly, whatever
    the distance to the beginning or the end of the sequence.

    Args:
        student: an `SmtRnnForCausalLM`.
        teacher: its `SmtTeacherModel`.
        input_ids: `(B, T)`.

    Returns:
        `(T,)`: the norm of `dL_dyn/dm_t`, averaged over the rows, at the memory before each token.
    """
    before, after = teacher_rollout(teacher, input_ids)
    with torch.enable_grad():
        before = before.detach().requires_grad_()
        moved = student.update(before.flatten(0, 1), input_ids.flatten()).unflatten(0, input_ids.shape)
        (gradient,) = torch.autograd.grad(squared_distance(moved, after).sum(), before)
    return gradient.flatten(2).norm(dim=2).mean(dim=0)
