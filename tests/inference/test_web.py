"""The page in a real browser: it writes what `generate()` writes, and its memory goes to Python and back."""

import json
import os
import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

pytest.importorskip("onnxruntime")

from smt_hf import SmtMemory
from smt_hf.errors import InputError
from smt_hf.inference import npm, web
from smt_hf.inference.export import verify
from smt_hf.inference.onnx_backend import OnnxBackend
from smt_hf.inference.web import RUNTIME, TOKENIZERS, export_web
from tests.inference.conftest import TEXT, small_student

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
BEGINNING = "Once upon a time, caf\u00e9s"
TIMEOUT = 60_000


@pytest.fixture(scope="session")
def from_npm():
    """Skips where npm cannot bring what the page imports."""
    try:
        for package in (RUNTIME, TOKENIZERS):
            npm.package_file(package)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory, tokenizer, traced_once, from_npm):
    folder = tmp_path_factory.mktemp("web") / "page"
    export_web(small_student(), tokenizer, folder, TEXT)
    return folder


@contextmanager
def opened(folder, **options):
    """The page, loaded from a plain file server; no request may leave it, and nothing may be said on its console."""
    if CHROMIUM is None:
        pytest.skip("no browser")
    sync_api = pytest.importorskip("playwright.sync_api")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    complaints = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(**options)
            page.set_default_timeout(TIMEOUT)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: request.url.startswith(address) or complaints.append(request.url))
            page.goto(address)
            yield page, complaints
            browser.close()
        server.shutdown()


def press(page, button):
    page.click(f"#{button}")
    page.wait_for_selector("body[data-busy='0']")


def write(page, words="", num_tokens=50):
    page.evaluate(
        f"document.getElementById('temperature').value = 0; document.getElementById('length').value = {num_tokens}"
    )
    page.fill("#words", words)
    press(page, "write")


def greedy(student, tokenizer, text, num_tokens):
    """The ids of a prompt, and the text of those that `generate()` writes after it."""
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    ids = student.generate(prompt, max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    return ids, tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)


def test_a_visit(page_folder, tokenizer, tmp_path):
    student = small_student()
    with opened(page_folder, viewport={"width": 1200, "height": 800}) as (page, complaints):
        page.wait_for_selector("body[data-busy='0']")
        before = page.evaluate("document.getElementById('memory').toDataURL()")
        write(page, BEGINNING)
        ids, text = greedy(student, tokenizer, BEGINNING, 50)
        # bytes that are no character yet may be held back at the end
        assert text.removesuffix("\ufffd").startswith(page.inner_text("#text .student")[:40])
        assert page.inner_text("#text .reader") == BEGINNING
        assert page.get_attribute("#tokens", "data-value") == str(ids.shape[1])
        assert float(page.get_attribute("#speed", "data-value")) > 0
        assert page.evaluate("document.getElementById('memory').toDataURL()") != before
        picture(page, "page.png")

        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "memory.safetensors")
        memory = SmtMemory.from_pretrained(tmp_path)
        expected = student.read(ids)
        torch.testing.assert_close(memory.to_cache(student).memory, expected.states, rtol=0, atol=1e-4)
        assert memory.num_tokens.tolist() == [ids.shape[1]]

        write(page, num_tokens=10)
        further = page.inner_text("#text .student >> nth=-1")
        restore(page, tmp_path / "memory.safetensors")
        assert "is back" in page.inner_text("#text")
        write(page, num_tokens=10)
        assert page.inner_text("#text .student >> nth=-1") == further
        press(page, "fresh")
        assert page.get_attribute("#tokens", "data-value") == "0"
        assert complaints == []


