"""Servers on sockets of their own, in this process, and what their student writes by itself."""

import threading
import time

import pytest
import torch

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.data import byte_tokenizer
from smt_hf.models.fingerprint_smt_rnn import fingerprint
from smt_hf.serving.requests import Limits

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


class Served:
    """A student behind a socket.

    Args:
        student: the model.
        chat: whether its tokenizer has a chat template.
        limits: see [`Limits`].
        options: of [`build_app`].
    """

    def __init__(self, student, chat=True, limits=None, max_waiting=64, **options):
        uvicorn = pytest.importorskip("uvicorn")
        pytest.importorskip("fastapi")
        from smt_hf.serving.app import build_app
        from smt_hf.serving.server import ServerOptions, make_engine, uvicorn_config

        self.student, self.tokenizer, self.name = student, byte_tokenizer(), "runs/student"
        self.tokenizer.chat_template = TEMPLATE if chat else None
        limits = limits or Limits(max_tokens=5000, max_prompt_tokens=50_000, max_answers=64)
        server_options = ServerOptions(max_rows=limits.max_answers, max_waiting=max_waiting)
        self.engine = make_engine(student, self.tokenizer, server_options).start()
        options = {"owner": fingerprint(student), **options}
        app = build_app(self.engine, self.tokenizer, self.name, limits, **options)
        self.server = uvicorn.Server(uvicorn_config(app, "error", port=0))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = pytest.importorskip("httpx").Client(base_url=self.url, timeout=60)

    def stop(self):
        self.http.close()
        self.engine.stop()
        self.server.should_exit = True
        self.thread.join()

    def post(self, path="/v1/completions", **body):
        body = {"max_tokens": 12, "temperature": 0, **body}
        return self.http.post(path, json={name: value for name, value in body.items() if value is not None})

    def text(self, prompt, **body):
        answer = self.post(prompt=prompt, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()["choices"][0]["text"]

    def alone(self, prompt, max_new_tokens=12):
        """What `generate()` writes, the likeliest tokens."""
        ids = (
            self.tokenizer(prompt, return_tensors="pt").input_ids
            if isinstance(prompt, str)
            else torch.tensor([prompt])
        )
        mask = torch.ones_like(ids)
        sequences = self.student.generate(ids, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False)
        return self.tokenizer.decode(sequences[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="session")
def writer():
    """A student that never ends a text by itself, in float64, where a batch rounds as a row alone."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "num_memory_tokens": 3, "num_updater_layers": 1, "num_readout_layers": 1}
    config = SmtRnnConfig(vocab_size=258, num_attention_heads=2, initializer_range=0.3, pad_token_id=257, **sizes)
    return SmtRnnForCausalLM(config).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def server(writer):
    served = Served(writer)
    yield served
    served.stop()
