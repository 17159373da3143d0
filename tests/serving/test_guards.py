"""Who is let in."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from smt_hf.serving.requests import Limits

from .conftest import Served

JSON = {"content-type": "application/json"}
BODY = b'{"prompt": "Tom", "max_tokens": 2}'


def ask(server, headers, path="/v1/completions", content=BODY):
    return server.http.post(path, content=content, headers={**JSON, **headers})


@pytest.fixture(scope="module")
def guarded(writer):
    served = Served(
        writer,
        chat=False,
        limits=Limits(max_tokens=2000, max_answers=1, timeout=2.0),
        max_waiting=1,
        hosts=("smt.example",),
        cors_origins=("https://page.example",),
        api_key="secret",
        max_body_bytes=1000,
    )
    served.http.headers["authorization"] = "Bearer secret"
    yield served
    served.stop()


def test_hosts(server, guarded):
    for host in (f"localhost:{server.port}", "127.0.0.1", "[::1]:80", "10.0.0.7:8000", socket.gethostname()):
        assert ask(server, {"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1.evil.example:8000"):
        answer = ask(server, {"host": host})
        assert answer.status_code == 403 and "error" in answer.json()
    assert ask(guarded, {"host": "smt.example"}).status_code == 200


def test_pages_of_other_origins(server, guarded):
    for origin in ("http://evil.example", "null", "http://localhost:3000"):
        assert ask(server, {"origin": origin}).status_code == 403
    own = f"http://127.0.0.1:{server.port}"
    assert ask(server, {"origin": own}).status_code == 200
    answer = ask(guarded, {"origin": "https://page.example"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://page.example"
    asks = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    preflight = guarded.http.options("/v1/completions", headers={**asks, "authorization": ""})
    assert preflight.status_code == 204 and "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert (
        guarded.http.options("/v1/completions", headers={**asks, "origin": "http://evil.example"}).status_code == 403
    )


def test_json_only(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(server, {"content-type": kind}).status_code == 415
    assert ask(server, {"content-type": "application/json; charset=utf-8"}).status_code == 200


def test_keys(guarded):
    for given in ("", "Bearer wrong", "Basic secret", "Bearer"):
        answer = ask(guarded, {"authorization": given})
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert guarded.http.get("/v1/models", headers={"authorization": given}).status_code == 401
    assert guarded.http.get("/health", headers={"authorization": ""}).status_code == 200
    assert ask(guarded, {}).status_code == 200


def test_sizes(guarded):
    assert ask(guarded, {}, content=b'{"prompt": "' + b"a" * 2000 + b'"}').status_code == 413

    def parts():
        for _ in range(20):
            yield b" " * 100

    assert ask(guarded, {}, content=parts()).status_code == 413


def test_time_and_a_full_house(guarded):
    slow = {"prompt": "Tom", "max_tokens": 2000, "temperature": 0}
    update = guarded.engine.backend.update
    guarded.engine.backend.update = lambda *inputs: (time.sleep(0.01), update(*inputs))[1]
    try:
        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(lambda _: guarded.http.post("/v1/completions", json=slow), range(6)))
    finally:
        guarded.engine.backend.update = update
    statuses = sorted(answer.status_code for answer in answers)
    assert set(statuses) == {429, 504}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status_code == 429)


def test_hanging_up_in_the_body_leaves_nothing_behind(server, caplog):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\nabc"
            )
            time.sleep(0.1)
    time.sleep(0.3)
    assert server.text("Tom") == server.alone("Tom") and "Traceback" not in caplog.text
