"""Requests that cannot be answered name the field and the mend."""

import json

import pytest

from smt_hf.errors import InputError
from smt_hf.serving.requests import check_messages, check_prompt, check_sampling

HI = {"role": "user", "content": "Hi"}


def test_what_is_asked_for_commonly_passes():
    body = {"max_tokens": 5, "temperature": 0, "top_p": 1.0, "seed": -3, "stop": "a", "n": 1, "logprobs": None}
    check_sampling(body, 5)
    check_sampling({"stop": ["a", "b"], "logprobs": False, "generation_config": json.dumps({"num_beams": 2})}, 5)
    check_sampling({}, 5)
    check_prompt({"prompt": " "})
    check_messages({"messages": [HI, {"role": "assistant", "content": ""}]}, "template")


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_tokens", 0),
        ("max_tokens", 6),
        ("max_tokens", 2.5),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("max_completion_tokens", 6),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0),
        ("top_p", 1.5),
        ("frequency_penalty", -1),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", 3),
        ("n", 2),
        ("best_of", 3),
        ("echo", True),
        ("logprobs", 5),
        ("presence_penalty", 0.5),
        ("generation_config", "["),
        ("generation_config", {"num_beams": 2}),
    ],
)
def test_sampling(field, value):
    with pytest.raises(InputError, match=field):
        check_sampling({field: value}, 5)


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": ""}, {"prompt": ["a"]}, {"prompt": 3}])
def test_prompts(body):
    with pytest.raises(InputError, match="prompt"):
        check_prompt(body)


@pytest.mark.parametrize(
    "messages", [None, [], "Hi", [HI, "Hi"], [{"content": "Hi"}], [{"role": "user"}], [{**HI, "content": [{}]}]]
)
def test_messages(messages):
    with pytest.raises(InputError, match="message"):
        check_messages({"messages": messages}, "template")


def test_a_chat_needs_a_template():
    with pytest.raises(InputError, match="chat_template"):
        check_messages({"messages": [HI]}, None)
