"""Rows chosen together against `generate()`, which writes each alone with the same random numbers."""

import pytest
import torch

from smt_hf.errors import InputError
from smt_hf.inference import Engine, Request, SamplingParams
from smt_hf.inference.sampling import Draws, Sampler

from .conftest import alone

PROMPT = list(b"Once upon a time")
OPTIONS = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 7},
    {"temperature": 1.1, "min_p": 0.1},
    {"temperature": 0.9, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"repetition_penalty": 1.4},
    {"temperature": 0.8, "repetition_penalty": 1.2, "top_p": 0.95},
    {"temperature": 0.8, "logit_bias": {97: 3.0, 101: -50.0}},
    {"logit_bias": {98: 100}},
]


def test_every_row_is_what_generate_writes_alone(writer):
    requests, expected = [], []
    for number, options in enumerate(OPTIONS * 2):
        prompt = PROMPT[number % 3 :]
        params = {"temperature": 0.0, **options}
        requests.append(Request(prompt, SamplingParams(max_new_tokens=40, seed=number, **params)))
        bias = options.get("logit_bias")
        theirs = {name: value for name, value in options.items() if name != "logit_bias"}
        theirs |= {"sequence_bias": [[[token], float(value)] for token, value in bias.items()]} if bias else {}
        expected.append(alone(writer, prompt, max_new_tokens=40, seed=number, **theirs))
    answers = Engine.of(writer).generate(requests)
    assert [answer.ids for (answer,) in answers] == expected
    assert len({tuple(row) for row in expected}) > 15


def test_penalties_count_the_answer_alone():
    logits = torch.zeros(1, 5)
    logits[0, 2] = 1.0
    row = Draws(SamplingParams(temperature=0, frequency_penalty=0.4, presence_penalty=0.25), [2, 2, 2], 5)
    sampler = Sampler([row], 5)
    assert [sampler(logits)[0] for _ in range(4)] == [2, 2, 0, 1]  # 1, 1 - .65, then the first of the others
    assert logits[0].tolist() == [0, 0, 1, 0, 0]


def test_a_seed_draws_the_same_whatever_else_runs(writer):
    params = [SamplingParams(max_new_tokens=30, temperature=1.0, seed=seed) for seed in (5, 6, 5, None, None)]
    first = [answer[0].ids for answer in Engine.of(writer).generate([Request(PROMPT, p) for p in params])]
    assert first[0] == first[2] != first[1] and first[3] != first[4]
    (answers,) = Engine.of(writer).generate([Request(PROMPT, SamplingParams(max_new_tokens=30, seed=5, n=2))])
    assert [answer.ids for answer in answers] == first[:2]


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": 2.5},
        {"n": 0},
        {"n": True},
        {"seed": 2**63},
        {"stop": ("",)},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {1: float("nan")}},
        {"repetition_penalty": 0},
        {"max_new_tokens": -1},
    ],
)
def test_values_that_cannot_work_are_refused_by_name(values):
    with pytest.raises(InputError, match=next(iter(values))):
        SamplingParams(**values)
