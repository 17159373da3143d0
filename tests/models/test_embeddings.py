"""The library's doors to the embeddings: of student, teacher, and both together."""

import copy

import pytest
import torch
from torch import nn

from smt_hf import SmtForPreTraining
from tests.conftest import tiny_model

EXACT = {"rtol": 0, "atol": 0}


def forward(joint, tokens):
    return joint(tokens, torch.tensor([0, 4]), torch.tensor([3]), 4, segment_length=2, read_student=True)


def assert_whole(joint, size):
    """Sizes, ties and configurations agree everywhere."""
    for embedding in (joint.teacher.embed_tokens, joint.student.model.embed_tokens):
        assert embedding.weight.shape == (size, 32) and embedding.num_embeddings == size
    heads = [joint.teacher.lm_head, joint.student.lm_head] + ([joint.stream_head] if joint.stream_head else [])
    assert all(head.weight.shape == (size, 32) and head.out_features == size for head in heads)
    assert joint.teacher.lm_head.weight is joint.student.lm_head.weight
    assert joint.teacher.embed_tokens.weight is not joint.student.model.embed_tokens.weight
    pairs = zip(joint.teacher.decoder.parameters(), joint.student.model.decoder.parameters(), strict=True)
    assert all(mine is its for mine, its in pairs)
    configs = (joint.config, joint.config.teacher_config, joint.config.student_config)
    assert [config.vocab_size for config in configs] == [size] * 3
    assert (joint.teacher.config.vocab_size, joint.student.config.vocab_size) == (size, size)


def test_they_are_the_teachers(joint):
    assert joint.get_input_embeddings() is joint.teacher.embed_tokens
    assert joint.get_output_embeddings() is joint.teacher.lm_head
    assert joint.config.vocab_size == 20 and "vocab_size" not in joint.config.to_dict()
    embedding, head = nn.Embedding(20, 32).double(), nn.Linear(32, 20, bias=False).double()
    joint.set_input_embeddings(embedding)
    joint.set_output_embeddings(head)
    assert joint.teacher.embed_tokens is embedding
    assert joint.teacher.lm_head is joint.student.lm_head is head
    joint.tie_weights()
    assert_whole(joint, 20)


@pytest.mark.parametrize("encoder_attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("size, multiple", [(24, None), (17, None), (20, None), (21, 8), (None, 16)])
def test_resizing_both(encoder_attention, size, multiple, tokens, tmp_path):
    joint = tiny_model(encoder_attention)
    tokens = tokens % 17
    before = copy.deepcopy(joint)
    with torch.no_grad():
        expected = forward(joint, tokens)
    returned = joint.resize_token_embeddings(size, pad_to_multiple_of=multiple)
    new = {None: size, 8: 24, 16: 32}[multiple]
    assert returned is joint.get_input_embeddings()
    assert_whole(joint, new)
    kept = min(new, 20)
    for name, value in before.state_dict().items():
        now = joint.state_dict()[name]
        torch.testing.assert_close(now[:kept] if now.shape != value.shape else now, value[: len(now)], **EXACT)
    output = forward(joint, tokens)
    torch.testing.assert_close(output.predicted_memory, expected.predicted_memory)
    torch.testing.assert_close(output.student_logits[..., :kept], expected.student_logits[..., :kept])
    joint.train()
    forward(joint, tokens.clamp(max=new - 1)).student_logits.sum().backward()
    joint.save_pretrained(tmp_path)
    loaded = SmtForPreTraining.from_pretrained(tmp_path)
    assert_whole(loaded, new)
    torch.testing.assert_close(forward(loaded, tokens).student_logits, output.student_logits)
    exported = joint.export_student()
    assert exported.config.vocab_size == len(exported.lm_head.weight) == new


def test_new_ids_are_read(joint, tokens):
    joint.resize_token_embeddings(30, mean_resizing=False)
    output = forward(joint, tokens + 10)
    assert output.student_logits.shape[-1] == output.stream_logits.shape[-1] == 30
    assert output.decoding_logits.isfinite().all()


def test_asking_for_no_size_changes_nothing(joint):
    state = copy.deepcopy(joint.state_dict())
    assert joint.resize_token_embeddings() is joint.teacher.embed_tokens
    assert_whole(joint, 20)
    torch.testing.assert_close(joint.state_dict(), state, **EXACT)


@pytest.mark.parametrize("size", [15, 26])
def test_resizing_one_alone(joint, student, tokens, size):
    teacher, tokens = copy.deepcopy(joint.teacher), tokens % 15
    memory, logits = teacher.encode(tokens, torch.tensor([5])), student(tokens).logits
    for model in (teacher, student):
        model.resize_token_embeddings(size)
        assert (
            model.config.vocab_size == len(model.get_input_embeddings().weight) == model.lm_head.out_features == size
        )
    kept = min(size, 20)
    torch.testing.assert_close(teacher.encode(tokens, torch.tensor([5])), memory)
    assert teacher.readout(memory).shape[-1] == size
    torch.testing.assert_close(student(tokens).logits[..., :kept], logits[..., :kept])
    generated = student.generate(tokens, max_new_tokens=3, do_sample=False)
    assert generated.shape[1] == tokens.shape[1] + 3


def test_frozen_stays_frozen(joint):
    joint.requires_grad_(False)
    joint.resize_token_embeddings(24)
    assert not any(parameter.requires_grad for parameter in joint.parameters())
