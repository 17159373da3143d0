"""The server in a process of its own, asked by the client that people use."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from smt_hf import SmtForPreTraining
from smt_hf.cli import serve
from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer
from tests.conftest import tiny_config

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
PROMPTS = ("Once upon a time", "Tom found a red plane.", "é", "a" * 40)


class Server:
    """`smt-hf serve` on a free port; `stop` sends a signal and returns the exit code and all that was printed."""

    def __init__(self, folder, *words):
        command = [
            sys.executable,
            "-m",
            "smt_hf",
            "serve",
            "--model",
            str(folder),
            "--port",
            "0",
            *words,
        ]
        self.lines, self.url = [], None
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        deadline = time.monotonic() + 120
        while self.url is None:
            assert self.process.poll() is None and time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.05)
        self.client = openai.OpenAI(base_url=self.url, api_key="none", timeout=60, max_retries=0)
        self.name = str(folder)

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"answers at (http://127.0.0.1:(\d+)/v1)", line):
                self.port, self.url = int(found[2]), found[1]

    def complete(self, prompt, max_tokens=24, temperature=0, **kwargs):
        return self.client.completions.create(
            model=self.name, prompt=prompt, max_tokens=max_tokens, temperature=temperature, **kwargs
        )

    def text(self, prompt, **kwargs):
        return self.complete(prompt, **kwargs).choices[0].text

    def stream(self, prompt, **kwargs):
        chunks = list(self.complete(prompt, stream=True, **kwargs))
        return "".join(chunk.choices[0].text for chunk in chunks), chunks[-1]

    def stop(self, number):
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.reader.join(timeout=60)
        return code, "".join(self.lines)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A student, its SMT run, and the student whose tokenizer has a chat template and a token that it adds to a text.

    None of them ends a text by itself.
    """
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    joint = SmtForPreTraining(tiny_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)).eval()
    root = tmp_path_factory.mktemp("serve")
    for name, model in (("student", joint.export_student()), ("smt", joint), ("chat", joint.export_student())):
        model.save_pretrained(root / name)
        if name == "chat":
            tokenizer.chat_template = TEMPLATE
            begin = (tokenizer.bos_token, tokenizer.bos_token_id)
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{begin[0]} $A", special_tokens=[begin])
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def answer(folders):
    """What the student writes by itself: the likeliest tokens."""
    student, tokenizer = serve.load(serve.ServeOptions(model=str(folders / "student"), device="cpu"))

    def write(prompt, max_new_tokens=24):
        inputs = tokenizer(prompt, return_tensors="pt")
        ids = student.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        return tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)

    return write


@pytest.fixture(scope="module")
def server(folders):
    running = Server(folders / "student", "--max_tokens", "5000")
    yield running
    running.kill()


def whole(text):
    """Without a character that is cut off at the end: a stream does not show it."""
    return text.rstrip("\ufffd")


def test_a_completion_is_what_generate_writes(server, answer):
    for prompt in PROMPTS:
        completion = server.complete(prompt)
        assert completion.choices[0].text == answer(prompt)
        assert completion.choices[0].finish_reason == "length"
        size = len(prompt.encode())
        usage = completion.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (size, 24, size + 24)
        text, last = server.stream(prompt)
        assert whole(text) == whole(answer(prompt))
        assert last.choices[0].finish_reason == "length" and last.usage == usage
    assert [model.id for model in server.client.models.list()] == [server.name]


def test_two_clients_at_once_get_what_each_gets_alone(server, answer):
    def ask(number):
        prompt = PROMPTS[number % len(PROMPTS)]
        return (server.stream(prompt)[0] if number % 3 == 0 else server.text(prompt)), answer(prompt)

    with ThreadPoolExecutor(2) as clients:
        for text, expected in clients.map(ask, range(12)):
            assert whole(text) == whole(expected)


def test_sampling_follows_temperature_and_seed(server):
    prompt = PROMPTS[0]
    greedy, first = server.text(prompt), server.text(prompt, temperature=1, seed=1)
    assert first == server.text(prompt, temperature=1, seed=1) != greedy
    assert first != server.text(prompt, temperature=1, seed=2)
    assert (
        first
        == server.client.completions.create(model=server.name, prompt=prompt, max_tokens=24, seed=1).choices[0].text
    )
    assert server.text(prompt, temperature=1e-4) == greedy
    assert server.text(prompt, temperature=1, top_p=1e-6) == greedy
    server.text(prompt, temperature=1, seed=1)
    unseeded = server.text(prompt, temperature=1)
    server.text(prompt, temperature=1, seed=1)
    assert unseeded != server.text(prompt, temperature=1)


def test_a_seed_holds_beside_other_requests(server):
    def ask(number):
        return server.text(PROMPTS[0], temperature=1, seed=number % 3)

    alone = [ask(number) for number in range(3)]
    with ThreadPoolExecutor(2) as clients:
        assert list(clients.map(ask, range(12))) == alone * 4


def test_stop_strings_end_the_text_and_are_not_in_it(server, answer):
    text = answer(PROMPTS[0])
    stop = text[9:11]
    expected = text[: text.index(stop)]
    for stops in (stop, ["never", stop]):
        completion = server.complete(PROMPTS[0], stop=stops)
        assert completion.choices[0].text == expected and completion.choices[0].finish_reason == "stop"
        assert completion.usage.completion_tokens < 24
        streamed, last = server.stream(PROMPTS[0], stop=stops)
        assert streamed == expected and last.choices[0].finish_reason == "stop"
    assert server.text(PROMPTS[0], stop="never") == text


