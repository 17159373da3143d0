"""The teacher sees what it may see and nothing else, and its dense encoding is exact."""

import pytest
import torch

from smt_hf import SmtTeacherModel
from tests.conftest import tiny_model

EXACT = {"rtol": 0, "atol": 1e-9}


@pytest.fixture(params=["causal", "bidirectional"])
def teacher(request):
    return tiny_model(request.param).teacher


def changed(tokens, columns):
    other = tokens.clone()
    other[:, columns] = (other[:, columns] + 7) % 20
    return other


@pytest.mark.parametrize("t", [-1, 0, 5, 12])
def test_later_tokens_do_not_move_a_state(teacher, tokens, t):
    positions = torch.tensor([t])
    before = teacher.encode(tokens, positions)
    after = teacher.encode(changed(tokens, slice(t + 1, None)), positions)
    torch.testing.assert_close(after, before, **EXACT)
    torch.testing.assert_close(teacher.readout(after), teacher.readout(before), **EXACT)


@pytest.mark.parametrize("t", [0, 5, 12])
def test_every_earlier_token_moves_a_state(teacher, tokens, t):
    positions = torch.tensor([t])
    before = teacher.encode(tokens, positions)
    for column in range(t + 1):
        assert (teacher.encode(changed(tokens, column), positions) - before).abs().max() > 1e-3


def test_many_positions_equal_each_alone(teacher, tokens):
    positions = torch.arange(-1, 14)
    together = teacher.encode(tokens, positions)
    for n, t in enumerate(positions):
        alone = teacher.encode(tokens[:, : max(int(t) + 1, 1)], t[None])
        torch.testing.assert_close(together[:, n : n + 1], alone, **EXACT)


def test_positions_of_each_row(teacher, tokens):
    positions = torch.tensor([[3, -1], [7, 2], [0, 13]])
    memory = teacher.encode(tokens, positions)
    for row in range(3):
        torch.testing.assert_close(memory[row], teacher.encode(tokens[row : row + 1], positions[row])[0], **EXACT)


def test_empty_context_is_the_same_everywhere(teacher, tokens):
    memory = teacher.encode(tokens, torch.tensor([-1]))
    torch.testing.assert_close(memory, memory[:1].expand_as(memory), **EXACT)


def test_packed_documents_equal_documents_apart(teacher, tokens):
    documents = torch.tensor([[0] * 5 + [1] * 6 + [2] * 3]).expand(3, -1)
    memory = teacher.encode(tokens, torch.arange(14), documents=documents)
    for first, last in ((0, 5), (5, 11), (11, 14)):
        alone = teacher.encode(tokens[:, first:last], torch.arange(last - first))
        torch.testing.assert_close(memory[:, first:last], alone, **EXACT)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(teacher, tokens, side):
    pads = torch.full((3, 4), 9)
    padded = torch.cat([pads, tokens] if side == "left" else [tokens, pads], dim=1)
    mask = torch.cat([0 * pads, 1 + 0 * tokens] if side == "left" else [1 + 0 * tokens, 0 * pads], dim=1)
    shift = 4 if side == "left" else 0
    memory = teacher.encode(padded, torch.arange(14) + shift, attention_mask=mask)
    torch.testing.assert_close(memory, teacher.encode(tokens, torch.arange(14)), **EXACT)


def test_decoding_never_sees_what_it_predicts(teacher, tokens):
    memory = teacher.encode(tokens, torch.tensor([4]))[:, 0]
    future = tokens[:, 5:13]
    logits = teacher.decode(memory, future)
    assert logits.shape == (3, 8, 20)
    for j in range(8):
        moved = teacher.decode(memory, changed(future, slice(j, None)))
        torch.testing.assert_close(moved[:, : j + 1], logits[:, : j + 1], **EXACT)
        if j + 1 < 8:
            seen = teacher.decode(memory, changed(future, j))
            assert (seen[:, j + 1 :] - logits[:, j + 1 :]).abs().amax(dim=(0, 2)).min() > 1e-6


def test_first_decoding_step_is_the_readout(teacher, tokens):
    memory = teacher.encode(tokens, torch.tensor([4, 9]))
    first = teacher.decode(memory.flatten(0, 1), tokens[:, :2].repeat_interleave(2, dim=0))[:, 0]
    torch.testing.assert_close(teacher.readout(memory).flatten(0, 1), first, **EXACT)


def test_attention_implementations_agree(tokens):
    memories = []
    for implementation in ("eager", "sdpa"):
        teacher = tiny_model().teacher
        teacher.set_attn_implementation(implementation)
        memory = teacher.encode(tokens, torch.tensor([-1, 3, 8]))
        memories.append((memory, teacher.decode(memory[:, 1], tokens[:, 4:9])))
    torch.testing.assert_close(memories[0], memories[1], **EXACT)


def test_exported_program_serves_other_positions(teacher, tokens):
    program = torch.export.export(teacher, (tokens,), {"positions": torch.tensor([-1, 3, 8])}).module()
    positions = torch.tensor([13, 0, 5])
    torch.testing.assert_close(program(tokens, positions=positions).memory, teacher.encode(tokens, positions), **EXACT)


def test_memory_tokens_are_rms_normalised(teacher, tokens):
    memory = teacher.encode(tokens, torch.tensor([-1, 5]))
    torch.testing.assert_close(memory.square().mean(dim=-1), torch.ones(3, 2, 3).double(), rtol=1e-4, atol=0)


def test_position_out_of_range(teacher, tokens):
    with pytest.raises(ValueError, match=r"-1\.\.13"):
        teacher.encode(tokens, torch.tensor([14]))


def test_save_and_load(teacher, tokens, tmp_path):
    teacher.save_pretrained(tmp_path)
    loaded = SmtTeacherModel.from_pretrained(tmp_path)
    positions = torch.tensor([-1, 6])
    torch.testing.assert_close(loaded.encode(tokens, positions), teacher.encode(tokens, positions), **EXACT)


def test_without_positions_the_state_after_the_last_real_token(teacher, tokens):
    mask = torch.ones_like(tokens)
    mask[0, 9:], mask[1, :4], mask[2] = 0, 0, 0
    memory = teacher(tokens, attention_mask=mask).memory
    apart = [(tokens[:1, :9], 8), (tokens[1:2, 4:], 9), (tokens[2:], -1)]
    expected = torch.cat([teacher.encode(row, torch.tensor([last])) for row, last in apart])
    torch.testing.assert_close(memory, expected, **EXACT)
    torch.testing.assert_close(teacher(tokens, documents=mask - 1).memory, expected, **EXACT)
    torch.testing.assert_close(teacher(tokens).memory, teacher.encode(tokens, torch.tensor([13])), **EXACT)


def test_positions_in_a_list(teacher, tokens):
    expected = teacher.encode(tokens, torch.tensor([-1, 3]))
    torch.testing.assert_close(teacher.encode(tokens, [-1, 3]), expected, **EXACT)


@pytest.mark.parametrize("positions", [3, torch.tensor([0.5]), torch.tensor([[1], [2]]), torch.zeros(1, 3, 2).long()])
def test_positions_of_another_shape_or_kind_are_refused(teacher, tokens, positions):
    with pytest.raises(ValueError, match=r"pass integers \(N,\) or \(3, N\)"):
        teacher.encode(tokens, positions)
