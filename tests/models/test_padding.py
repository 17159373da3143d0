"""Padding is where the mask or the end of a row says, never where a token equals the pad token.

Every batch is compared with its rows alone, one token after another, in float64.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, StoppingCriteria, StoppingCriteriaList

from smt_hf import SmtMemory, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models import generation_smt_rnn
from smt_hf.models.cache_smt_rnn import CACHE_NAME

EXACT = {"rtol": 0, "atol": 1e-9}
VOCAB = 6
ROWS = [[1, 2, 3], [4], [5, 0, 2, 2, 1]]


def one_layer_student(**overrides):
    """Small, fast, and with weights that make every token matter."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 8, "num_memory_tokens": 2, "num_updater_layers": 1, "num_readout_layers": 1}
    config = SmtRnnConfig(
        **{"vocab_size": VOCAB, "num_attention_heads": 1, "initializer_range": 0.8, **sizes, **overrides}
    )
    return SmtRnnForCausalLM(config).double().eval()


@pytest.fixture(scope="module")
def student():
    return one_layer_student()


class EndAt(StoppingCriteria):
    """Ends every row at its own length."""

    def __init__(self, lengths):
        self.lengths = torch.tensor(lengths)

    def __call__(self, input_ids, scores, **kwargs):
        return input_ids.shape[1] >= self.lengths


@torch.no_grad()
def read_alone(student, row, memory=None):
    memory = student.initial_memory[None] if memory is None else memory
    for token in row:
        memory = student.update(memory, torch.tensor([token]))
    return memory


@torch.no_grad()
def write_alone(student, row, is_over, num_new=8, memory=None):
    """What the student writes after a row until `is_over(written)`: the tokens, and the memory of all but the last."""
    memory = read_alone(student, row, memory)
    written = []
    while True:
        written.append(int(student.readout(memory).argmax()))
        if len(written) == num_new or is_over(written):
            return written, memory
        memory = student.update(memory, torch.tensor(written[-1:]))


def padded(rows, pad, side="left"):
    length = max(len(row) for row in rows)
    gaps = [[pad] * (length - len(row)) for row in rows]
    ids = [gap + row if side == "left" else row + gap for row, gap in zip(rows, gaps, strict=True)]
    mask = [[0] * len(gap) + [1] * len(row) for row, gap in zip(rows, gaps, strict=True)]
    return torch.tensor(ids), torch.tensor(mask if side == "left" else [part[::-1] for part in mask])


def check(student, rows, is_over, num_new=8, **options):
    """A batch writes what its rows write alone, and goes on from its cache as they do.

    `is_over(row number, written)` says what `options` mean.
    """
    ids, mask = padded(rows, options.get("pad_token_id") or 0)
    settings = {"max_new_tokens": num_new, "do_sample": False, "return_dict_in_generate": True, **options}
    output = student.generate(ids, attention_mask=mask, **settings)
    turn = [2, 4]
    later = None
    if CACHE_NAME in output:
        full = torch.cat([output.sequences, torch.tensor([turn] * len(rows))], dim=1)
        plain = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        later = student.generate(full, **{CACHE_NAME: output[CACHE_NAME]}, return_dict_in_generate=True, **plain)
    for number, row in enumerate(rows):
        written, memory = write_alone(student, row, lambda written, n=number: is_over(n, written), num_new)
        assert output.sequences[number, ids.shape[1] :][: len(written)].tolist() == written
        if later is not None:
            expected, memory = write_alone(student, [written[-1], *turn], lambda written: False, 4, memory)
            assert later.sequences[number, -4:].tolist() == expected
            torch.testing.assert_close(later[CACHE_NAME].memory[number : number + 1], memory, **EXACT)
    return output


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("ends", [None, 3, [3, 1], [0, 1, 2]])
@pytest.mark.parametrize("pad", range(VOCAB))
def test_any_pad_token_and_any_end_tokens(student, pad, ends, use_cache):
    """Among them a pad token that is an ordinary word, that is the end token, or one of several."""
    ends_list = [] if ends is None else ends if isinstance(ends, list) else [ends]
    options = {"pad_token_id": pad, "eos_token_id": ends, "use_cache": use_cache}
    output = check(student, ROWS, lambda _, written: written[-1] in ends_list, **options)
    for row in output.sequences[:, 5:].tolist():
        over = next((place + 1 for place, token in enumerate(row) if token in ends_list), len(row))
        assert set(row[over:]) <= {pad}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("ends", [None, 3])