def test_bad_requests_are_refused_by_name(server):
    def refused(*words, prompt="Tom", **kwargs):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as error:
                server.complete(prompt, stream=stream, **kwargs)
            message = error.value.body["message"]
            assert all(word in message for word in words), message

    refused("prompt is empty", prompt="")
    refused("prompt", "list", prompt=["Tom", "Ann"])
    refused("max_tokens=0", max_tokens=0)
    refused("max_tokens=5001", "5000", max_tokens=5001)
    refused("temperature=-1", temperature=-1)
    refused("stop=['']", stop=[""])
    refused("n=2", n=2)
    refused("generation_config", extra_body={"generation_config": "{"})
    with pytest.raises(openai.BadRequestError, match="'other'"):
        server.client.completions.create(model="other", prompt="Tom")
    with pytest.raises(openai.BadRequestError, match="no chat_template"):
        server.client.chat.completions.create(model=server.name, messages=[{"role": "user", "content": "Hi"}])
    assert server.text("Tom", max_tokens=1) is not None
    assert "Traceback" not in "".join(server.lines)


def test_who_leaves_is_not_waited_for(server):
    request = {"prompt": PROMPTS[0], "max_tokens": 5000}
    with pytest.raises(openai.APITimeoutError):
        server.client.with_options(timeout=0.3).completions.create(model=server.name, **request)
    with server.complete(**request, stream=True) as stream:
        next(iter(stream))
    start = time.monotonic()
    server.text("Tom", max_tokens=1)
    assert time.monotonic() - start < 5  # 5000 tokens take longer
    assert "Traceback" not in "".join(server.lines)


def chat(server, answer):
    def ask(role, content, **kwargs):
        return server.client.chat.completions.create(
            model=server.name,
            messages=[{"role": "system", "content": "Be kind."}, {"role": role, "content": content}],
            max_tokens=24,
            temperature=0,
            **kwargs,
        )

    assert server.text(PROMPTS[0]) == answer(PROMPTS[0])  # without the token that this tokenizer puts first
    prompt = "system: Be kind.\nuser: Who is Tom?\nassistant: "
    reply = ask("user", "Who is Tom?")
    assert reply.choices[0].message.content == answer(prompt) and reply.choices[0].finish_reason == "length"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(prompt), 24)
    assert ask("user", [{"type": "text", "text": "Who is Tom?"}]).choices[0].message.content == answer(prompt)
    chunks = list(ask("user", "Who is Tom?", stream=True))
    assert whole("".join(chunk.choices[0].delta.content or "" for chunk in chunks)) == whole(answer(prompt))
    assert chunks[-1].usage == reply.usage
    with pytest.raises(openai.BadRequestError, match="no tools here"):
        ask("tool", "Who is Tom?")
    with pytest.raises(openai.BadRequestError, match="has no text"):
        ask("user", [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}])
    with pytest.raises(openai.BadRequestError, match="at least one message"):
        server.client.chat.completions.create(model=server.name, messages=[])


def leave_running(server, answer):
    assert server.text(PROMPTS[0]) == answer(PROMPTS[0])
    server.running = server.complete(PROMPTS[0], max_tokens=1000000, stream=True)
    next(iter(server.running))


@pytest.mark.parametrize(
    "folder, number, use", [("chat", signal.SIGTERM, chat), ("smt", signal.SIGINT, leave_running)], ids=["chat", "smt"]
)
def test_serve_and_stop(folder, number, use, folders, answer):
    options = ["--device", "cpu", "--dtype", "float32", "--log_level", "warning", "--max_tokens", "1000000"]
    server = Server(folders / folder, *options)
    try:
        use(server, answer)
        code, printed = server.stop(number)
    finally:
        server.kill()
    assert code == 0 and "Traceback" not in printed, printed
    serve.bind("127.0.0.1", server.port).close()  # a new server may have it
    if use is leave_running:
        with pytest.raises(openai.APIError) as error:
            list(server.running)
        assert "the server is stopping" in str(error.value.body)


def test_bad_options_are_one_line(folders, capsys, monkeypatch, tmp_path):
    def fails(*words, says, model=folders / "student"):
        capsys.readouterr()
        assert main(["serve", "--model", str(model), *map(str, words)]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("smt-hf serve: error: ") and says in message, message

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fails("--port", taken.getsockname()[1], says=f"port={taken.getsockname()[1]}")
    fails("--port", 70000, says="port=70000")
    fails("--port", 0, "--host", "nowhere.invalid", says="'nowhere.invalid'")
    fails("--port", 0, "--device", "abacus", says="device='abacus'")
    fails("--dtype", "int3", says="dtype='int3'")
    fails("--log_level", "loud", says="log_level='loud'")
    fails("--max_tokens", 0, says="max_tokens=0")
    fails("--port", 0, model=tmp_path, says="holds no config.json")
    assert main(["serve"]) == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    fails(says="serving needs uvicorn: pip install 'smt-hf[serve]'")
