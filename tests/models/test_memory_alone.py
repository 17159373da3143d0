"""Options of `generate()` from a memory alone: as after the prompt that it has read, or refused by name."""

import pytest
import torch
from transformers import (
    CompileConfig,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    SynthIDTextWatermarkingConfig,
    TextStreamer,
    WatermarkingConfig,
)
from transformers.generation import logits_process

from smt_hf.models.cache_smt_rnn import CACHE_NAME

LENGTH, NEW = 4, 6
SAMPLE, BEAMS = {"do_sample": True}, {"num_beams": 3}
END = "the token that the first row writes second"
NEGATIVE = {"negative_prompt_ids": torch.tensor([[3, 4], [5, 6], [7, 8]])}

# Every field of a GenerationConfig with what else it needs to matter; those of one list are tried one by one.
SAME = {
    "max_new_tokens": {"max_new_tokens": 3},
    "min_new_tokens": {"min_new_tokens": 5, "eos_token_id": END},
    "early_stopping": {"early_stopping": True, **BEAMS},
    "max_time": {"max_time": 100.0},
    "stop_strings": {"stop_strings": ["\n"]},
    "do_sample": SAMPLE,
    "num_beams": [BEAMS, {**BEAMS, **SAMPLE}],
    "use_cache": [{"use_cache": False}, {"use_cache": False, **BEAMS}],
    "cache_implementation": [
        {"cache_implementation": name} for name in ("static", "offloaded", "quantized", "dynamic")
    ],
    "cache_config": {"cache_config": {"nbits": 4}},
    "max_cache_len": {"max_cache_len": 32},
    "temperature": {"temperature": 0.5, **SAMPLE},
    "top_k": {"top_k": 3, **SAMPLE},
    "top_p": {"top_p": 0.5, **SAMPLE},
    "min_p": {"min_p": 0.1, **SAMPLE},
    "top_h": {"top_h": 0.5, **SAMPLE},
    "typical_p": {"typical_p": 0.5, **SAMPLE},
    "epsilon_cutoff": {"epsilon_cutoff": 0.01, **SAMPLE},
    "eta_cutoff": {"eta_cutoff": 0.01, **SAMPLE},
    "length_penalty": {"length_penalty": 2.0, "eos_token_id": END, **BEAMS},
    "renormalize_logits": {"renormalize_logits": True, **BEAMS},
    "forced_eos_token_id": {"forced_eos_token_id": 3},
    "remove_invalid_values": {"remove_invalid_values": True},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (1, 1.5), "eos_token_id": END},
    "suppress_tokens": {"suppress_tokens": [8, 10]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [8, 10]},
    "sequence_bias": {"sequence_bias": {(3,): 5.0}},
    "bad_words_ids": {"bad_words_ids": [[8], [10]]},
    "guidance_scale": {"guidance_scale": 2.0, **NEGATIVE},
    "num_return_sequences": [{"num_return_sequences": 2, **SAMPLE}, {"num_return_sequences": 2, **BEAMS}],
    "output_hidden_states": {"output_hidden_states": True, "return_dict_in_generate": True},
    "output_scores": {"output_scores": True, "return_dict_in_generate": True},
    "output_logits": {"output_logits": True, "return_dict_in_generate": True},
    "return_dict_in_generate": {"return_dict_in_generate": True},
    "pad_token_id": {"pad_token_id": 10, "eos_token_id": END},
    "bos_token_id": {"bos_token_id": 3},
    "eos_token_id": {"eos_token_id": [END, 5]},
    "decoder_start_token_id": {"decoder_start_token_id": 3},
    "num_assistant_tokens": {"num_assistant_tokens": 3},
    "num_assistant_tokens_schedule": {"num_assistant_tokens_schedule": "constant"},
    "assistant_confidence_threshold": {"assistant_confidence_threshold": 0.4},
    "max_matching_ngram_size": {"max_matching_ngram_size": 2},
    "assistant_lookbehind": {"assistant_lookbehind": 2},
    "target_lookbehind": {"target_lookbehind": 2},
    "assistant_ensemble_weight": {"assistant_ensemble_weight": 0.5},
    "speculation_type": {"speculation_type": "dflash"},
    "compile_config": {"compile_config": CompileConfig()},
    "disable_compile": {"disable_compile": True},
    "diversity_penalty": {"diversity_penalty": 0.5},
    "prefill_chunk_size": [{"prefill_chunk_size": size} for size in (1, 2, 9)],
    "low_memory": {"low_memory": True},
}
# They look back: with a prompt at its tokens too, from a memory alone at the new ones.
LOOKS_BACK = {
    "repetition_penalty": ({"repetition_penalty": 1.5}, lambda: logits_process.RepetitionPenaltyLogitsProcessor(1.5)),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 1}, lambda: logits_process.NoRepeatNGramLogitsProcessor(1)),
    "sequence_bias": (
        {"sequence_bias": {(16, 8): 9.0, (3,): 1.0}},
        lambda: logits_process.SequenceBiasLogitsProcessor({(16, 8): 9.0, (3,): 1.0}),
    ),
    "bad_words_ids": ({"bad_words_ids": [[16, 8]]}, lambda: logits_process.NoBadWordsLogitsProcessor([[16, 8]])),
    "watermarking_config": (
        {"watermarking_config": WatermarkingConfig(bias=4.0)},
        lambda: WatermarkingConfig(bias=4.0).construct_processor(20, "cpu"),
    ),
}
# They mean nothing without the tokens of a prompt.
REFUSED = {
    "guidance_scale": {"guidance_scale": 2.0},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.5},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "forced_bos_token_id": {"forced_bos_token_id": 3},
    "token_healing": {"token_healing": True},
}
# They are refused with a prompt as well, in the same words.
REFUSED_ALWAYS = {
    "output_attentions": {"output_attentions": True, "return_dict_in_generate": True},
    "use_mtp": {"use_mtp": True},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 2},
    "assistant_early_exit": {"assistant_early_exit": 1},
    "is_assistant": {"is_assistant": True},
    "low_memory": {"low_memory": True, **BEAMS},
    "penalty_alpha": {"penalty_alpha": 0.5, "top_k": 4},
    "dola_layers": {"dola_layers": "high"},
    "num_beam_groups": {"num_beam_groups": 2, "num_beams": 4},
    "constraints": {"constraints": [1]},
    "force_words_ids": {"force_words_ids": [[3]], **BEAMS},
}
ELSEWHERE = {"max_length", "min_length"}  # tests of their own below
NOT_OPTIONS = {"continuous_batching_config", "transformers_version"}


