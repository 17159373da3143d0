"""The generation contract: whatever `generate()` does with a prompt, padding or a cache, the memory is the same.

The students have large weights in float64: with small ones the memory would hardly matter and every test would pass.
"""

import copy

import pytest
import torch
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation import BaseStreamer

from smt_hf import SmtRnnCache, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models.cache_smt_rnn import CACHE_NAME

EXACT = {"rtol": 0, "atol": 1e-9}
PAD = 0
MODES = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_k": 5},
    "sampling, 2 each": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 3},
    "beams, 2 each": {"num_beams": 3, "num_return_sequences": 2},
}
every_mode = pytest.mark.parametrize("options", MODES.values(), ids=MODES.keys())


def run(student, input_ids=None, seed=0, **kwargs):
    """A generation that returns its cache; 8 new tokens and no end token unless asked for."""
    torch.manual_seed(seed)
    options = {"max_new_tokens": 8, "pad_token_id": PAD, "eos_token_id": None, "do_sample": False, **kwargs}
    if input_ids is not None and "cache" not in kwargs:
        options.setdefault("attention_mask", torch.ones_like(input_ids))
    return student.generate(input_ids, return_dict_in_generate=True, **options)


def small_student():
    sizes = {"hidden_size": 8, "num_memory_tokens": 2, "num_updater_layers": 1, "num_readout_layers": 1}
    torch.manual_seed(0)
    config = SmtRnnConfig(vocab_size=20, num_attention_heads=1, initializer_range=0.3, **sizes)
    return SmtRnnForCausalLM(config).eval()


def memory_after(student, row):
    """The memory after every token of `row`, one step at a time."""
    memory = student.initial_memory[None]
    for token in row:
        memory = student.update(memory, token[None])
    return memory


def left_padded(rows, pad=PAD):
    length = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), length), pad), torch.zeros(len(rows), length, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, length - len(row) :], mask[number, length - len(row) :] = row, 1
    return ids, mask


@pytest.fixture
def prompts(tokens):
    """Ragged rows of 2, 5 and 4 tokens."""
    return [tokens[0, :2], tokens[1, :5], tokens[2, :4]]


def test_the_memory_matters(student, tokens):
    other = tokens[:1].clone()
    other[0, 0] = (other[0, 0] + 1) % 20
    logits, others = student(tokens[:1]).logits, student(other).logits
    assert (logits[0, 5] - others[0, 5]).abs().max() > 1e-2
    assert run(student, tokens[:1, :4]).sequences[0, 4:].unique().numel() > 2


@every_mode
def test_cached_equals_uncached(student, tokens, options):
    cached, uncached = (run(student, tokens[:, :4], use_cache=use, **options).sequences for use in (True, False))
    assert cached.equal(uncached)


@pytest.mark.parametrize("sizes", [[1] * 14, [5, 1, 8], [13, 1]])
def test_chunks_equal_all_at_once(student, tokens, sizes):
    whole = student(tokens)
    cache, logits = None, []
    for chunk in tokens.split(sizes, dim=1):
        output = student(chunk, cache=cache)
        cache = output[CACHE_NAME]
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), whole.logits, **EXACT)
    torch.testing.assert_close(cache.memory, whole[CACHE_NAME].memory, **EXACT)
    assert cache.get_seq_length() == 14


@every_mode
@pytest.mark.parametrize("pad", [0, 7, 19])
def test_a_left_padded_batch_equals_single_runs(student, prompts, pad, options):
    if options.get("do_sample"):
        options = {**options, "top_k": 1}  # rows of a batch draw from one stream of random numbers
    ids, mask = left_padded(prompts, pad)
    batch = run(student, ids, attention_mask=mask, pad_token_id=pad, **options).sequences
    each = len(batch) // len(prompts)
    for number, prompt in enumerate(prompts):
        alone = run(student, prompt[None], pad_token_id=pad, **options).sequences
        assert batch[number * each : (number + 1) * each, ids.shape[1] :].equal(alone[:, len(prompt) :])


@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_in_the_middle_of_a_continuation_is_skipped(student, tokens, use_cache):
    ids, mask = tokens[:1, :9].clone(), torch.ones(1, 9, dtype=torch.long)
    ids[0, [2, 3, 6]], mask[0, [2, 3, 6]] = 13, 0
    padded = run(student, ids, attention_mask=mask, use_cache=use_cache)
    plain = run(student, tokens[:1, [0, 1, 4, 5, 7, 8]], use_cache=use_cache)
    assert padded.sequences[:, 9:].equal(plain.sequences[:, 6:])
    first = run(student, ids[:, :4], attention_mask=mask[:, :4], max_new_tokens=1)
    second = run(student, ids, attention_mask=mask, cache=first[CACHE_NAME])
    # the cache has read the first three columns, the last of which is padding
    assert second.sequences[:, 9:].equal(plain.sequences[:, 6:])


