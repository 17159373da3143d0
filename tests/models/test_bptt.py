"""Back-propagation through time in the student: truncated, and recomputed in segments."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from tests.conftest import tiny_model

EXACT = {"rtol": 0, "atol": 1e-9}
DOCUMENTS = torch.tensor([[0] * 14, [0] * 5 + [1] * 9, [0] * 4 + [1] * 4 + [2] * 6])


def gradients(student, logits, tokens):
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    return torch.autograd.grad(loss, list(student.parameters()))


def naive_logits(student, tokens, horizon, documents, mask):
    """Token by token, the memory detached after every `horizon` tokens of a document; padding moves nothing."""
    logits = []
    for row in range(len(tokens)):
        memory, read, document = student.initial_memory[None], 0, documents[row, 0]
        for t in range(tokens.shape[1]):
            if mask[row, t]:
                if documents[row, t] != document:
                    memory, read, document = student.initial_memory[None], 0, documents[row, t]
                if read and read % horizon == 0:
                    memory = memory.detach()
                memory, read = student.update(memory, tokens[row, t : t + 1]), read + 1
            logits.append(student.readout(memory)[0])
    return torch.stack(logits).unflatten(0, tokens.shape)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("horizon", [1, 4, 5, 7])
def test_a_truncated_gradient_is_that_of_the_naive_loop(student, tokens, horizon, plain):
    mask, options, documents = torch.ones_like(tokens), {}, DOCUMENTS[:1].expand(3, -1)
    if not plain:
        mask[0, :4], mask[1, 7:9], mask[2, 12:], mask[2, 4:6] = 0, 0, 0, 0
        options = {"documents": DOCUMENTS, "attention_mask": mask}
        documents = DOCUMENTS
    expected = naive_logits(student, tokens, horizon, documents, mask)
    logits = student(tokens, bptt_horizon=horizon, **options).logits
    torch.testing.assert_close(logits, expected, **EXACT)
    whole = gradients(student, student(tokens, **options).logits, tokens)
    found = gradients(student, logits, tokens)
    for mine, theirs in zip(found, gradients(student, expected, tokens), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)
    assert max((mine - other).abs().max() for mine, other in zip(found, whole, strict=True)) > 1e-3


@pytest.mark.parametrize("horizon", [14, 99])
def test_a_long_horizon_is_full_bptt(student, tokens, horizon):
    results = [student(tokens, bptt_horizon=h).logits for h in (None, horizon)]
    for mine, theirs in zip(*(gradients(student, logits, tokens) for logits in results), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("steps", [1, 3, 4, 14, 99])
def test_recomputed_segments_change_nothing(student, tokens, horizon, steps):
    options = {"documents": DOCUMENTS, "bptt_horizon": horizon}
    results = [student(tokens, checkpoint_steps=c, **options).logits for c in (None, steps)]
    torch.testing.assert_close(results[1], results[0], **EXACT)
    for mine, theirs in zip(*(gradients(student, logits, tokens) for logits in results), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_of_the_library(student, tokens, packed, reentrant):
    """With packed rows too, whose documents run side by side."""
    positions = torch.stack([torch.arange(14), torch.arange(14) % 4, torch.arange(14) % 9]) if packed else None
    student.train()
    expected = gradients(student, student(tokens, position_ids=positions).logits, tokens)
    student.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert student.is_gradient_checkpointing
    student(tokens, position_ids=positions, labels=tokens).loss.backward()
    for parameter, theirs in zip(student.parameters(), expected, strict=True):
        if not packed:  # the library's loss is taken in float32, and leaves out what begins a document
            torch.testing.assert_close(parameter.grad, theirs, rtol=1e-5, atol=1e-6)
    checkpointed = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    student.gradient_checkpointing_disable()
    student(tokens, position_ids=positions, labels=tokens).loss.backward()
    for parameter, mine in zip(student.parameters(), checkpointed, strict=True):
        torch.testing.assert_close(mine, parameter.grad, **EXACT)


def saved_bytes(student, length, **options) -> int:
    """Bytes that the forward pass keeps for the backward pass, every storage once, parameters left out."""
    tokens = torch.randint(20, (2, length), generator=torch.Generator().manual_seed(0))
    own = {parameter.untyped_storage().data_ptr() for parameter in student.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = student(tokens, **options)
    assert output.logits.requires_grad
    return sum(kept.values())


def test_recomputation_keeps_little_for_the_backward_pass():
    student = tiny_model(vocab_size=20).export_student().train()
    plain = [saved_bytes(student, length) for length in (64, 256)]
    assert 3.5 < plain[1] / plain[0] < 4.5
    # what is left: memories, features and logits, and while a segment is recomputed what its steps keep
    for options in ({"checkpoint_steps": 16}, {"checkpoint_steps": 16, "bptt_horizon": 64}):
        kept = [saved_bytes(student, length, **options) for length in (64, 256)]
        assert kept[1] - kept[0] < (plain[1] - plain[0]) / 20
    segment = saved_bytes(student, 16)
    assert saved_bytes(student, 256, checkpoint_steps=16) + segment < plain[1] / 8
    student.gradient_checkpointing_enable()
    assert saved_bytes(student, 256) == saved_bytes(student, 256, checkpoint_steps=16)