def cases(table):
    """`(name, options)` of every entry."""
    return [
        pytest.param(options, id=name)
        for name, entry in table.items()
        for options in (entry if isinstance(entry, list) else [entry])
    ]


@pytest.fixture
def prompt(tokens):
    return tokens[:, :LENGTH]


@pytest.fixture
def memory(student, prompt):
    return student.read(prompt)


def write(student, inputs=None, **options):
    torch.manual_seed(0)
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    if inputs is not None:
        options.setdefault("attention_mask", torch.ones_like(inputs))
    output = student.generate(inputs, **options)
    sequences = output if isinstance(output, torch.Tensor) else output.sequences
    return sequences if inputs is None else sequences[:, inputs.shape[1] :]


def filled(student, prompt, tokenizer, options):
    """The options with their end token, and a tokenizer where one is needed."""
    end = write(student, prompt)[0, 1].item()
    if "eos_token_id" in options:
        ends = options["eos_token_id"]
        options = {**options, "eos_token_id": [end, 5] if isinstance(ends, list) else end}
    if "stop_strings" in options or "token_healing" in options:
        options = {**options, "tokenizer": tokenizer}
    return options


def test_every_field_is_tried():
    """A new version of the library may bring options: say here what they do from a memory alone."""
    tried = set().union(SAME, LOOKS_BACK, REFUSED, REFUSED_ALWAYS, ELSEWHERE, NOT_OPTIONS)
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert fields - tried == set()