def test_the_forward_pass_skips_padding_on_either_side(student, tokens):
    mask = torch.ones(3, 14, dtype=torch.long)
    mask[0, :5], mask[1, 9:], mask[2, 4:7] = 0, 0, 0
    memory = student(tokens, attention_mask=mask)[CACHE_NAME].memory
    for row in range(3):
        expected = memory_after(student, tokens[row, mask[row].bool()])
        torch.testing.assert_close(memory[row : row + 1], expected, **EXACT)


@every_mode
def test_going_on_with_the_full_sequence(student, tokens, options):
    if "num_return_sequences" in options:
        options = {**options, "num_return_sequences": 1}
    whole = run(student, tokens[:, :4], max_new_tokens=8, do_sample=False)
    first = run(student, tokens[:, :4], max_new_tokens=3)
    assert first[CACHE_NAME].get_seq_length() == 6  # the last token is not read yet
    for _ in range(2):
        second = run(student, first.sequences, cache=copy.deepcopy(first[CACHE_NAME]), max_new_tokens=5, **options)
        afresh = run(student, first.sequences, max_new_tokens=5, **options)
        assert second.sequences.equal(afresh.sequences)
    greedy = run(student, first.sequences, cache=first[CACHE_NAME], max_new_tokens=5)
    assert greedy.sequences.equal(whole.sequences)


@pytest.mark.parametrize("mask", ["none", "of the new token", "of all tokens"])
def test_going_on_with_the_last_token_only(student, tokens, mask):
    whole = run(student, tokens[:, :4], max_new_tokens=8)
    first = run(student, tokens[:, :4], max_new_tokens=3)
    masks = {
        "of the new token": torch.ones(3, 1, dtype=torch.long),
        "of all tokens": torch.ones(3, 7, dtype=torch.long),
    }
    options = {"attention_mask": masks[mask]} if mask in masks else {}
    second = run(student, first.sequences[:, -1:], cache=first[CACHE_NAME], max_new_tokens=5, **options)
    assert second.sequences[:, 1:].equal(whole.sequences[:, 7:])


@pytest.mark.parametrize("only_new", [False, True])
def test_going_on_with_a_new_turn(student, tokens, only_new):
    first = run(student, tokens[:, :4], max_new_tokens=3)
    conversation = torch.cat([first.sequences, tokens[:, 4:9]], dim=1)
    afresh = run(student, conversation)
    inputs = conversation[:, 6:] if only_new else conversation
    mask = torch.ones(3, 12, dtype=torch.long)
    second = run(student, inputs, cache=first[CACHE_NAME], attention_mask=mask)
    assert second.sequences[:, -8:].equal(afresh.sequences[:, -8:])
    torch.testing.assert_close(second[CACHE_NAME].memory, afresh[CACHE_NAME].memory, **EXACT)


def test_inputs_that_the_cache_has_read_are_refused(student, tokens):
    cache = student(tokens[:, :6])[CACHE_NAME]
    with pytest.raises(ValueError, match="has read 6 tokens"):
        run(student, tokens[:, :6], cache=cache)


@pytest.mark.parametrize("pad_ends", [False, True])
def test_rows_that_end_early_go_on_like_single_runs(student, tokens, pad_ends):
    """Padding that generate() appends to finished rows moves no memory, so the next turn is exact."""
    ends = {"max_new_tokens": 12, "eos_token_id": [], "pad_token_id": PAD}
    free = run(student, tokens[:, :4], max_new_tokens=12).sequences[:, 4:]
    end = free[0, 2].item()  # what the first row writes third is the end token, for all rows
    ends |= {"eos_token_id": end, "pad_token_id": end if pad_ends else (end + 1) % 20}
    batch = run(student, tokens[:, :4], **ends)
    generated = batch.sequences[:, 4:]
    lengths = [(row == end).nonzero()[0].item() + 1 if (row == end).any() else len(row) for row in generated]
    assert len(set(lengths)) > 1
    mask = torch.ones(3, batch.sequences.shape[1] + 3, dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, 4 + length : -3] = 0
    turn = torch.cat([batch.sequences, tokens[:, 4:7]], dim=1)
    second = run(student, turn, attention_mask=mask, cache=batch[CACHE_NAME])
    for row in range(3):
        alone = run(student, turn[row, mask[row].bool()][None])
        assert second.sequences[row, -8:].equal(alone.sequences[0, -8:])
        torch.testing.assert_close(second[CACHE_NAME].memory[row], alone[CACHE_NAME].memory[0], **EXACT)


