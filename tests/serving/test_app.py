"""The endpoints: what they answer is what the student writes alone, whole or in pieces."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

httpx = pytest.importorskip("httpx")
parser = pytest.importorskip("prometheus_client.parser")

PROMPTS = ("Once upon a time", "Tom found a red plane.", "é", "a" * 40)


def events(server, path="/v1/completions", **body):
    with server.http.stream("POST", path, json={"max_tokens": 12, "temperature": 0, "stream": True, **body}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_completion_is_what_generate_writes(server):
    for prompt in PROMPTS:
        answer = server.post(prompt=prompt).json()
        assert answer["choices"][0] == {
            "index": 0,
            "text": server.alone(prompt),
            "logprobs": None,
            "finish_reason": "length",
        }
        size = len(prompt.encode())
        usage = answer["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (size, 12, size + 12)
        pieces = events(server, prompt=prompt, stream_options={"include_usage": True})
        assert "".join(p["choices"][0]["text"] for p in pieces[:-1]) == server.alone(prompt)
        assert [p["choices"][0]["finish_reason"] for p in pieces[:-1]] == [None] * (len(pieces) - 2) + ["length"]
        assert pieces[-1]["choices"] == [] and pieces[-1]["usage"]["completion_tokens"] == 12


def test_every_form_of_a_prompt(server):
    expected = [server.alone(prompt) for prompt in PROMPTS]
    ids = [list(prompt.encode()) for prompt in PROMPTS]
    for prompt, texts in (
        (list(PROMPTS), expected),
        (ids, expected),
        (ids[0], expected[:1]),
        ([PROMPTS[1]], expected[1:2]),
    ):
        choices = server.post(prompt=prompt).json()["choices"]
        assert [choice["text"] for choice in choices] == texts
        assert [choice["index"] for choice in choices] == list(range(len(texts)))
        pieces = events(server, prompt=prompt)
        for index, text in enumerate(texts):
            mine = [c["text"] for p in pieces for c in p["choices"] if c["index"] == index]
            assert "".join(mine) == text


def test_many_clients_at_once_get_what_each_gets_alone(server):
    def ask(number):
        prompt = PROMPTS[number % len(PROMPTS)] + str(number)
        if number % 2:
            return server.text(prompt, max_tokens=30), server.alone(prompt, 30)
        return "".join(p["choices"][0]["text"] for p in events(server, prompt=prompt, max_tokens=30)), server.alone(
            prompt, 30
        )

    with ThreadPoolExecutor(16) as clients:
        for text, expected in clients.map(ask, range(32)):
            assert text == expected


def test_seed_n_stop_and_bias_are_obeyed(server):
    one = server.text("Tom", temperature=1, seed=1)
    assert one == server.text("Tom", temperature=1, seed=1) != server.text("Tom", temperature=1, seed=2)
    assert server.text("Tom", temperature=1, seed=None) != server.text("Tom", temperature=1, seed=None)
    choices = server.post(prompt="Tom", temperature=1, seed=1, n=3, best_of=3).json()["choices"]
    assert len({choice["text"] for choice in choices}) == 3 and choices[0]["text"] == one
    text = server.alone("Tom")
    stopped = server.post(prompt="Tom", stop=["never", text[5:7]]).json()
    assert stopped["choices"][0]["text"] == text[: text.index(text[5:7])]
    assert stopped["choices"][0]["finish_reason"] == "stop" and stopped["usage"]["completion_tokens"] < 12
    first = server.post(prompt="Tom", logprobs=1).json()["choices"][0]["logprobs"]["tokens"][0]
    token = server.tokenizer.convert_tokens_to_ids(first) if len(first) > 1 else ord(first)
    assert server.text("Tom", logit_bias={str(token): -100}) != text
    assert server.text("Tom", logit_bias={"98": 100.0}) == "b" * 12


def test_log_probabilities_of_prompt_and_answer(server):
    choice = server.post(prompt="Tom", echo=True, logprobs=2, max_tokens=3).json()["choices"][0]
    assert choice["text"] == "Tom" + server.alone("Tom", 3)
    scores = choice["logprobs"]
    assert scores["tokens"][:3] == ["T", "o", "m"] and len(scores["token_logprobs"]) == 6
    for token, logprob, top in zip(scores["tokens"], scores["token_logprobs"], scores["top_logprobs"], strict=True):
        assert top[token] == logprob <= max(top.values()) <= 0 and 2 <= len(top) <= 3
    assert all(
        max(t.values()) == s for t, s in zip(scores["top_logprobs"][3:], scores["token_logprobs"][3:], strict=True)
    )
    only = server.post(prompt="Tom", echo=True, logprobs=0, max_tokens=0).json()["choices"][0]
    assert only["text"] == "Tom" and only["logprobs"]["token_logprobs"] == pytest.approx(scores["token_logprobs"][:3])
    pieces = events(server, prompt="Tom", echo=True, logprobs=2, max_tokens=3)
    assert "".join(p["choices"][0]["text"] for p in pieces) == choice["text"]
    streamed = [p["choices"][0]["logprobs"] for p in pieces if p["choices"][0]["logprobs"]]
    assert sum((part["tokens"] for part in streamed), []) == scores["tokens"]
    assert sum((part["text_offset"] for part in streamed), []) == scores["text_offset"]


def test_a_chat(server):
    path, messages = "/v1/chat/completions", [{"role": "user", "content": "Who is Tom?"}]
    prompt = "user: Who is Tom?\nassistant: "
    reply = server.post(path, messages=messages, logprobs=True, top_logprobs=1).json()
    (choice,) = reply["choices"]
    assert choice["message"]["content"] == server.alone(prompt) and choice["message"]["role"] == "assistant"
    assert (
        len(choice["logprobs"]["content"]) == 12 and choice["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] < 0
    )
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who is "}, {"type": "text", "text": "Tom?"}]}]
    pieces = events(server, path, messages=parts)
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces) == server.alone(prompt)
    turn = [
        *messages,
        {"role": "assistant", "content": choice["message"]["content"]},
        {"role": "user", "content": "Why?"},
    ]
    before = server.engine.counts["tokens_read"]
    usage = server.post(path, messages=turn).json()["usage"]
    assert usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] <= 40
    assert server.engine.counts["tokens_read"] - before <= 40
    assert server.post(path, messages=[{"role": "tool", "content": "x"}]).status_code == 400


def test_a_memory_goes_on_where_the_text_is_not_known(server):
    first = server.post(prompt="Once upon a time", return_memory=True).json()["choices"][0]
    whole = server.alone("Once upon a time", 24)
    assert whole.startswith(first["text"])
    again = server.post(prompt="", memory=first["memory"], return_memory=True).json()["choices"][0]
    assert abs(len(again["text"]) - len(whole) + len(first["text"])) <= 12 and again["memory"] != first["memory"]
    pieces = events(server, prompt="Tom", memory=first["memory"], return_memory=True)
    assert "memory" in pieces[-1]["choices"][0]
    text = "".join(p["choices"][0]["text"] for p in pieces)
    assert text == server.text("Tom", memory=first["memory"]) != server.text("Tom")
    spoiled = first["memory"][:40] + ("A" if first["memory"][40] != "A" else "B") + first["memory"][41:]
    for wrong in (spoiled, "", "é", first["memory"] * 3, "AAAA"):
        answer = server.post(prompt="Tom", memory=wrong)
        assert answer.status_code == 400 and "memory" in answer.json()["error"]["message"]


REFUSED = [
    ({"prompt": ""}, "empty"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": [300]}, "300"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": "a" * 50_001}, "50001 tokens"),
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"max_tokens": 5001}, "5000"),
    ({"max_tokens": "x"}, "max_tokens='x'"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "temperature='hot'"),
    ({"top_p": 0}, "top_p=0"),
    ({"stop": [""]}, "stop"),
    ({"stop": 5}, "stop"),
    ({"n": 65}, "65 answers"),
    ({"n": 2, "best_of": 5}, "best_of"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 21}, "logprobs=21"),
    ({"stream": "yes"}, "stream"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"logit_bias": {"999": 1}}, "999"),
    ({"suffix": "end"}, "suffix"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"generation_config": "{}"}, "generation_config"),
    ({"beams": 3}, "beams"),
    ({"use_teacher": True}, "use_teacher"),
]


@pytest.mark.parametrize("body, word", REFUSED, ids=[str(body)[:40] for body, _ in REFUSED])
def test_bad_requests_are_refused_by_name(server, body, word):
    for stream in (False, True):
        answer = server.post(**{"prompt": "Tom", "stream": stream, **body})
        error = answer.json()["error"]
        assert answer.status_code == 400 and word in error["message"] and error["type"] == "invalid_request_error"


CHATS = [
    ({"messages": []}, "messages"),
    ({"messages": [{"content": "x"}]}, "role"),
    ({"messages": [{"role": "user", "content": None}]}, "no text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "no text"),
    ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "tool_calls"),
    (
        {"chat_template_kwargs": {"chat_template": "{% for i in range(99999999) %}{% endfor %}"}},
        "chat_template_kwargs",
    ),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"top_logprobs": 2}, "logprobs=true"),
    ({"stream_options": {"include_usage": True}}, "stream=true"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
]


@pytest.mark.parametrize("body, word", CHATS, ids=[str(body)[:40] for body, _ in CHATS])
def test_bad_chats_are_refused_by_name(server, body, word):
    answer = server.post("/v1/chat/completions", **{"messages": [{"role": "user", "content": "x"}], **body})
    assert answer.status_code == 400 and word in answer.json()["error"]["message"]


BAD_BODIES = [
    (b"{", "the body is not JSON (Expecting property name"),
    (b"", "the body is not JSON (Expecting value"),
    (b"[1]", "the body is a JSON list"),
    (b'{"prompt": "x", "temperature": NaN}', "the body contains NaN"),
    (b'{"prompt": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"prompt": "x", "seed": ' + b"1" * 5_000 + b"}", "a number with thousands of digits"),
    (b"\xff\xfe", "the body is not JSON (Expecting value"),  # UTF-16 of nothing
    (b"\xff\xff{}", "the body is not UTF-8 (byte 0)"),
    (b'{"prompt": "\xff"}', "the body is not UTF-8 (byte 12)"),
]


@pytest.mark.parametrize("body, words", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_bodies_that_are_no_json_object_are_told_what_they_are(server, body, words):
    answer = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and words in message and "Error" not in message and len(message) < 150


STRANGE_BODIES = [
    b'{"prompt": "a\\ud83d b", "max_tokens": 2}',
    b'{"prompt": "x", "max_tokens": 2, "temperature": 1e-300}',
    b'{"prompt": "x", "max_tokens": 2, "temperature": 1e300}',
]


@pytest.mark.parametrize("body", STRANGE_BODIES, ids=range(len(STRANGE_BODIES)))
def test_strange_bodies_that_can_be_obeyed(server, body):
    answer = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200


def test_every_error_has_the_one_form(server):
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/models/other", 404),
    ):
        body = {"json": {}} if method == "POST" else {}
        answer = server.http.request(method, path, **body)
        assert answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    answer = server.post(prompt="Tom", model="other")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"


def test_models_health_and_metrics(server):
    assert [model["id"] for model in server.http.get("/v1/models").json()["data"]] == [server.name]
    assert server.http.get(f"/v1/models/{server.name}").json()["id"] == server.name
    assert server.http.head("/health").status_code == server.http.get("/health").status_code == 200
    server.text("Tom")
    families = {
        family.name: family for family in parser.text_string_to_metric_families(server.http.get("/metrics").text)
    }
    assert families["smt_hf_tokens_written"].samples[0].value >= 12
    assert {"smt_hf_requests", "smt_hf_rows", "smt_hf_waiting", "smt_hf_first_piece_seconds"} <= set(families)


def test_connections_outlive_the_patience_of_clients(server):
    assert (
        server.server.config.timeout_keep_alive >= 75
    )  # else it closes one just when a client sends its next request


def test_who_leaves_is_not_waited_for(server):
    long = {"prompt": "word " * 9000, "max_tokens": 5000, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        server.http.post("/v1/completions", json=long, timeout=0.3)
    with server.http.stream("POST", "/v1/completions", json={**long, "prompt": "Tom", "stream": True}) as answer:
        next(answer.iter_lines())
    deadline = time.monotonic() + 10
    while server.engine.rows or server.engine.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_answer_that_fails_says_so_in_the_stream(server):
    readout = server.engine.backend.readout
    server.engine.backend.readout = lambda memory: readout(memory) * float("nan")
    try:
        answer = server.post(prompt="Tom")
        assert answer.status_code == 500 and "not finite" in answer.json()["error"]["message"]
        (error,) = events(server, prompt="Tom")
        assert "not finite" in error["error"]["message"]
    finally:
        server.engine.backend.readout = readout
    assert server.text("Tom") == server.alone("Tom")