@pytest.mark.parametrize("pad", [None, 0, 3, 4])
def test_rows_that_end_by_another_criterion(student, pad, ends, use_cache):
    lengths = [2, 5, 3]  # of what is written
    over = EndAt([5 + length for length in lengths])
    check(
        student,
        ROWS,
        lambda number, written: len(written) >= lengths[number] or written[-1] == ends,
        pad_token_id=pad,
        eos_token_id=ends,
        use_cache=use_cache,
        stopping_criteria=StoppingCriteriaList([over]),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_rows_end_whenever_they_like(student, data):
    rows = data.draw(st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4), min_size=1, max_size=4))
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=len(rows), max_size=len(rows)))
    ends = data.draw(st.lists(st.integers(0, VOCAB - 1), max_size=2, unique=True))
    longest = max(len(row) for row in rows)
    check(
        student,
        rows,
        lambda number, written: len(written) >= lengths[number] or written[-1] in ends,
        num_new=data.draw(st.integers(1, 6)),
        pad_token_id=data.draw(st.integers(0, VOCAB - 1)),
        eos_token_id=ends or None,
        use_cache=data.draw(st.booleans()),
        prefill_chunk_size=None,
        stopping_criteria=StoppingCriteriaList([EndAt([longest + length for length in lengths])]),
    )


@pytest.mark.parametrize("ends", [None, 256])
def test_rows_that_end_at_a_stop_string(tokenizer, ends):
    student = one_layer_student(vocab_size=258)
    with torch.no_grad():  # it writes a, b, c and d
        student.lm_head.weight[:97] = student.lm_head.weight[101:] = 0
    prompts = [[ord(letter)] for letter in "abcdefgh"]
    stop = chr(write_alone(student, prompts[0], lambda written: False, 3)[0][-1])
    lengths = [len(write_alone(student, row, lambda written: written[-1] == ord(stop), 8)[0]) for row in prompts]
    assert len(set(lengths)) > 1
    options = {"stop_strings": [stop], "tokenizer": tokenizer, "pad_token_id": 257, "eos_token_id": ends}
    for use_cache in (True, False):
        check(student, prompts, lambda _, written: written[-1] == ord(stop), use_cache=use_cache, **options)


@pytest.mark.parametrize("pad", range(VOCAB))
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}])
def test_beams_read_every_token(student, pad, options):
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": pad, "eos_token_id": 3, **options}
    ids, mask = padded(ROWS, pad)
    results = [student.generate(ids, attention_mask=mask, use_cache=use, **settings) for use in (True, False)]
    assert results[0].equal(results[1])
    each = options.get("num_return_sequences", 1)
    for number, row in enumerate(ROWS):
        alone = student.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row)), **settings)
        for beam in range(each):
            written = alone[beam, len(row) :].tolist()
            assert results[0][number * each + beam, 5:][: len(written)].tolist() == written


@pytest.mark.parametrize("pad", range(VOCAB))
def test_without_a_mask_every_token_is_read(student, pad):
    """As the forward pass and `read` do; the library would leave out what equals the pad token."""
    row = [pad, 1, pad, 2, pad]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": pad, "eos_token_id": None}
    expected, _ = write_alone(student, row, lambda written: False, 6)
    for use_cache in (True, False):
        assert student.generate(torch.tensor([row]), use_cache=use_cache, **options)[0, 5:].tolist() == expected
    assert student.generate(torch.tensor([row]), num_beams=2, **options).equal(
        student.generate(torch.tensor([row]), attention_mask=torch.ones(1, 5), num_beams=2, **options)
    )


@pytest.mark.parametrize("ends, warns", [(None, True), (3, True), (0, False), ([3, 0], False)])
def test_a_pad_token_without_a_mask_is_spoken_of(student, monkeypatch, ends, warns):
    said = []
    monkeypatch.setattr(generation_smt_rnn.logger, "warning_once", said.append)
    options = {"max_new_tokens": 1, "pad_token_id": 0, "eos_token_id": ends}
    student.generate(torch.tensor([[0, 1, 2]]), **options)
    assert (len(said) == 1 and "attention_mask" in said[0]) if warns else not said
    said.clear()
    student.generate(torch.tensor([[4, 1, 2]]), **options)
    student.generate(torch.tensor([[0, 1, 2]]), attention_mask=torch.tensor([[0, 1, 1]]), **options)
    assert not said


def test_a_mask_of_the_caller_goes_before_what_the_cache_knows(student):
    """The first new column is padding where a row had ended, unless the caller says otherwise."""
    ids, mask = padded(ROWS, 0)
    over = StoppingCriteriaList([EndAt([6, 8, 6])])
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "return_dict_in_generate": True}
    first = student.generate(ids, attention_mask=mask, stopping_criteria=over, max_new_tokens=4, **options)
    cache = first[CACHE_NAME]
    assert cache.ends_in_padding.tolist() == [True, False, True]
    cache.batch_select_indices(torch.tensor([1, 0]))
    assert cache.ends_in_padding.tolist() == [False, True]
    cache.batch_repeat_interleave(2)
    assert cache.ends_in_padding.tolist() == [False, False, True, True]
    before = cache.memory
    turn = torch.full((4, 1), 2)
    everything = torch.ones(4, cache.get_seq_length() + 1, dtype=torch.long)
    later = student.generate(turn, attention_mask=everything, max_new_tokens=1, **{CACHE_NAME: cache}, **options)
    for row in range(4):
        expected = read_alone(student, [2], before[row : row + 1])
        torch.testing.assert_close(later[CACHE_NAME].memory[row : row + 1], expected, **EXACT)
    assert not later[CACHE_NAME].ends_in_padding.any()
    cache.reset()
    assert cache.ends_in_padding is None