@pytest.mark.parametrize("expanded", ["by hand", "by generate"])
def test_one_prompt_cache_serves_beams(student, tokens, expanded):
    expected = run(student, tokens[:, :8], num_beams=3, num_return_sequences=3)
    cache = student(tokens[:, :5])[CACHE_NAME]
    before = cache.memory.clone()
    if expanded == "by hand":
        cache.batch_repeat_interleave(3)
    result = run(student, tokens[:, :8], cache=cache, num_beams=3, num_return_sequences=3)
    assert result.sequences.equal(expected.sequences)
    torch.testing.assert_close(result.sequences_scores, expected.sequences_scores, **EXACT)
    if expanded == "by generate":
        assert cache.memory.equal(before) and cache.get_seq_length() == 5


def test_one_prompt_cache_serves_many_prompts(student, tokens):
    prompt = tokens[:1, :5].expand(3, -1)
    expected = run(student, torch.cat([prompt, tokens[:, 5:8]], dim=1))
    cache = student(tokens[:1, :5])[CACHE_NAME]
    result = run(student, torch.cat([prompt, tokens[:, 5:8]], dim=1), cache=cache)
    assert result.sequences.equal(expected.sequences)
    with pytest.raises(ValueError, match="2 rows, but the inputs have 3"):
        run(student, tokens, cache=student(tokens[:2, :5])[CACHE_NAME])


def test_batch_select_indices(student, tokens):
    cache = student(tokens[:, :5])[CACHE_NAME]
    cache.batch_select_indices(torch.tensor([2, 0]))
    output = student(tokens[[2, 0], 5:], cache=cache)
    torch.testing.assert_close(output.logits, student(tokens[[2, 0]]).logits[:, 5:], **EXACT)


def test_reorder_cache(student, tokens):
    cache = student(tokens[:, :5])[CACHE_NAME]
    cache.reorder_cache(torch.tensor([1, 1, 0]))
    output = student(tokens[[1, 1, 0], 5:], cache=cache)
    torch.testing.assert_close(output.logits, student(tokens[[1, 1, 0]]).logits[:, 5:], **EXACT)


def test_reset(student, tokens):
    cache = student(tokens[:, :5])[CACHE_NAME]
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(student(tokens, cache=cache).logits, student(tokens).logits, rtol=0, atol=0)


def test_two_calls_share_nothing(student, tokens):
    first = run(student, tokens[:, :4])
    before = first[CACHE_NAME].memory.clone()
    second = run(student, tokens[:, :4])
    assert second.sequences.equal(first.sequences)
    assert first[CACHE_NAME] is not second[CACHE_NAME] and first[CACHE_NAME].memory.equal(before)
    copied = copy.deepcopy(first[CACHE_NAME])
    student(tokens[:, :1], cache=first[CACHE_NAME])
    assert copied.memory.equal(before) and not first[CACHE_NAME].memory.equal(before)


@every_mode
@pytest.mark.parametrize("size", [1, 3, 100])
def test_prefill_in_chunks(student, prompts, size, options):
    ids, mask = left_padded(prompts)
    whole = run(student, ids, attention_mask=mask, **options)
    chunked = run(student, ids, attention_mask=mask, prefill_chunk_size=size, **options)
    assert chunked.sequences.equal(whole.sequences)


@every_mode
def test_inputs_embeds(student, tokens, options):
    embeds = student.get_input_embeddings()(tokens[:, :4])
    generated = run(student, inputs_embeds=embeds, **options).sequences
    assert generated.equal(run(student, tokens[:, :4], **options).sequences[:, 4:])


def test_a_streamer_sees_every_token(student, tokens):
    class Collect(BaseStreamer):
        def __init__(self):
            self.seen, self.ended = [], False

        def put(self, value):
            self.seen += value.flatten().tolist()

        def end(self):
            self.ended = True

    streamer = Collect()
    sequences = run(student, tokens[:1, :4], streamer=streamer).sequences
    assert streamer.seen == sequences[0].tolist() and streamer.ended


def test_logits_processors(student, tokens):
    processor = LogitsProcessorList([lambda ids, scores: scores.masked_fill(torch.arange(20) % 2 == 1, -torch.inf)])
    generated = run(student, tokens[:, :4], logits_processor=processor).sequences[:, 4:]
    assert (generated % 2 == 0).all()
    repeats = run(student, tokens[:1, :4], no_repeat_ngram_size=1, max_new_tokens=10).sequences[0]
    assert repeats[3:].unique().numel() == 11


def test_stopping_criteria(student, tokens):
    criteria = StoppingCriteriaList([lambda ids, scores: torch.full((len(ids),), ids.shape[1] >= 7)])
    stopped = run(student, tokens[:, :4], stopping_criteria=criteria)
    assert stopped.sequences.equal(run(student, tokens[:, :4], max_new_tokens=3).sequences)


def test_assisted_generation_is_refused(student, tokens):
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        run(student, tokens[:1, :4], assistant_model=student)


