"""The app: what its buttons do, and a visit in a real browser."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("gradio")

from safetensors.torch import load
from safetensors.torch import save as safetensors_bytes

from smt_hf import SmtMemory, SmtRnnForCausalLM
from smt_hf.app.interface import MAX_CHARACTERS
from smt_hf.app.memory_file import restore, save
from smt_hf.app.panel import heat_map, key_value_bytes, page_html, panel_html, readable_bytes
from smt_hf.app.writing import END, READER, STUDENT, begin, go_on, start_engine
from smt_hf.cli.app import check_address
from smt_hf.cli.main import main
from smt_hf.errors import InputError
from smt_hf.inference import SamplingParams
from smt_hf.models.memory_smt_rnn import fingerprint
from tests.conftest import tiny_model

BEGINNING = "Once upon a time"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
TIMEOUT = 30


@pytest.fixture
def student():
    """A student that knows the byte tokenizer's tokens and, its weights being random, never ends a text."""
    return tiny_model(vocab_size=258).export_student().eval()


@pytest.fixture
def engine(student, tokenizer):
    running = start_engine(student, tokenizer)
    yield running
    running.stop()


@pytest.fixture
def write(engine, tokenizer):
    """Presses Write: the writing at the end."""

    def press(writing, words="", num_tokens=20, **sampling):
        sampling = {"temperature": 0, "max_new_tokens": num_tokens, "seed": 0, **sampling}
        return list(go_on(engine, tokenizer, writing, words, SamplingParams(**sampling)))[-1]

    return press


def greedy(student, ids, num_tokens):
    ids = torch.tensor([ids])
    options = {"max_new_tokens": num_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return tuple(student.generate(ids, attention_mask=torch.ones_like(ids), **options)[0].tolist())


def test_write_and_go_on_is_one_uninterrupted_generation(student, tokenizer, write):
    writing = write(begin(student), BEGINNING)
    assert writing.page.ids == greedy(student, list(BEGINNING.encode()), 20)
    writing = write(write(writing, num_tokens=15), num_tokens=5)
    assert writing.page.ids == greedy(student, list(BEGINNING.encode()), 40)
    assert writing.num_tokens == len(BEGINNING) + 40
    expected = student.read(torch.tensor([writing.page.ids])).states
    torch.testing.assert_close(writing.memory, expected, rtol=0, atol=1e-9)
    assert [passage.author for passage in writing.page.passages] == [READER, STUDENT]
    assert "".join(passage.text for passage in writing.page.passages) == tokenizer.decode(writing.page.ids)


def test_draws_go_on_where_they_were(student, write):
    drawn = {"temperature": 1.0, "seed": 7}
    whole = write(begin(student), BEGINNING, 40, **drawn)
    parts = write(write(begin(student), BEGINNING, 20, **drawn), "", 20, **drawn)
    assert parts.page.ids == whole.page.ids
    assert write(begin(student), BEGINNING, 40, temperature=1.0, seed=8).page.ids != whole.page.ids


def test_words_in_between_are_the_only_ones_read(student, write):
    first = write(begin(student), BEGINNING)
    second = write(first, " Then", num_tokens=10)
    assert second.num_tokens == first.num_tokens + len(" Then") + 10
    assert second.page.ids == greedy(student, (*first.page.ids, *b" Then"), 10)
    assert second.page.passages[2] == (READER, " Then")
    assert [passage.author for passage in second.page.passages] == [READER, STUDENT, READER, STUDENT]


def test_saved_and_restored_it_goes_on_as_if_it_had_not_stopped(student, write, tmp_path):
    writing = write(begin(student), BEGINNING)
    restored = restore(student, save(student, writing))
    assert restored.num_tokens == writing.num_tokens and restored.page.ids == ()
    assert write(restored).page.ids == write(writing).page.ids[-20:]
    (tmp_path / "memory.safetensors").write_bytes(save(student, writing))
    assert SmtMemory.from_pretrained(tmp_path).states.equal(writing.memory)


def test_files_that_are_refused(student, write, tmp_path):
    other = tiny_model(vocab_size=258, seed=1).export_student()
    with pytest.raises(InputError, match="belongs to the student"):
        restore(student, save(other, begin(other)))
    student.save_pretrained(tmp_path)
    for data in (b"", b"no memory", b"\xff" * 100, (tmp_path / "model.safetensors").read_bytes()):
        with pytest.raises(InputError, match="contains no memory"):
            restore(student, data)
    two = student.read(torch.zeros(2, 3, dtype=torch.long))
    two.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="contains 2 memories"):
        restore(student, (tmp_path / "memory.safetensors").read_bytes())
    wide = SmtMemory(torch.zeros(1, 3, 64), two.fingerprint)
    wide.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"the memory has shape \(3, 64\)"):
        restore(student, (tmp_path / "memory.safetensors").read_bytes())