@pytest.mark.parametrize("options", cases(SAME))
def test_it_works_as_after_the_prompt(student, tokenizer, prompt, memory, options):
    options = filled(student, prompt, tokenizer, options)
    expected = write(student, prompt, **options)
    assert write(student, memory=memory, **options).equal(expected)
    names = {name: options[name] for name in options if name not in ("tokenizer", "negative_prompt_ids")}
    config = GenerationConfig(**{"max_new_tokens": NEW, "pad_token_id": 0, **names})
    others = {name: options[name] for name in options if name in ("tokenizer", "negative_prompt_ids")}
    torch.manual_seed(0)
    output = student.generate(memory=memory, generation_config=config, **others)
    assert getattr(output, "sequences", output).equal(expected)


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("name", ["max_length", "min_length"])
def test_lengths_count_the_tokens_of_the_call(student, prompt, memory, name, new):
    options = (
        {"max_new_tokens": None} if name == "max_length" else {"eos_token_id": write(student, prompt)[0, 1].item()}
    )
    expected = write(student, prompt, **options, **{name: LENGTH + new})
    assert write(student, memory=memory, **options, **{name: new}).equal(expected)
    assert name == "min_length" or expected.shape[1] == new
    two = {"attention_mask": torch.ones(3, 2)}
    half = student.read(prompt[:, :2])
    assert write(student, prompt[:, 2:], memory=half, **two, **options, **{name: 2 + new}).equal(expected)


def test_the_default_length(student, prompt, memory):
    assert write(student, memory=memory, max_new_tokens=None).shape == (3, 20)


@pytest.mark.parametrize("name", LOOKS_BACK)
def test_what_looks_back_sees_the_new_tokens(student, prompt, memory, name):
    options, processor = LOOKS_BACK[name]
    processor = processor()
    list_of_it = LogitsProcessorList([lambda ids, scores: processor(ids[:, LENGTH:], scores)])
    expected = write(student, prompt, logits_processor=list_of_it)
    assert write(student, memory=memory, **options).equal(expected)


def test_a_watermark_of_longer_context(student, prompt, memory):
    mark = SynthIDTextWatermarkingConfig(keys=[1, 2, 3], ngram_len=3)
    assert write(student, memory=memory, watermarking_config=mark, **SAMPLE).shape == (3, NEW)


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_prompt_is_refused(student, tokenizer, prompt, memory, name):
    options = filled(student, prompt, tokenizer, REFUSED[name])
    with pytest.raises(ValueError, match=f"{name}.*prompt.*memory alone") as caught:
        write(student, memory=memory, **options)
    assert "\n" not in str(caught.value)
    if name != "token_healing":
        write(student, prompt, **options)
        write(student, prompt, memory=memory, **options)
    neutral = {"guidance_scale": 1, "encoder_repetition_penalty": 1.0, "encoder_no_repeat_ngram_size": 0}
    assert write(student, memory=memory, **neutral).equal(write(student, prompt))


