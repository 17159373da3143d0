"""The server in a process of its own: it starts, answers, and ends at a signal."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest
import torch

from smt_hf import SmtForPreTraining
from smt_hf.cli import serve
from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer
from tests.conftest import tiny_config

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


class Server:
    """`smt-hf serve` on a free port; `stop` sends a signal and returns the exit code and all that was printed."""

    def __init__(self, folder, *words, **environment):
        command = [sys.executable, "-m", "smt_hf", "serve", str(folder), "--port", "0", *words]
        self.lines, self.url = [], None
        self.process = subprocess.Popen(
            command, env={**ENVIRONMENT, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        deadline = time.monotonic() + 240
        while self.url is None:
            assert self.process.poll() is None and time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.05)

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"answers at (http://127.0.0.1:(\d+)/v1)", line):
                self.port, self.url = int(found[2]), found[1]

    def stop(self, number):
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.reader.join(timeout=60)
        return code, "".join(self.lines)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An SMT run, whose student never ends a text by itself."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    joint = SmtForPreTraining(tiny_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)).eval()
    folder = tmp_path_factory.mktemp("serve") / "smt"
    joint.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_it_answers_and_finishes_at_a_signal(folder):
    settings = {"model": str(folder), "device": "cpu", "teacher": str(folder), "last_tokens": 3}
    student, tokenizer, _, teacher = serve.load_all(serve.ServeOptions(**settings))
    assert teacher.context_length == 256
    ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
    written = student.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    expected = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    memory = student.read(ids[:, -3:], memory=student.read(ids[:, :-3], teacher=teacher.teacher))
    taught = student.generate(memory=memory, max_new_tokens=24, do_sample=False)
    taught = tokenizer.decode(taught[0], skip_special_tokens=True)
    options = ["--device", "cpu", "--dtype", "float32", "--log_level", "warning", "--max_tokens", "10000000"]
    options += ["--teacher", str(folder), "--last_tokens", "3"]
    server = Server(folder, *options, SMT_HF_API_KEY="secret")
    try:
        headers, body = {"Authorization": "Bearer secret"}, {"prompt": "Once upon a time", "temperature": 0}
        assert httpx.post(f"{server.url}/completions", json=body, timeout=60).status_code == 401
        with httpx.Client(headers=headers, timeout=60) as client:
            answer = client.post(f"{server.url}/completions", json={**body, "max_tokens": 24, "use_teacher": True})
            assert answer.json()["choices"][0]["text"] == taught != expected
            answer = client.post(f"{server.url}/completions", json={**body, "max_tokens": 24, "model": str(folder)})
            assert answer.json()["choices"][0]["text"] == expected
            endless = {**body, "max_tokens": 10_000_000, "stream": True}
            stop_while_it_writes(server, client, endless)
        code, printed = server.process.wait(timeout=60), "".join(server.lines)
    finally:
        server.kill()
    assert code == 0 and "Traceback" not in printed, printed
    serve.bind("127.0.0.1", server.port).close()  # a new server may have it


def stop_while_it_writes(server, client, body):
    """Sends SIGTERM into a stream, which then ends as OpenAI's do, with an error before."""
    with client.stream("POST", f"{server.url}/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        *_, error, done = (line for line in lines if line)
        assert "the server is stopping" in error and done == "data: [DONE]"


def workers_of(server):
    """The processes that answer."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # it ends just now
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
    return found


def counted(server, name):
    """A number of `/metrics`, all its samples together."""
    lines = httpx.get(f"{server.url.removesuffix('/v1')}/metrics", timeout=60).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"smt_hf_{name}[ {{]", line))


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="connections are shared out by Linux")
def test_workers_answer_on_one_port(folder):
    words = ["--device", "cpu", "--dtype", "float32", "--log_level", "error", "--max_tokens", "10000000"]
    server = Server(folder, *words, "--workers", "2")
    try:
        body = {"temperature": 0, "max_tokens": 8}

        def post(**more):  # a connection of its own
            return httpx.post(f"{server.url}/completions", json={**body, **more}, timeout=60).json()["choices"][0]

        first = post(prompt="Once upon a time", return_memory=True)
        further = {post(prompt="", memory=first["memory"])["text"] for _ in range(12)}
        whole = post(prompt="Once upon a time", max_tokens=16)["text"]
        assert {first["text"] + text for text in further} == {whole}
        until(lambda: counted(server, "tokens_written_total") == 13 * 8 + 16)  # whichever worker is asked
        assert counted(server, "rows") == 0

        victim, survivor = workers_of(server)
        victim.kill()
        until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server))
        assert survivor in workers_of(server) and post(prompt="", memory=first["memory"])["text"] in further

        client = httpx.Client(timeout=60)
        stop_while_it_writes(server, client, {**body, "prompt": "a", "max_tokens": 10**7, "stream": True})
        code, printed = server.process.wait(timeout=60), "".join(server.lines)
    finally:
        server.kill()
    assert code == 0 and "Traceback" not in printed, printed
    serve.bind("127.0.0.1", server.port).close()


def test_a_worker_that_cannot_start_ends_the_command(folder, capsys, tmp_path):
    for words, says in (
        (["--model", str(tmp_path)], "has no config.json"),
        (["--model", str(folder), "--device", "abacus"], "device='abacus'"),
    ):
        assert main(["serve", *words, "--port", "0", "--workers", "2"]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("smt-hf serve: error: ") and says in message


def test_bad_options_are_one_line(folder, capsys, monkeypatch, tmp_path):
    def fails(*words, says, model=folder):
        capsys.readouterr()
        assert main(["serve", str(model), *map(str, words)]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("smt-hf serve: error: ") and says in message, message

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fails("--port", taken.getsockname()[1], says=f"port={taken.getsockname()[1]}")
        fails("--port", taken.getsockname()[1], "--workers", 2, says=f"port={taken.getsockname()[1]}")
    fails("--port", 70000, says="port=70000")
    fails("--workers", 0, says="workers=0")
    fails("--port", 0, "--host", "nowhere.invalid", says="'nowhere.invalid'")
    fails("--port", 0, "--device", "abacus", says="device='abacus'")
    fails("--dtype", "int3", says="int3")
    fails("--log_level", "loud", says="loud")
    fails("--max_tokens", 0, says="max_tokens=0")
    fails("--timeout", 0, says="timeout=0")
    fails("--port", 0, model=tmp_path, says="has no config.json")
    fails("--port", 0, "--onnx", tmp_path, says="export")
    fails("--port", 0, "--teacher", tmp_path, says="has no config.json")
    fails("--port", 0, "--last_tokens", -1, says="last_tokens=-1")
    assert main(["serve"]) == 2
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    fails(says="serving needs uvicorn: pip install 'smt-hf[serve]'")
