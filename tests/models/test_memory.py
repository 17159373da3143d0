"""A memory as an object: read once, kept in a file, gone on from as often as one likes."""

import pytest
import torch

from smt_hf import SmtMemory, SmtRnnCache
from smt_hf.models.cache_smt_rnn import CACHE_NAME
from smt_hf.models.memory_smt_rnn import fingerprint

EXACT = {"rtol": 0, "atol": 1e-9}


def write(student, *args, **kwargs):
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **kwargs}
    return student.generate(*args, **options)


def ones(input_ids):
    return torch.ones_like(input_ids)


def test_reading_is_the_forward_pass(student, tokens):
    mask = ones(tokens)
    mask[0, :3], mask[1, 10:] = 0, 0
    memory = student.read(tokens, mask)
    torch.testing.assert_close(memory.states, student(tokens, mask)[CACHE_NAME].memory, **EXACT)
    assert memory.num_tokens.tolist() == [11, 10, 14] and len(memory) == 3
    assert not memory.states.requires_grad


def test_reading_on(student, tokens):
    both = student.read(tokens[:, 6:], memory=student.read(tokens[:, :6]))
    whole = student.read(tokens)
    torch.testing.assert_close(both.states, whole.states, **EXACT)
    assert both.num_tokens.equal(whole.num_tokens)
    shared = student.read(tokens[:, 6:], memory=student.read(tokens[:1, :6]))
    torch.testing.assert_close(shared.states[:1], whole.states[:1], **EXACT)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}])
def test_many_continuations_of_one_memory(student, tokens, options):
    memory = student.read(tokens[:1, :6])
    before = memory.states.clone()
    for _ in range(2):
        prompts = tokens[:, 6:10]
        continued = write(student, prompts, attention_mask=ones(prompts), memory=memory, **options)
        full = torch.cat([tokens[:1, :6].expand(3, -1), prompts], dim=1)
        expected = write(student, full, attention_mask=ones(full), **options)
        assert continued[:, 4:].equal(expected[:, 10:])
    assert memory.states.equal(before)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}])
def test_going_on_without_a_prompt(student, tokens, options):
    memory = student.read(tokens)
    torch.manual_seed(0)
    continued = write(student, memory=memory, **options)
    torch.manual_seed(0)
    assert continued.equal(write(student, tokens, attention_mask=ones(tokens), **options)[:, 14:])


def test_a_memory_from_a_run(student, tokens):
    output = write(student, tokens[:, :6], attention_mask=ones(tokens[:, :6]), return_dict_in_generate=True)
    memory = SmtMemory.from_cache(student, output[CACHE_NAME])
    assert memory.num_tokens.tolist() == [13, 13, 13]
    for prompt, read in ((None, 13 + 7), (tokens[:, :2], 13 + 2 + 7)):
        mask = {} if prompt is None else {"attention_mask": ones(prompt)}
        later = write(student, prompt, memory=memory, return_dict_in_generate=True, **mask)
        assert SmtMemory.from_cache(student, later[CACHE_NAME]).num_tokens.tolist() == [read] * 3
    last = output.sequences[:, -1:]
    continued = write(student, last, attention_mask=ones(last), memory=memory)
    expected = write(student, output.sequences, attention_mask=ones(output.sequences))
    assert continued[:, 1:].equal(expected[:, 14:])
    with pytest.raises(ValueError, match="empty"):
        SmtMemory.from_cache(student, SmtRnnCache())


def test_saved_and_loaded(student, tokens, tmp_path):
    memory = student.read(tokens)
    memory.save_pretrained(tmp_path, filename="book.safetensors")
    loaded = SmtMemory.from_pretrained(tmp_path, filename="book.safetensors")
    assert loaded.states.equal(memory.states) and loaded.num_tokens.equal(memory.num_tokens)
    assert loaded.fingerprint == fingerprint(student)
    assert write(student, memory=loaded).equal(write(student, memory=memory))
    memory.save_pretrained(tmp_path / "kept")
    assert write(student, memory=tmp_path / "kept").equal(write(student, memory=memory))
    assert student.read(tokens, memory=str(tmp_path / "kept")).num_tokens.tolist() == [28, 28, 28]
    assert (tmp_path / "book.safetensors").stat().st_size < 3 * 3 * 32 * 8 + 1000
    with pytest.raises(OSError, match="memory.safetensors"):
        SmtMemory.from_pretrained(tmp_path)
    student.save_pretrained(tmp_path)
    (tmp_path / "words.safetensors").write_text("no tensors")
    for name in ("model.safetensors", "words.safetensors"):
        with pytest.raises(ValueError, match="holds no memory"):
            SmtMemory.from_pretrained(tmp_path, filename=name)


