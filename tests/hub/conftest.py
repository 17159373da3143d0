"""A Hub on this machine, small models for bytes, and processes that know no other Hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from smt_hf.data import byte_tokenizer
from tests.conftest import tiny_model
from tests.hub.hub_server import running_server

SOURCE = str(Path(__file__).parents[2] / "src")
TOKEN = "hf_tokenofuser"


@pytest.fixture(scope="session")
def hub():
    """A running server, shared: every test has repositories of its own."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def run_python(hub, tmp_path_factory):
    """Runs Python in a new process that knows this Hub only, logged in, with nothing cached; returns what it printed.

    `huggingface_hub` reads the environment once, when it is imported: what loads from the Hub runs in such a process.
    Large files go by Git LFS, which the server speaks; it does not speak Xet.
    """
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", "OMP_NUM_THREADS": "1"}

    def run(*words, path=SOURCE):
        home = tmp_path_factory.mktemp("home")
        environment = {**outer, **settings, "HF_HOME": str(home), "PYTHONPATH": path}
        command = [sys.executable, *map(str, words)]
        result = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def this_process(hub, monkeypatch, tmp_path):
    """Turns this process, where `huggingface_hub` is imported already, to the server: enough to upload."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return monkeypatch


def byte_models(seed=0):
    """Teacher and student in float32 for the 258 byte tokens."""
    return tiny_model(vocab_size=258, dtype=torch.float32, seed=seed)


def write_student(folder: Path) -> Path:
    """Fills a folder as a run leaves it: model, tokenizer, evaluation, and what is not for others."""
    byte_models().export_student().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    loss = {"nats_per_token": 2.5, "standard_error": 0.1, "bits_per_byte": 3.6, "by_position": [2.7, 2.6, 2.4, 2.3]}
    report = {
        "context_length": 2,
        "rollout_steps": 4,
        "num_windows": 8,
        "dataset": "owner/stories",
        "student_cold": loss,
    }
    (folder / "evaluation.json").write_text(json.dumps(report))
    (folder / "evaluation.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    left = "checkpoint-4/model.safetensors runs/today/events.out.tfevents.1 optimizer.pt scheduler.pt rng_state.pth "
    left += "training_args.bin trainer_state.json train.log .env more/.secret __pycache__/x.pyc"
    for name in left.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not for others")
    return folder


@pytest.fixture
def student_folder(tmp_path):
    return write_student(tmp_path / "student")