@pytest.mark.parametrize("options", cases(REFUSED_ALWAYS))
def test_what_is_refused_with_a_prompt_is_refused_alike(student, prompt, memory, options):
    said = []
    for start in ({"inputs": prompt}, {"memory": memory}):
        with pytest.raises((ValueError, TypeError)) as caught:
            write(student, **start, **options)
        said.append((caught.type, str(caught.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant_model": None}, {"use_mtp": True}])
def test_assisted_generation_names_the_option(student, prompt, memory, options):
    options = {"assistant_model": student} if "assistant_model" in options else options
    for start in ({"inputs": prompt}, {"memory": memory}):
        with pytest.raises(ValueError, match=f"stateful models.*recurrent memory.*leave out {next(iter(options))}"):
            write(student, **start, **options)


def test_continuous_batching_is_refused(student, memory):
    with pytest.raises(NotImplementedError, match="memory of fixed size"):
        write(student, memory=memory, cache_implementation="paged")


def sample_by_hand(model, input_ids, **kwargs):
    return type(model)._sample(model, input_ids, **kwargs)


@pytest.mark.parametrize(
    "options",
    [
        {"logits_processor": LogitsProcessorList([lambda ids, scores: scores.masked_fill(scores.argmax() < 9, 0)])},
        {"stopping_criteria": StoppingCriteriaList([lambda ids, scores: ids[:, -1] == ids[0, -1]])},
        {"prefix_allowed_tokens_fn": lambda row, ids: [row + 1, row + 2]},
        {"prefix_allowed_tokens_fn": lambda row, ids: [row + 1, row + 2], **BEAMS},
        {"synced_gpus": False},
        {"custom_generate": sample_by_hand},
    ],
)
def test_keywords(student, prompt, memory, options):
    assert write(student, memory=memory, **options).equal(write(student, prompt, **options))


def test_a_streamer_sees_the_new_tokens(student, tokenizer, prompt, capsys):
    streamer = TextStreamer(tokenizer)
    written = write(student, memory=student.read(prompt[:1]), streamer=streamer)
    assert capsys.readouterr().out == tokenizer.decode(written[0]) + "\n"


def test_a_prompt_without_tokens_is_none(student, tokenizer, prompt, memory):
    expected = write(student, memory=memory)
    empty = torch.zeros(3, 0, dtype=torch.long)
    for start in (
        {"inputs": empty},
        {"input_ids": empty, "attention_mask": empty},
        {"inputs_embeds": torch.zeros(3, 0, 32)},
    ):
        assert student.generate(
            **start, memory=memory, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
        ).equal(expected)
    one = write(student, memory=memory[1])
    assert student.generate(empty, memory=memory[1], max_new_tokens=NEW, do_sample=False, eos_token_id=None).equal(
        one.expand(3, -1)
    )
    with pytest.raises(ValueError, match="attention_mask belongs to a prompt, but a memory alone has none"):
        write(student, memory=memory, attention_mask=torch.ones(3, 2))


def test_its_cache_goes_on(student, prompt, memory):
    """What it returns is a whole sequence of its own, of which the cache has read all but the last token."""
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "return_dict_in_generate": True}
    first = student.generate(memory=memory, max_new_tokens=3, **options)
    assert first[CACHE_NAME].get_seq_length() == 2
    second = student.generate(first.sequences, max_new_tokens=3, **{CACHE_NAME: first[CACHE_NAME]}, **options)
    assert second.sequences.equal(write(student, memory=memory))


def test_rows_end_apart_from_one_another(student, prompt, memory):
    for use_cache in (True, False):
        ends = write(student, prompt)[:, 2].tolist()
        options = {"eos_token_id": ends, "pad_token_id": ends[0], "use_cache": use_cache}
        assert write(student, memory=memory, **options).equal(write(student, prompt, **options))


def test_an_empty_sequence_after_a_cache_reads_the_memory(student, prompt):
    expected = student(prompt).logits[:, -1:]
    cache = student(prompt)[CACHE_NAME]
    for inputs in ({"input_ids": prompt[:, :0]}, {"inputs_embeds": torch.zeros(3, 0, 32, dtype=torch.float64)}):
        output = student(**inputs, cache=cache, logits_to_keep=1)
        torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-9)
        assert output[CACHE_NAME].get_seq_length() == LENGTH and output[CACHE_NAME].num_tokens.tolist() == [LENGTH] * 3
    with pytest.raises(ValueError, match="the sequence is empty"):
        student(prompt[:, :0])