@pytest.mark.parametrize(
    "damage, reason",
    [
        ({"states": float("nan")}, "NaN or infinity"),
        ({"states": float("-inf")}, "NaN or infinity"),
        ({"num_tokens": torch.tensor([-5])}, "must not be negative"),
        ({"num_tokens": torch.tensor([5.0])}, "whole numbers"),
        ({"fingerprint": "0123456789abcdef"}, "read the text again"),
    ],
)
def test_what_the_student_refuses_is_not_restored(student, write, damage, reason):
    whole = load(save(student, write(begin(student), BEGINNING)))
    states = torch.full_like(whole["states"], damage["states"]) if "states" in damage else whole["states"]
    owner = {"fingerprint": damage.get("fingerprint", fingerprint(student))}
    data = safetensors_bytes({"states": states, "num_tokens": damage.get("num_tokens", whole["num_tokens"])}, owner)
    with pytest.raises(InputError, match=f"this file contains no memory to continue from: .*{reason}") as caught:
        restore(student, data)
    assert "\n" not in str(caught.value) and "tmp" not in str(caught.value)


def test_no_file_is_no_memory(student):
    with pytest.raises(InputError, match="no file was chosen"):
        restore(student, None)


def test_the_memory_does_not_grow(student, engine, tokenizer):
    engine.piece_seconds = 0.0  # a view after every step
    start = begin(student)
    untouched = start.memory.clone()
    views = list(go_on(engine, tokenizer, start, BEGINNING, SamplingParams(max_new_tokens=20)))
    counts = [view.num_tokens for view in views]
    assert counts == [8, *range(16, len(BEGINNING) + 20), len(BEGINNING) + 20]
    for view in views[:: len(views) // 4]:
        expected = student.read(torch.tensor([view.page.ids])).states
        torch.testing.assert_close(view.memory, expected, rtol=0, atol=1e-9)
    assert {view.memory.nbytes for view in views} == {3 * 32 * 8}
    assert start.memory.equal(untouched) and start.num_tokens == 0
    assert all('data-name="memory" data-value="768"' in panel_html(student, view) for view in views)
    assert len({heat_map(view.memory) for view in views}) == len(views)
    assert key_value_bytes(student.config, 36, 8) == 36 * 2 * 2 * 32 * 8


def test_stopped_while_it_reads(student, tokenizer):
    with torch.no_grad():  # rounding, which differs with the shapes of the reading, must not grow over a long text
        for parameter in student.model.cell.parameters():
            parameter.mul_(0.1)
    engine = start_engine(student, tokenizer)
    answers, words = iter([False] * 2), BEGINNING * 2000
    *_, writing = go_on(engine, tokenizer, begin(student), words, is_stopped=lambda: next(answers, True))
    engine.stop()
    assert 0 < writing.num_tokens < len(words) and writing.unread == words[writing.num_tokens :]
    torch.testing.assert_close(
        writing.memory, student.read(torch.tensor([writing.page.ids])).states, rtol=0, atol=1e-7
    )


def test_stopped_while_it_writes(student, engine, tokenizer):
    steps = go_on(
        engine, tokenizer, begin(student), "Tom", SamplingParams(max_new_tokens=10**6, seed=1), lambda: stopped
    )
    stopped = False
    for view in steps:
        stopped = stopped or view.num_tokens > 20
    assert 20 < view.num_tokens < 10**6 and len(view.page.ids) == view.num_tokens
    torch.testing.assert_close(view.memory, student.read(torch.tensor([view.page.ids])).states, rtol=0, atol=1e-9)
    again = SamplingParams(max_new_tokens=20, seed=1)
    *_, on = go_on(engine, tokenizer, view, "", again)
    whole = SamplingParams(max_new_tokens=view.num_tokens - 3 + 20, seed=1)
    *_, expected = go_on(engine, tokenizer, begin(student), "Tom", whole)
    assert on.page.ids == expected.page.ids


def test_visitors_do_not_wait_for_each_other(student, engine, tokenizer, write):
    others = [go_on(engine, tokenizer, begin(student), "One", SamplingParams(max_new_tokens=10**6)) for _ in range(3)]
    assert all(next(other).num_tokens for other in others)
    assert write(begin(student), BEGINNING).page.ids == greedy(student, list(BEGINNING.encode()), 20)
    for other in others:
        other.close()  # as when a visitor leaves
    while engine.rows:
        time.sleep(0.01)


def test_the_student_ends_a_text(student, engine, write):
    third = greedy(student, list(BEGINNING.encode()), 3)[-1]
    engine.end_ids = frozenset([third])
    writing = write(begin(student), BEGINNING)
    assert writing.page.ids[-1] == third and writing.num_tokens <= len(BEGINNING) + 3
    assert writing.page.passages[-1].author == END and "end" in page_html(writing)
    assert write(writing).num_tokens > writing.num_tokens


def test_what_stands_on_the_page_is_text(student, write):
    shown = page_html(write(begin(student), "<script>${alert(1)}</script> {{x}}"))
    assert "<script" not in shown and "${" not in shown and "{{" not in shown


def test_sizes_are_readable():
    sizes = {0: "0 bytes", 2048: "2,048 bytes", 65_536: "65.5 kB", 3_000_000: "3.0 MB"}
    assert {count: readable_bytes(count) for count in sizes} == sizes


def test_a_command_that_cannot_work(monkeypatch, capsys, tmp_path):
    assert main(["app"]) == 2 and "model is missing" in capsys.readouterr().err
    assert main(["app", "--model", str(tmp_path)]) == 2 and "has no config.json" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert main(["app", "--model", str(tmp_path), "--port", port]) == 2
        assert f"port={port} (Address already in use)" in capsys.readouterr().err
    for host, port, word in (("127.0.0.1", 0, "port=0"), ("no.such.host.invalid", 7860, "host=")):
        with pytest.raises(InputError, match=word):
            check_address(host, port)
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [name for name in sys.modules if name.startswith("smt_hf.app")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["app", "--model", str(tmp_path)]) == 2
    assert "pip install 'smt-hf[app]'" in capsys.readouterr().err


@contextmanager
def served(folder, end=signal.SIGINT):
    """The address of the app in a process of its own, which a signal ends at last."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "smt_hf", "app", "--model", str(folder), "--port", str(port)]
    log = folder / "app.log"
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background ignores Ctrl+C
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    with log.open("w") as file:
        app = subprocess.Popen(command, stdout=file, stderr=file, env=environment, preexec_fn=interruptible)
    try:
        deadline = time.monotonic() + 90
        while url not in log.read_text():
            assert app.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        urllib.request.urlopen(url, timeout=TIMEOUT).close()
        yield url
        app.send_signal(end)
        assert app.wait(TIMEOUT) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        app.kill()
        app.wait(TIMEOUT)


class Visitor:
    """What a person does and sees in a page of their own."""

    def __init__(self, browser, url, viewport=None):
        self.page = browser.new_context(viewport=viewport).new_page()
        self.page.set_default_timeout(TIMEOUT * 1000)
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.wait_for("#write:has-text('Write')")

    def wait_for(self, selector):
        self.page.wait_for_selector(selector)

    def press(self, name):
        self.page.click(f"#{name}")

    def type(self, words):
        self.page.fill("#words textarea", words)

    def number(self, name):
        return int(self.page.get_attribute(f"[data-name={name}]", "data-value"))

    def wait_for_tokens(self, more_than):
        script = "least => Number(document.querySelector('[data-name=tokens]').dataset.value) > least"
        self.page.wait_for_function(script, arg=more_than)

    def wait_until_idle(self):
        self.wait_for("#write:enabled")

    def ask_for_tokens(self, count):
        self.page.click("text=How it writes")
        self.page.get_by_label("New tokens").first.fill(str(count))
        self.page.keyboard.press("Tab")
        self.page.click("text=How it writes")


def test_an_open_page_does_not_keep_the_app(tmp_path, tokenizer):
    """Every page listens to its heartbeat as long as it is open; the end is clean, and `served` waits for it."""
    tiny_model(vocab_size=258, dtype=torch.float32).export_student().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with served(tmp_path) as url:
        page = urllib.request.urlopen(f"{url}gradio_api/heartbeat/visitor", timeout=TIMEOUT)
        assert b"ALIVE" in page.readline()
    page.close()


def post(url, data, kind="application/json"):
    request = urllib.request.Request(url, data, {"Content-Type": kind})
    return urllib.request.urlopen(request, timeout=TIMEOUT).read()


def test_what_a_page_would_not_send(tmp_path, tokenizer):
    """The limits hold for who does without the page, and no upload outlives the app."""
    tiny_model(vocab_size=258, dtype=torch.float32).export_student().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with served(tmp_path, signal.SIGTERM) as url:
        functions = json.loads(urllib.request.urlopen(f"{url}config", timeout=TIMEOUT).read())["dependencies"]
        (write,) = [each["id"] for each in functions if any(target[1] == "submit" for target in each["targets"])]
        call = {
            "data": ["a" * (MAX_CHARACTERS + 1), None, None, 0.7, 0.95, 1, 0],
            "fn_index": write,
            "session_hash": "s",
        }
        post(f"{url}gradio_api/queue/join", json.dumps(call).encode())
        answer = b""
        with urllib.request.urlopen(f"{url}gradio_api/queue/data?session_hash=s", timeout=TIMEOUT) as stream:
            while b"process_completed" not in answer:
                answer = stream.readline()
        assert b"100,001 characters are too many" in answer and b'data-name=\\"tokens\\" data-value=\\"0' in answer
        part = b'--B\r\nContent-Disposition: form-data; name="files"; filename="m.safetensors"\r\n\r\nabc\r\n--B--\r\n'
        post(f"{url}gradio_api/upload", part, "multipart/form-data; boundary=B")
        assert list((tmp_path / "uploads").rglob("m.safetensors"))
    assert not [file for file in (tmp_path / "uploads").rglob("*") if file.is_file()]


def test_half_an_emoji(student, tokenizer, write):
    assert write(begin(student), "a \ud83d b", 1).page.passages[0].text.startswith("a \ufffd b")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_visit(tmp_path, tokenizer):
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path / "student"
    config = tiny_model(vocab_size=258).config.student_config
    config.num_updater_layers = layers = 24  # it must still be writing when a slow browser comes to press Stop
    torch.manual_seed(0)
    student = SmtRnnForCausalLM(config)
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures = Path(os.environ.get("SMT_HF_ARTIFACTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    other = tiny_model(vocab_size=258, dtype=torch.float32, seed=1).export_student()
    (tmp_path / "other.safetensors").write_bytes(save(other, begin(other)))
    size = 3 * 32 * 4

    with served(folder) as url, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            visitor = Visitor(browser, url, {"width": 1200, "height": 760})
            assert (visitor.number("tokens"), visitor.number("memory"), visitor.number("cache")) == (0, size, 0)
            stranger = Visitor(browser, url)
            visitor.ask_for_tokens(10_000)
            visitor.type(BEGINNING)
            stranger.type("Two")
            visitor.press("write")
            visitor.wait_for_tokens(40)
            assert stranger.number("tokens") == 0 and BEGINNING not in stranger.page.inner_text("#page")
            stranger.press("write")  # while the first one's text is being written
            stranger.wait_for_tokens(20)
            seen = visitor.number("tokens")
            visitor.wait_for_tokens(seen)
            visitor.press("stop")
            visitor.wait_until_idle()
            first = visitor.number("tokens")
            assert visitor.number("memory") == size and visitor.number("cache") == first * 2 * layers * 32 * 4
            assert first < len(BEGINNING) + 10_000 and "then stopped" in visitor.page.inner_text("#notice")
            assert visitor.page.inner_text("#page").startswith(BEGINNING)
            visitor.page.screenshot(path=pictures / "app.png")

            visitor.ask_for_tokens(25)
            visitor.type(" and then")
            visitor.press("write")
            visitor.wait_for_tokens(first)
            visitor.wait_until_idle()
            second = visitor.number("tokens")
            assert second == first + len(" and then") + 25
            with visitor.page.expect_download() as download:
                visitor.press("save")
            assert download.value.suggested_filename == "memory.safetensors"
            download.value.save_as(tmp_path / "memory.safetensors")
            assert SmtMemory.from_pretrained(tmp_path).num_tokens.tolist() == [second]

            visitor.press("over")
            visitor.wait_for("#write:has-text('Write')")
            assert visitor.number("tokens") == 0
            for file, words in (("other.safetensors", "belongs to the student"), ("student/config.json", "no memory")):
                visitor.page.set_input_files("input[type=file]", tmp_path / file)
                visitor.wait_for(f"#notice .refused:has-text('{words}')")
            visitor.page.set_input_files("input[type=file]", tmp_path / "memory.safetensors")
            visitor.wait_for_tokens(second - 1)
            visitor.wait_for("#write:has-text('Go on')")
            visitor.press("write")
            visitor.wait_for_tokens(second)
            visitor.wait_until_idle()
            assert (visitor.number("tokens"), visitor.number("memory")) == (second + 25, size)
            stranger.wait_until_idle()
            assert stranger.number("tokens") == len("Two") + 300
            assert not visitor.errors and not stranger.errors
        finally:
            browser.close()
