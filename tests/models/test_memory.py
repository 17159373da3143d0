"""A memory as an object: read once, kept in a file, gone on from as often as one likes."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

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
        with pytest.raises(ValueError, match="contains no memory"):
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_student_has_one_fingerprint_in_float32_and_in_half_of_it(student, tokens, dtype):
    student = student.float()
    memory = student.read(tokens)
    half = student.to(dtype)
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
    with pytest.raises(ValueError, match="2 rows, but the inputs have 3"):
        write(student, tokens, memory=memory)
    with pytest.raises(ValueError, match="two places to start from"):
        write(student, tokens, memory=memory, cache=SmtRnnCache())
    with pytest.raises(ValueError, match="reads from the beginning"):
        student.read(tokens, memory=memory, teacher=joint.teacher)
    with pytest.raises(ValueError, match="shape"):
        SmtMemory(torch.zeros(3, 4), "0")
    with pytest.raises(ValueError, match="floating-point"):
        SmtMemory(torch.zeros(1, 3, 4, dtype=torch.long), "0")
    with pytest.raises(ValueError, match=r"the memory has shape \(5, 32\), but the student's has \(3, 32\)"):
        SmtMemory(torch.zeros(1, 5, 32), memory.fingerprint).to_cache(student)
    with pytest.raises(ValueError, match="one number for each of 2 states"):
        SmtMemory(torch.zeros(2, 3, 4), "0", num_tokens=[1])


BAD_STATES = {
    "NaN": lambda states: states * float("nan"),
    "one NaN": lambda states: states.index_fill(0, torch.tensor([1]), float("nan")),
    "infinity": lambda states: states.index_fill(2, torch.tensor([3]), -float("inf")),
    "no row": lambda states: states[:0],
    "no width": lambda states: states[..., :0],
    "whole numbers": lambda states: states.long(),
    "eight bits": lambda states: states.to(torch.float8_e4m3fn),
    "one row alone": lambda states: states[0],
    "more rows than counts": lambda states: states.repeat(2, 1, 1),
}
BAD_COUNTS = {
    "negative": torch.tensor([1, -5, 2]),
    "fractions": torch.tensor([1.0, 2.0, 3.0]),
    "truth values": torch.tensor([True, True, False]),
    "too few": torch.tensor([1, 2]),
    "a table": torch.zeros(3, 1, dtype=torch.long),
}


@pytest.mark.parametrize("name", [*BAD_STATES, *BAD_COUNTS])
def test_what_is_no_memory_is_refused(student, tokens, tmp_path, name):
    """By the constructor and by the loading of a file, in one line."""
    good = student.read(tokens)
    states = BAD_STATES.get(name, lambda states: states)(good.states)
    counts = BAD_COUNTS.get(name, good.num_tokens[:0] if name == "no row" else good.num_tokens)
    with pytest.raises(ValueError) as caught:
        SmtMemory(states, good.fingerprint, num_tokens=counts)
    assert "\n" not in str(caught.value)
    tensors = {"states": states.contiguous(), "num_tokens": counts}
    save_file(tensors, tmp_path / "memory.safetensors", {"format": "pt", "fingerprint": good.fingerprint})
    with pytest.raises(ValueError, match="memory.safetensors contains no memory to continue from: ") as from_file:
        SmtMemory.from_pretrained(tmp_path)
    assert str(from_file.value).endswith(str(caught.value))
    for start in ({"memory": tmp_path}, {"memory": str(tmp_path)}):
        with pytest.raises(ValueError, match="contains no memory to continue from"):
            write(student, **start)


def damage(folder, name, student, tokens):
    """A folder whose memory file is damaged."""
    student.read(tokens).save_pretrained(folder)
    path = folder / "memory.safetensors"
    whole = path.read_bytes()
    contents = {
        "empty": b"",
        "garbage": b"\xff" * 100,
        "text": b"no tensors",
        "cut short": whole[:-10],
        "cut in the head": whole[:50],
        "a byte too many": whole + b"x",
    }
    tensors = {"states": torch.ones(1, 3, 32), "num_tokens": torch.ones(1, dtype=torch.long)}
    metadata = {"fingerprint": fingerprint(student)}
    if name in contents:
        path.write_bytes(contents[name])
    elif name == "a folder":
        path.unlink()
        path.mkdir()
    elif name == "no states":
        save_file({"num_tokens": tensors["num_tokens"]}, path, metadata)
    elif name == "no counts":
        save_file({"states": tensors["states"]}, path, metadata)
    elif name == "no metadata":
        save_file(tensors, path)
    elif name == "no fingerprint":
        save_file(tensors, path, {"format": "pt"})
    else:
        save_file(
            tensors, path, {"fingerprint": {"an earlier version": "0123456789abcdef", "another": "1:float32:A"}[name]}
        )


DAMAGES = ["empty", "garbage", "text", "cut short", "cut in the head", "a byte too many", "a folder", "no states"]
DAMAGES += ["no counts", "no metadata", "no fingerprint", "an earlier version", "another"]


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused_in_one_line(student, tokens, tmp_path, name):
    damage(tmp_path, name, student, tokens)
    with pytest.raises(ValueError, match="memory.safetensors") as caught:
        SmtMemory.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert ("read the text again" in str(caught.value)) == (name in ("an earlier version", "another"))


def test_places_without_a_memory_are_named(student, tokens, tmp_path, monkeypatch):
    student.read(tokens).save_pretrained(tmp_path / "kept")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(SmtMemory.from_pretrained("kept")) == len(SmtMemory.from_pretrained("~/kept")) == 3
    places = [
        tmp_path / "none",
        str(tmp_path / "none" / "deeper"),
        "./none",
        "none/of/these",
        "~/none",
        "../no such folder",
    ]
    for place in places:
        with pytest.raises(OSError, match="there is no folder") as caught:
            SmtMemory.from_pretrained(place)
        assert "Repo id" not in str(caught.value) and "\n" not in str(caught.value)
    for place in ("nothing", "none", "none/here", tmp_path / "nothing"):
        with pytest.raises(OSError, match="there is no memory 'memory.safetensors'") as caught:
            SmtMemory.from_pretrained(place)
        assert "\n" not in str(caught.value)
    file = tmp_path / "kept" / "memory.safetensors"
    with pytest.raises(OSError, match=r"is a file: pass its folder, .*kept', and filename='memory.safetensors'"):
        SmtMemory.from_pretrained(file)
    assert len(SmtMemory.from_file(file)) == 3
    with pytest.raises(OSError, match="book.safetensors"):
        SmtMemory.from_pretrained("kept", filename="book.safetensors")


INTEGERS = [
    int,
    np.int8,
    np.int64,
    np.uint16,
    torch.tensor,
    lambda row: torch.tensor(row, dtype=torch.int16),
    np.array,
]


@pytest.mark.parametrize("kind", INTEGERS)
def test_any_integer_chooses_a_row(student, tokens, kind):
    memory = student.read(tokens)
    rows = [0, 1, 2] if kind is np.uint16 else range(-3, 3)
    for row in rows:
        one = memory[kind(row)]
        assert (
            len(one) == 1 and one.states.equal(memory.states[[row]]) and one.num_tokens.equal(memory.num_tokens[[row]])
        )
        assert one.fingerprint == memory.fingerprint
    for row in [3, 100] if kind is np.uint16 else [3, 100, -4]:
        with pytest.raises(IndexError, match="of 3 rows"):
            memory[kind(row)]


@settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_rows_are_chosen_as_in_numpy(student, data):
    """Slices of any step, lists, arrays and tensors of integers or of truth values."""
    size = 5
    states = torch.arange(size, dtype=torch.float32)[:, None, None].expand(size, 2, 3)
    memory = SmtMemory(states, "0", num_tokens=torch.arange(size))
    integers = st.lists(st.integers(-size, size - 1), min_size=1, max_size=7)
    masks = st.lists(st.booleans(), min_size=size, max_size=size).filter(any)
    rows = data.draw(st.one_of(st.slices(size), integers, masks, st.integers(-size, size - 1)))
    expected = np.atleast_1d(np.arange(size)[rows]).tolist()
    forms = [rows] if isinstance(rows, slice) else [rows, np.array(rows), torch.tensor(rows)]
    for form in forms:
        if not expected:
            with pytest.raises(ValueError, match="at least one row"):
                memory[form]
            continue
        chosen = memory[form]
        assert chosen.num_tokens.tolist() == expected == chosen.states[:, 0, 0].long().tolist()


@pytest.mark.parametrize("rows", [(0, 1), None, [[0, 1]], 1.0, "0", [0.5], [0, 7], [True, False], slice(0, 9, 0)])
def test_what_chooses_no_rows(student, tokens, rows):
    with pytest.raises((IndexError, ValueError)):
        student.read(tokens)[rows]


def test_rows_are_walked_through(student, tokens):
    memory = student.read(tokens)
    assert torch.cat([row.states for row in memory]).equal(memory.states)
    nearest = memory.distance(memory[1]).argmin()
    assert memory[nearest].states.equal(memory.states[1:2])


def test_rows_that_do_not_fit_are_named(student, tokens):
    memory = student.read(tokens)
    with pytest.raises(ValueError, match="3 and 2 rows cannot be compared: pass as many, or one"):
        memory.distance(memory[:2])
    for start in ({"input_ids": tokens[:1]}, {"inputs": tokens[:2]}):
        with pytest.raises(ValueError, match=r"the memory has 3 rows, but the inputs have \d: pass as many, or one"):
            student.generate(**start, memory=memory, max_new_tokens=1)
    with pytest.raises(ValueError, match="belong to 0 students"):
        SmtMemory.cat([])


def test_the_words_of_a_refusal(student, tokens):
    memory = student.read(tokens)
    with torch.no_grad():
        student.lm_head.weight.mul_(-1)
    with pytest.raises(ValueError) as caught:
        memory.to_cache(student)
    text = str(caught.value)
    assert "differ by 200.00%, rounding explains 0.01%; read the text again" in text and "\n" not in text
    assert len(text) < 400 and memory.fingerprint not in text and memory.fingerprint not in repr(memory)
    with pytest.raises(ValueError, match="damaged or from an earlier version: read the text again"):
        SmtMemory(memory.states, "0123456789abcdef").to_cache(student)
