"""Servers that know nothing of each other serve one conversation: it carries its memory."""

import itertools
import os
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from smt_hf.data import byte_tokenizer

from .conftest import Served

httpx = pytest.importorskip("httpx")

KEY = b"shared by all"
TURNS = ("Once upon a time", " and then", " he said", " Tom", " the end", "?")
EXAMPLES = Path(__file__).parents[2] / "examples"


class RoundRobin:
    """A proxy that hands each connection to the next server, and to the one after where nobody answers."""

    def __init__(self, ports):
        self.ports = itertools.cycle(ports)
        self.num_ports = len(ports)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                for port in itertools.islice(self.ports, self.num_ports):
                    with suppress(ConnectionRefusedError):
                        server = socket.create_connection(("127.0.0.1", port))
                        break
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self.copy, args=pair, daemon=True).start()

    def copy(self, source, target):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


def converse(url, headers=None):
    """What is written in a conversation that sends its memory and its new words, each time on a new connection."""
    texts, memory = [], None
    for words in TURNS:
        body = {"prompt": words, "max_tokens": 9, "temperature": 0, "return_memory": True}
        body |= {} if memory is None else {"memory": memory}
        answer = httpx.post(f"{url}/v1/completions", json=body, headers=headers, timeout=120)
        assert answer.status_code == 200, answer.text
        texts.append(answer.json()["choices"][0]["text"])
        memory = answer.json()["choices"][0]["memory"]
    return texts


def test_a_conversation_goes_from_server_to_server(writer):
    servers = [Served(writer, chat=False, memory_key=KEY) for _ in range(3)]
    stranger = Served(writer, chat=False, memory_key=b"of its own")
    proxy = RoundRobin([server.port for server in servers])
    try:
        texts = converse(proxy.url)
        assert texts == converse(servers[0].url)
        assert all(server.engine.counts["requests"] >= 2 for server in servers)
        servers[1].stop()  # a conversation does not mind
        assert converse(proxy.url) == texts
        first = servers[0].post(prompt=TURNS[0], return_memory=True).json()["choices"][0]
        answer = stranger.post(prompt=TURNS[1], memory=first["memory"])
        assert answer.status_code == 400 and "with its key" in answer.json()["error"]["message"]
    finally:
        proxy.close()
        for server in (servers[0], servers[2], stranger):
            server.stop()


def test_the_example_of_ray_serve(writer, tmp_path):
    """Where Ray is installed: two replicas, a conversation on both of them, and streams."""
    pytest.importorskip("ray.serve")
    writer.float().save_pretrained(tmp_path / "student")
    byte_tokenizer().save_pretrained(tmp_path / "student")
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    environment = {"SMT_HF_MODEL": str(tmp_path / "student"), "SMT_HF_MEMORY_KEY": "secret", "SMT_HF_API_KEY": "open"}
    environment |= dict.fromkeys(
        ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"), "120"
    )
    environment["RAY_agent_register_timeout_ms"] = "300000"  # a busy machine takes its time
    code = (
        "import ray, sys, time; from ray import serve; import ray_serve\n"
        "ray.init(num_cpus=2, include_dashboard=False)\n"
        f"serve.start(http_options={{'port': {port}}}); serve.run(ray_serve.app); print('ready', flush=True)\n"
        "sys.stdin.read(); serve.shutdown(); ray.shutdown()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=EXAMPLES,
        env={**os.environ, **environment},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert any("ready" in line for line in process.stdout)
        url, headers = f"http://127.0.0.1:{port}", {"authorization": "Bearer open"}
        assert httpx.get(f"{url}/v1/models", timeout=60).status_code == 401
        alone = Served(writer, chat=False, memory_key=KEY)
        assert converse(url, headers) == converse(alone.url)
        written = set()
        for _ in range(20):  # metrics of either replica
            lines = httpx.get(f"{url}/metrics", headers=headers, timeout=60).text.splitlines()
            written |= {line for line in lines if line.startswith("smt_hf_tokens_written_total")}
        assert len(written) == 2 and "smt_hf_tokens_written_total 0.0" not in written
        body = {"prompt": "Tom", "max_tokens": 12, "temperature": 0, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, headers=headers, timeout=60) as answer:
            assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"
        alone.stop()
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        writer.double()