def test_memories_that_are_refused(page_folder, tmp_path):
    student, other = small_student(), small_student(seed=1)
    two = student.read(torch.zeros(2, 3, dtype=torch.long))
    files = {
        "belongs to another student": other.read(torch.zeros(1, 3, dtype=torch.long)),
        "contains 2 memories": two,
        "has shape 4 x 24, but the student's has 4 x 48": SmtMemory(two.states[:1, :, :24].clone(), two.fingerprint),
        "save memory.to(torch.float32) instead": two[0].to(torch.bfloat16),
    }
    with opened(page_folder, color_scheme="dark", viewport={"width": 390, "height": 844}) as (page, _):
        page.wait_for_selector("body[data-busy='0']")
        for number, (words, memory) in enumerate(files.items()):
            memory.save_pretrained(tmp_path, filename=f"{number}.safetensors")
            restore(page, tmp_path / f"{number}.safetensors")
            assert words in page.inner_text("#notice.refused")
        (tmp_path / "none.safetensors").write_bytes(b"none")
        restore(page, tmp_path / "none.safetensors")
        assert "contains no memory" in page.inner_text("#notice.refused")
        half = SmtMemory(two[0].states, small_student().half().read(torch.zeros(1, 1, dtype=torch.long)).fingerprint)
        half.save_pretrained(tmp_path, filename="half.safetensors")  # the same student, in another precision
        restore(page, tmp_path / "half.safetensors")
        assert page.inner_text("#notice") == "Restored."
        write(page, "Once", num_tokens=50)
        picture(page, "page-phone.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_another_tokenizer(traced_once, from_npm, tmp_path):
    tokenizer = subword_tokenizer()
    student = small_student(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=None)
    export_web(student, tokenizer, tmp_path / "page", TEXT, dtype="int8")
    with opened(tmp_path / "page") as (page, complaints):
        page.wait_for_selector("body[data-busy='0']")
        write(page, BEGINNING)
        backend = OnnxBackend(tmp_path / "page")
        prompt = tokenizer(BEGINNING)["input_ids"]
        assert tokenizer.decode(greedy_ids(backend, prompt, 50)).startswith(page.inner_text("#text .student")[:20])
        assert page.get_attribute("#tokens", "data-value") == str(len(prompt) + 50)
        assert complaints == []
    known = json.loads((tmp_path / "page/tokenizer_in_browser.json").read_text())
    known["samples"][0]["ids"][0] += 1
    (tmp_path / "page/tokenizer_in_browser.json").write_text(json.dumps(known))
    with opened(tmp_path / "page") as (page, _):
        assert "gives different ids in a browser" in page.wait_for_selector("#notice.refused").inner_text()


def test_the_folder_is_an_export_too(page_folder):
    assert verify(small_student(), OnnxBackend(page_folder), torch.arange(64).view(2, 32)).max_difference < 1e-4
    assert "sdk: static" in (page_folder / "README.md").read_text()
    assert "MIT License" in (page_folder / "vendor/NOTICE.txt").read_text()
    assert all(path.stat().st_mode & 0o044 for path in page_folder.rglob("*"))


def test_without_what_the_page_imports(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("SMT_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)
    with pytest.raises(
        InputError, match="onnxruntime-web@.* npm is not installed: install Node.js, or put its archive"
    ):
        export_web(small_student(), tokenizer, tmp_path / "page", TEXT)
    (tmp_path / "npm").write_text("#!/bin/sh\necho first >&2\necho second >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setattr(npm.shutil, "which", lambda name: str(tmp_path / "npm"))
    with pytest.raises(
        InputError, match=r"npm could not download onnxruntime-web@\S+ \(first second\): check the network"
    ):
        export_web(small_student(), tokenizer, tmp_path / "page", TEXT)
    (tmp_path / "npm").write_text(f'#!/bin/sh\necho another > "$4/{RUNTIME.archive}"\n')
    with pytest.raises(InputError, match="npm downloaded a different onnxruntime-web"):
        export_web(small_student(), tokenizer, tmp_path / "page", TEXT)
    assert not (tmp_path / "page").exists() and not list((tmp_path / "cache/npm").iterdir())
    assert web.TOKENIZERS.archive == "huggingface-tokenizers-0.2.0.tgz"


def restore(page, file):
    page.evaluate("document.getElementById('notice').textContent = ''")
    page.set_input_files("#file", file)
    page.wait_for_selector("#notice:not(:empty)")


def picture(page, name):
    """A screenshot to look at, where a folder for them is named."""
    if os.environ.get("SMT_HF_ARTIFACTS"):
        page.screenshot(path=Path(os.environ["SMT_HF_ARTIFACTS"]) / name)


def subword_tokenizer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def greedy_ids(backend, ids, num_tokens):
    memory, written = backend.initial_memory[None], []
    for token in ids:
        memory = backend.update(memory, torch.tensor([token]))
    for _ in range(num_tokens):
        written.append(backend.readout(memory).argmax().item())
        memory = backend.update(memory, torch.tensor(written[-1:]))
    return written
