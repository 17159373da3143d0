"""The clients that people use, as they are."""

import subprocess
from shutil import which

import pytest

PROMPT = "user: Who is Tom?\nassistant: "
MESSAGES = [{"role": "user", "content": "Who is Tom?"}]


def test_openai(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    settings = {"model": server.name, "max_tokens": 12, "temperature": 0}
    assert [model.id for model in client.models.list()] == [server.name]
    assert client.models.retrieve(server.name).id == server.name
    assert client.completions.create(prompt="Tom", **settings).choices[0].text == server.alone("Tom")
    pieces = client.completions.create(prompt="Tom", stream=True, **settings)
    assert "".join(piece.choices[0].text for piece in pieces) == server.alone("Tom")
    chat = client.chat.completions.create(messages=MESSAGES, **settings)
    assert chat.choices[0].message.content == server.alone(PROMPT) and chat.usage.completion_tokens == 12
    pieces = client.chat.completions.create(messages=MESSAGES, stream=True, **settings)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == server.alone(PROMPT)
    with pytest.raises(openai.BadRequestError, match="top_p=0"):
        client.completions.create(prompt="Tom", top_p=0, **settings)
    with pytest.raises(openai.NotFoundError, match="other"):
        client.completions.create(prompt="Tom", model="other")
    server.engine.backend.readout, readout = (
        lambda memory: memory.new_full((1, 258), float("nan")),
        server.engine.backend.readout,
    )
    with pytest.raises(openai.APIError, match="not finite"):
        list(client.completions.create(prompt="Tom", stream=True, **settings))
    server.engine.backend.readout = readout


def test_langchain(server):
    langchain = pytest.importorskip("langchain_openai")
    settings = {
        "base_url": f"{server.url}/v1",
        "api_key": "none",
        "model": server.name,
        "max_tokens": 12,
        "temperature": 0,
    }
    llm = langchain.OpenAI(**settings)
    assert llm.invoke("Tom") == server.alone("Tom")
    assert [text[0].text for text in llm.generate(["Tom", "One"]).generations] == [
        server.alone("Tom"),
        server.alone("One"),
    ]
    assert "".join(llm.stream("Tom")) == server.alone("Tom")
    chat = langchain.ChatOpenAI(**settings)
    assert chat.invoke("Who is Tom?").content == server.alone(PROMPT)
    assert "".join(piece.content for piece in chat.stream("Who is Tom?")) == server.alone(PROMPT)


def test_litellm(server, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    litellm.telemetry = False
    settings = {"api_base": f"{server.url}/v1", "api_key": "none", "max_tokens": 12, "temperature": 0}
    chat = litellm.completion(model=f"openai/{server.name}", messages=MESSAGES, **settings)
    assert chat.choices[0].message.content == server.alone(PROMPT)
    pieces = litellm.completion(model=f"openai/{server.name}", messages=MESSAGES, stream=True, **settings)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == server.alone(PROMPT)
    text = litellm.text_completion(model=f"text-completion-openai/{server.name}", prompt="Tom", **settings)
    assert text.choices[0].text == server.alone("Tom")


def test_lm_eval(server, tmp_path):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    server.tokenizer.save_pretrained(tmp_path)
    model = LocalCompletionsAPI(
        model=server.name,
        base_url=f"{server.url}/v1/completions",
        tokenizer=str(tmp_path),
        num_concurrent=2,
        batch_size=2,
    )
    pairs = [("Once upon", " a time"), ("Tom", " ran"), ("The red", " plane flew")]
    asks = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    for (context, answer), (score, greedy) in zip(pairs, model.loglikelihood(asks), strict=True):
        ids = server.tokenizer(context + answer, return_tensors="pt").input_ids
        logprobs = server.student(ids).logits.log_softmax(dim=-1)[0]
        places = range(len(context) - 1, ids.shape[1] - 1)
        expected = [logprobs[place, ids[0, place + 1]].item() for place in places]
        assert score == pytest.approx(sum(expected), abs=1e-3) and not greedy
    written = model.generate_until([Instance("generate_until", {}, ("Tom", {"until": ["\n"], "max_gen_toks": 12}), 0)])
    assert written == [server.alone("Tom").partition("\n")[0]]


@pytest.mark.skipif(which("curl") is None, reason="curl is not installed")
def test_curl(server):
    body = '{"prompt": "Tom", "max_tokens": 12, "temperature": 0, "stream": true}'
    command = ["curl", "-sN", f"{server.url}/v1/completions", "-H", "Content-Type: application/json", "-d", body]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split("\n\n")
    assert lines[0].startswith('data: {"id"') and lines[-2] == "data: [DONE]"
