"""NEFTune: noise on every embedding that reads the text, while training only."""

import math

import pytest
import torch

ALPHA = 5.0


def record_noise(trainer, embedding, name, found):
    """Notes the largest noise that a training step adds to an embedding, as a share of its bound for a whole context."""
    bound = ALPHA / math.sqrt(trainer.args.context_length * embedding.embedding_dim)

    def note(module, inputs, output):
        if module.training and output.numel() and hasattr(module, "neftune_noise_alpha"):
            plain = torch.nn.functional.embedding(inputs[0], module.weight)
            found.setdefault(name, []).append(((output - plain).abs().max() / bound).item())

    def attach(*_):
        embedding.register_forward_hook(note)  # after the library's own hook

    return attach


def watched(trainer, embeddings):
    """Trains; the noise of each embedding."""
    found, training_step = {}, trainer.training_step
    attach = [record_noise(trainer, embedding, name, found) for name, embedding in embeddings.items()]

    def step(*args, **kwargs):
        while attach:
            attach.pop()()
        return training_step(*args, **kwargs)

    trainer.training_step = step
    trainer.train()
    return found


@pytest.mark.parametrize("options", [{}, {"segment_length": 4, "student_weight": 1.0}, {"horizon": 1}])
def test_smt(make_smt, options):
    trainer = make_smt(neftune_noise_alpha=ALPHA, **options)
    embeddings = {
        "teacher": trainer.model.teacher.embed_tokens,
        "student": trainer.model.student.model.embed_tokens,
    }
    found = watched(trainer, embeddings)
    assert set(found) == {"teacher", "student"}
    assert all(0.8 < share <= 1.001 for share in found["student"])  # as much as in a whole context
    assert all(share > 0.8 for share in found["teacher"])
    for embedding in embeddings.values():
        assert not hasattr(embedding, "neftune_noise_alpha") and len(embedding._forward_hooks) == 1  # the test's own


@pytest.mark.parametrize("steps", [1, 4])
def test_dmt(make_dmt, steps):
    trainer = make_dmt(neftune_noise_alpha=ALPHA, segment_length=steps)
    found = watched(trainer, {"student": trainer.model.model.embed_tokens})
    assert found["student"] and all(0.8 < share <= 1.001 for share in found["student"])
    assert not hasattr(trainer.model.model.embed_tokens, "neftune_noise_alpha")


def test_bptt(make_bptt):
    trainer = make_bptt(neftune_noise_alpha=ALPHA)
    found = watched(trainer, {"student": trainer.model.model.embed_tokens})
    assert found["student"] and all(0.8 < share <= 1.1 for share in found["student"])
