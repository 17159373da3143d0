"""A folder as the pages suppose it: text files and the demo's models, small enough for a test."""

import json

import pytest
import torch
import transformers

from smt_hf.data import byte_tokenizer
from smt_hf.demo.stories import write_stories
from tests.conftest import tiny_model


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workshop")
    write_stories(folder / "stories.txt", num_stories=60, seed=0)
    write_stories(folder / "held_out.txt", num_stories=6, seed=1)
    (folder / "chapter.txt").write_text("Once upon a time there was a cat. It liked the rain.", encoding="utf-8")
    chats = [
        {"prompt": "Who are you?", "completion": " A cat."},
        {"prompt": "What do you like?", "completion": " Rain."},
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats * 8), encoding="utf-8")
    tokenizer = byte_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    joint = tiny_model(dtype=torch.float32, **ids)
    joint.save_pretrained(folder / "runs/demo/smt")
    joint.export_student().save_pretrained(folder / "runs/demo/dmt")
    for run in ("smt", "dmt"):
        tokenizer.save_pretrained(folder / "runs/demo" / run)
    return folder


@pytest.fixture
def in_workshop(workshop, monkeypatch):
    """The working directory is the workshop, and every training ends after one step of two rows."""
    monkeypatch.chdir(workshop)
    monkeypatch.setenv("SMT_HF_CACHE", str(workshop / "cache"))
    whole = transformers.TrainingArguments.__post_init__

    def short(arguments):
        arguments.max_steps, arguments.max_train_seconds = 1, None
        arguments.per_device_train_batch_size = arguments.per_device_eval_batch_size = 2
        arguments.use_cpu, arguments.report_to, arguments.save_strategy = True, "none", "no"
        whole(arguments)

    monkeypatch.setattr(transformers.TrainingArguments, "__post_init__", short)
    return workshop
