"""How DMT brings the student to its own states, without a gradient."""

import torch


@torch.no_grad()
def sweep_states(student, teacher_states, input_ids, document_ids, begins, num_sweeps: int) -> torch.Tensor:
    """Exact bounded rollouts from every segment of a window at once.

    One sweep runs all segments in parallel and hands the end of each to the next; after n sweeps the state before a
    segment is what the student makes of the teacher's state n segments earlier (or of the first state, where there are
    fewer). With segments of one token these are exact n-step rollouts from every position.

    Args:
        student: an `SmtRnnForCausalLM`.
        teacher_states: `(B, S, K, D)`, the teacher's states before the segments.
        input_ids: `(B, S, J)`, and document_ids likewise or `None`.
        begins: bool `(B, S)`, segments whose first token begins a document: they start from the initial memory.
        num_sweeps: n.

    Returns:
        The student's states before the segments, `(B, S, K, D)`.
    """
    num_segments = input_ids.shape[1]
    states = teacher_states
    for _ in range(min(num_sweeps, num_segments - 1)):
        ends = unroll_segments(student, states[:, :-1], input_ids[:, :-1], document_ids)
        ends = torch.where(begins[:, 1:, None, None], student.initial_memory, ends)
        states = torch.cat([teacher_states[:, :1], ends], dim=1)
    return states


@torch.no_grad()
def sequential_states(student, teacher_states, input_ids, document_ids, begins) -> torch.Tensor:
    """The paper's rollout: the student alone from the first state on. Arguments and result as for [`sweep_states`]."""
    states = [teacher_states[:, :1]]
    for segment in range(input_ids.shape[1] - 1):
        documents = None if document_ids is None else document_ids[:, segment : segment + 1]
        end = unroll_segments(student, states[-1], input_ids[:, segment : segment + 1], documents)
        states.append(torch.where(begins[:, segment + 1, None, None, None], student.initial_memory, end))
    return torch.cat(states, dim=1)


def unroll_segments(student, states, input_ids, document_ids=None) -> torch.Tensor:
    """The student's states `(B, S, K, D)` after segments `(B, S, J)` that start from `states` `(B, S, K, D)`."""
    num_segments = input_ids.shape[1]
    documents = None if document_ids is None else document_ids[:, :num_segments].flatten(0, 1)
    _, ends = student.model.unroll(
        student.model.embed_tokens(input_ids.flatten(0, 1)), states.flatten(0, 1), document_ids=documents, keep=1
    )
    return ends.unflatten(0, states.shape[:2])