def test_another_students_memory_is_refused_by_name(student, tokens, tmp_path):
    student.save_pretrained(tmp_path / "alice")
    alice = type(student).from_pretrained(tmp_path / "alice", dtype=torch.float64)
    memory = alice.read(tokens)
    assert fingerprint(alice) == fingerprint(student)
    with torch.no_grad():
        student.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="belongs to the student 'alice'"):
        write(student, memory=memory)
    with pytest.raises(ValueError, match="belongs to the student"):
        student.read(tokens, memory=memory)
    with pytest.raises(ValueError, match="two students"):
        memory.distance(student.read(tokens))
    with pytest.raises(ValueError, match="2 students"):
        SmtMemory.cat([memory, student.read(tokens)])


def test_a_student_has_one_fingerprint_in_float32_and_bfloat16(student, tokens):
    student = student.float()
    memory = student.read(tokens)
    half = student.to(torch.bfloat16)
    assert write(half, memory=memory).shape == (3, 8)
    assert memory.to(torch.bfloat16).states.dtype == torch.bfloat16


def test_batched_and_compared(student, tokens):
    whole = student.read(tokens)
    rows = SmtMemory.cat([student.read(tokens[row : row + 1]) for row in range(3)])
    assert rows.distance(whole).max() < 1e-12 and rows.num_tokens.equal(whole.num_tokens)
    other = student.read(tokens[:, :5])
    assert (whole.distance(other) > 1e-3).all() and whole[0].distance(whole).shape == (3,)
    assert whole[1].states.equal(whole.states[1:2]) and len(whole[:2]) == 2
    assert "3 of 3 x 32" in repr(whole)


def test_the_teacher_reads_in_one_pass(joint, student, tokens):
    mask = ones(tokens)
    mask[0, :3], mask[1, 10:], mask[2, :] = 0, 0, 0
    memory = student.read(tokens, mask, teacher=joint.teacher)
    assert memory.num_tokens.tolist() == [11, 10, 0]
    for row, kept in ((0, tokens[:1, 3:]), (1, tokens[1:2, :10])):
        expected = joint.teacher.encode(kept, torch.tensor([kept.shape[1] - 1]))[:, 0]
        torch.testing.assert_close(memory.states[row : row + 1], expected, **EXACT)
    torch.testing.assert_close(memory.states[2], student.initial_memory, **EXACT)
    prompt = tokens[:, 3:5]
    assert write(student, prompt, attention_mask=ones(prompt), memory=memory).shape == (3, 10)


def test_bad_input_is_named(joint, student, tokens):
    memory = student.read(tokens[:2])
    with pytest.raises(ValueError, match="2 rows, the inputs 3"):
        write(student, tokens, memory=memory)
    with pytest.raises(ValueError, match="two places to start from"):
        write(student, tokens, memory=memory, cache=SmtRnnCache())
    with pytest.raises(ValueError, match="reads from the beginning"):
        student.read(tokens, memory=memory, teacher=joint.teacher)
    with pytest.raises(ValueError, match="shape"):
        SmtMemory(torch.zeros(3, 4), "0")
    with pytest.raises(ValueError, match="floating-point"):
        SmtMemory(torch.zeros(1, 3, 4, dtype=torch.long), "0")
    with pytest.raises(ValueError, match=r"the memory is \(5, 32\), the student's \(3, 32\)"):
        SmtMemory(torch.zeros(1, 5, 32), memory.fingerprint).to_cache(student)
    with pytest.raises(ValueError, match="one number for 2 states"):
        SmtMemory(torch.zeros(2, 3, 4), "0", num_tokens=[1])