def test_the_returned_cache_has_no_autograd_history(student, tokens):
    assert not run(student, tokens[:, :4])[CACHE_NAME].memory.requires_grad
    with torch.enable_grad():
        output = student(tokens)
    assert output.logits.requires_grad and not output[CACHE_NAME].memory.requires_grad


@every_mode
def test_bfloat16(student, tokens, options):
    """Another rounding of the logits in a batch may change a choice, so compare cached with cached, row by row."""
    student = student.to(torch.bfloat16)
    result = run(student, tokens[:1, :4], output_logits=True, **options)
    cache = result[CACHE_NAME]
    assert "num_beams" in options if cache is None else cache.memory.dtype == torch.bfloat16
    assert all(step.isfinite().all() for step in result.logits)
    assert result.sequences.equal(run(student, tokens[:1, :4], **options).sequences)


def test_the_compiled_step(tokens):
    student = small_student().double()
    cache, plain_cache = SmtRnnCache(), SmtRnnCache()
    step = torch.compile(student, fullgraph=False)
    for column in tokens.split(1, dim=1):
        compiled, plain = step(column, cache=cache), student(column, cache=plain_cache)
        torch.testing.assert_close(compiled.logits, plain.logits, rtol=0, atol=1e-7)
    torch.testing.assert_close(cache.memory, plain_cache.memory, rtol=0, atol=1e-7)
    update = torch.compile(student.update, fullgraph=True)
    memory = student.initial_memory.expand(3, -1, -1)
    torch.testing.assert_close(update(memory, tokens[:, 0]), student.update(memory, tokens[:, 0]), rtol=0, atol=1e-7)


def test_a_prefill_computes_the_logits_of_its_last_position_only(student, tokens):
    rows = []
    hook = student.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[:-1].numel()))
    run(student, tokens, max_new_tokens=2)
    hook.remove()
    assert rows == [3, 3]


def test_the_cache_does_not_grow_by_a_byte_over_20000_tokens():
    student = small_student()
    short = run(student, torch.tensor([[1, 2]]), max_new_tokens=2)[CACHE_NAME]
    output = run(student, torch.tensor([[1, 2]]), max_new_tokens=20_000, do_sample=True)
    cache = output[CACHE_NAME]
    assert output.sequences.shape == (1, 20_002) and cache.get_seq_length() == 20_001
    assert cache.memory.untyped_storage().nbytes() == short.memory.untyped_storage().nbytes() == 2 * 8 * 4
    assert len(cache.layers) == 1 and cache.get_max_length() == -1


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "do_sample": True, "num_return_sequences": 2}])
def test_beams_return_no_cache(student, tokens, options):
    """Its rows are those of the last beams, which are not the sequences."""
    output = student.generate(tokens, max_new_tokens=4, return_dict_in_generate=True, **options)
    assert output[CACHE_NAME] is None and output.sequences.shape[1] == 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": torch.tensor([[0] * 5 + [1] * 9])}, "pass generate\\(\\) one row per document"),
        ({"position_ids": torch.arange(14) % 6}, "pass generate\\(\\) one row per document"),
        ({"position_ids": torch.arange(14)[None] % 6}, "pass generate\\(\\) one row per document"),
        ({"output_memory": True}, "does not return output_memory"),
    ],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_arguments_of_training_are_refused(student, tokens, arguments, message, use_cache):
    with pytest.raises(ValueError, match=message):
        student.generate(tokens, max_new_tokens=2, use_cache=use_cache, **arguments)


def test_positions_of_padding_are_no_documents(student, tokens):
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    written = [
        student.generate(tokens, attention_mask=mask, max_new_tokens=4, **more)
        for more in ({}, {"position_ids": positions})
    ]
    assert written[0].equal(written[1])


@pytest.mark.parametrize(
    ("memory", "remedy"),
    [
        (SmtRnnCache(torch.zeros(1, 3, 32)), "pass it as cache"),
        (torch.zeros(1, 3, 32), "student.read"),
        (3, "student.read"),
    ],
)
def test_what_is_no_memory(student, tokens, memory, remedy):
    with pytest.raises(TypeError, match=remedy):
        student.generate(tokens, memory=memory, max_new_tokens=2)
    with pytest.raises(TypeError, match=remedy):
        student.read(tokens, memory=memory)


@pytest.mark.parametrize("token", [-1, 20])
def test_ids_outside_the_vocabulary(student, tokens, token):
    tokens = tokens.clone()
    tokens[1, 2] = token
    for read in (student.read, student.generate):
        with pytest.raises(ValueError, match=f"token id {token} is outside the student's vocabulary of 20 ids"):
            read(tokens)


def test_a_prompt_without_a_batch(student, tokens):
    for read in (student.read, student.generate):
        with pytest.raises(ValueError, match="pass \\(batch, tokens\\)"):
            read(tokens[0])