def test_a_memory_of_rows_that_ended_early(student):
    ids, mask = padded(ROWS, 0)
    lengths = [1, 4, 2]
    over = StoppingCriteriaList([EndAt([5 + length for length in lengths])])
    options = {"do_sample": False, "eos_token_id": 3, "pad_token_id": 0, "return_dict_in_generate": True}
    output = student.generate(ids, attention_mask=mask, stopping_criteria=over, max_new_tokens=4, **options)
    memory = SmtMemory.from_cache(student, output[CACHE_NAME])
    for number, row in enumerate(ROWS):
        written, _ = write_alone(student, row, lambda w, n=number: len(w) >= lengths[n] or w[-1] == 3, 4)
        ended = memory.num_tokens[number] == len(row) + len(written)  # else its last token is not read
        read = written if ended else written[:-1]
        torch.testing.assert_close(memory.states[number][None], read_alone(student, row + read), **EXACT)


def test_token_healing_needs_no_padding(student):
    """A row of a padded batch is healed as it is alone."""
    vocab = {"<pad>": 0, "<s>": 1, "a": 2, "b": 3, "ab": 4, "bb": 5}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b"), ("b", "b")]))
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", padding_side="left"
    )
    options = {
        "max_new_tokens": 4,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
        "tokenizer": tokenizer,
    }
    texts = ["bbaa", "ba", "aba", "a"]
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    healed = student.generate(**batch, token_healing=True, **options)
    assert not healed[:, :3].equal(batch["input_ids"])
    for row, text in zip(healed, texts, strict=True):
        single = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        alone = student.generate(**single, token_healing=True, **options)[0]
        assert row[-len(alone) :].equal(alone)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (3, 1, 1, 4), (3, 4, 4), (4,), (3, 5), (3, 3), (2, 4), (1, 4)])
def test_masks_of_another_shape_are_refused(student, joint, tokens, shape):
    ids, mask = tokens[:, :4] % VOCAB, torch.ones(shape)
    calls = [
        lambda: student(ids, attention_mask=mask),
        lambda: student(ids, attention_mask=mask, labels=ids),
        lambda: student.read(ids, mask),
        lambda: student.generate(ids, attention_mask=mask, max_new_tokens=1),
        lambda: student.generate(ids, attention_mask=mask, max_new_tokens=1, num_beams=2),
        lambda: student.generate(ids, attention_mask=mask, max_new_tokens=1, memory=student.read(ids)),
        lambda: student.generate(
            inputs_embeds=student.get_input_embeddings()(ids), attention_mask=mask, max_new_tokens=1
        ),
        lambda: joint.teacher.encode(ids, torch.tensor([3]), mask),
        lambda: joint.export_student().read(ids, mask, teacher=joint.teacher),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"attention_mask has shape") as caught:
            call()
        assert ("documents" in str(caught.value)) == (len(shape) != 2) and "(3, 4)" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns, fits", [(2, True), (8, True), (7, False), (9, False), (6, False)])
def test_masks_after_a_cache(student, tokens, columns, fits):
    ids = tokens % VOCAB
    whole = student(ids[:, :8]).logits[:, -2:]
    cache = student(ids[:, :6])[CACHE_NAME]
    mask = torch.ones(3, columns)
    if fits:
        torch.testing.assert_close(student(ids[:, 6:8], mask, cache=cache).logits, whole, **EXACT)
        return
    with pytest.raises(ValueError, match=r"\(3, 2\).*or \(3, 8\) with the 6 columns read before"):
        student(ids[:, 6:8], mask, cache=cache)
    with pytest.raises(ValueError, match="attention_mask has shape"):
        student.generate(ids[:, 6:8], attention_mask=mask, max_new_tokens=1, **{CACHE_NAME: cache})


def test_prompts_without_tokens_are_refused(student):
    empty = torch.zeros(2, 0, dtype=torch.long)
    cache = student(torch.tensor([[1], [2]]))[CACHE_NAME]
    for options in ({}, {CACHE_NAME: cache}):
        with pytest.raises(ValueError, match="the prompt is empty: pass at least one token"):
            student.generate(empty, max_new_tokens=1, **options)
    with pytest.raises(ValueError, match=r"the prompt has shape \(3,\): pass \(batch, tokens\)"):
        student.generate(torch.tensor([1, 2, 3]), max_new_tokens=1)


@pytest.mark.parametrize("name", ["generate_batch", "init_continuous_batching", "continuous_batching_context_manager"])
def test_continuous_batching_is_refused(student, name):
    for arguments in ((), ([[1, 2]],)):
        with pytest.raises(NotImplementedError, match="pages of keys and values.*call generate"):
            getattr(student, name)(*arguments)
    with pytest.raises(NotImplementedError, match="pages of keys and values"):
        student.generate(torch.tensor([[1, 2]]), cache_implementation="paged")
