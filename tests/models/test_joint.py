"""Teacher and student together: what the losses compare, tying, saving, exporting."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForPreTraining

from smt_hf import SmtConfig, SmtForPreTraining
from smt_hf.models import student_config_for
from tests.conftest import tiny_config, tiny_model

EXACT = {"rtol": 0, "atol": 1e-9}


def naive_segment(joint, row, document, start, length):
    """The teacher's state before a segment, the student's states in it, and the teacher's after it, one by one."""
    teacher, student = joint.teacher, joint.student

    def state(t):
        begin = max((i for i in range(t + 1) if i == 0 or document[i] != document[i - 1]), default=0)
        return teacher.encode(row[None, begin : t + 1], torch.tensor([t - begin]))[:, 0]

    empty = teacher.encode(row[None, :1], torch.tensor([-1]))[:, 0]

    def begins(t):
        return t == 0 or document[t] != document[t - 1]

    memory, states = empty if begins(start) else state(start - 1), []
    for t in range(start, start + length):
        memory = student.update(empty if begins(t) else memory, row[t : t + 1])
        states.append(memory)
    return torch.cat(states), state(start + length - 1)


@pytest.mark.parametrize("encoder_attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("length", [1, 3])
def test_segments_equal_the_naive_computation(encoder_attention, length, tokens):
    joint = tiny_model(encoder_attention)
    documents = torch.tensor([[0] * 14, [0] * 5 + [1] * 9, [0] * 4 + [1] * 2 + [2] * 8])
    starts = torch.tensor([0, 3, 5, 9])
    output = joint(tokens, starts, torch.tensor([2]), 4, segment_length=length, documents=documents, read_student=True)
    for row in range(3):
        for n, start in enumerate(starts.tolist()):
            states, target = naive_segment(joint, tokens[row], documents[row], start, length)
            torch.testing.assert_close(output.predicted_memory[row, n], states[-1], **EXACT)
            torch.testing.assert_close(output.target_memory[row, n], target[0], **EXACT)
            torch.testing.assert_close(output.student_logits[row, n], joint.student.readout(states), **EXACT)


def test_padding_changes_nothing(joint, tokens):
    plain = joint(tokens, torch.tensor([0, 4]), torch.tensor([3]), 4, segment_length=2)
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.long), tokens], dim=1)
    mask = torch.cat([torch.zeros(3, 2), torch.ones(3, 14)], dim=1)
    output = joint(padded, torch.tensor([2, 6]), torch.tensor([5]), 4, segment_length=2, attention_mask=mask)
    torch.testing.assert_close(output.predicted_memory, plain.predicted_memory, **EXACT)
    torch.testing.assert_close(output.target_memory, plain.target_memory, **EXACT)
    torch.testing.assert_close(output.decoding_logits, plain.decoding_logits, **EXACT)


def test_gradient_reaches_teacher_and_student_unless_detached(joint, tokens):
    for detached in (False, True):
        joint.zero_grad()
        output = joint(tokens, torch.tensor([0, 4]), torch.tensor([3]), 4, detach_teacher=detached)
        (output.predicted_memory - output.target_memory).square().mean().backward()
        reached = {name.split(".")[0] for name, p in joint.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == ({"student"} if detached else {"teacher", "student"})


def test_readout_is_tied_in_memory_and_on_disk(joint, tokens, tmp_path):
    joint.save_pretrained(tmp_path)
    assert not any(name.startswith("student.model.decoder") for name in load_file(tmp_path / "model.safetensors"))
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path)
    for model in (joint, loaded):
        assert model.student.lm_head.weight is model.teacher.lm_head.weight
        pairs = zip(model.student.model.decoder.parameters(), model.teacher.decoder.parameters(), strict=True)
        assert all(mine is its for mine, its in pairs)
    for name, value in joint.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_exported_student_starts_in_the_teachers_empty_context(joint, tokens):
    student = joint.export_student()
    empty = joint.teacher.encode(tokens, torch.tensor([-1]))[0, 0]
    torch.testing.assert_close(student.initial_memory, empty, rtol=0, atol=1e-5)
    torch.testing.assert_close(student.readout(empty), joint.teacher.readout(empty), **EXACT)
    assert student.lm_head.weight is not joint.teacher.lm_head.weight


def test_activation_checkpointing_changes_nothing(tokens):
    results = []
    for checkpointed in (False, True):
        joint = tiny_model().train()
        if checkpointed:
            joint.gradient_checkpointing_enable()
        output = joint(tokens, torch.tensor([0, 4, 8]), torch.tensor([3]), 4, segment_length=2, read_student=True)
        parts = (output.predicted_memory - output.target_memory, output.student_logits, output.decoding_logits)
        sum(part.square().mean() for part in parts).backward()
        results.append({name: p.grad for name, p in joint.named_parameters() if p.grad is not None})
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient, **EXACT)


def test_futures_past_the_window_cost_nothing_and_change_nothing(joint, tokens):
    decoded_positions, horizon = torch.tensor([-1, 4, 9, 12, 13]), 6
    starts = torch.tensor([0, 5, 10, 13])
    output = joint(tokens, starts, decoded_positions, horizon)
    for place, position in enumerate(decoded_positions.tolist()):
        steps = min(horizon, 14 - position)
        future = torch.nn.functional.pad(tokens, (0, horizon))[:, position + 1 : position + 1 + horizon]
        memory = joint.teacher.encode(tokens, decoded_positions[place, None])[:, 0]
        alone = joint.teacher.decode(memory, future)
        torch.testing.assert_close(output.decoding_logits[:, place, :steps], alone[:, :steps], **EXACT)
        assert not output.decoding_logits[:, place, steps:].any()


@pytest.mark.parametrize("cell_type", ["transformer", "mlp", "elman", "gru", "lstm"])
def test_blocks_that_begin_by_passing_their_input_on(cell_type):
    """Every last matrix of a block is zero, and nothing else is."""
    outputs = ("attention.o_proj.weight", "down_proj.weight")
    for zero in (True, False):
        config = tiny_config(zero_init_residual=zero, num_memory_tokens=4)
        student = student_config_for(config.teacher_config, cell_type=cell_type, num_updater_layers=2)
        model = SmtForPreTraining(SmtConfig(teacher_config=config.teacher_config, student_config=student))
        for name, parameter in model.named_parameters():
            assert bool((parameter == 0).all()) == (zero and name.endswith(outputs)), name
