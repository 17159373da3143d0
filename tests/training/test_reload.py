"""Trainers that load weights again: tied ones are not missed, those that are missing end the run."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from smt_hf import SmtRnnForCausalLM
from smt_hf.errors import InputError
from tests.training.conftest import model_for_bytes

WEIGHTS = "model.safetensors"


@pytest.fixture
def said(caplog):
    """What is warned of."""
    logging.enable_propagation()
    yield lambda: [record.getMessage() for record in caplog.records if "keys" in record.getMessage()]
    logging.disable_propagation()


def tied_student():
    student = model_for_bytes().export_student()
    return SmtRnnForCausalLM(type(student.config)(**{**student.config.to_dict(), "tie_word_embeddings": True}))


@pytest.fixture
def make(make_smt, make_bptt, tmp_path):
    def stock(**options):
        rows = [{"input_ids": torch.arange(24), "labels": torch.arange(24)}] * 8
        arguments = TrainingArguments(str(tmp_path / "stock"), use_cpu=True, disable_tqdm=True, **options)
        return Trainer(model=tied_student(), args=arguments, train_dataset=rows)

    def bptt(**options):
        return make_bptt(tied_student(), **options)

    return {"smt": make_smt, "bptt": bptt, "stock": stock}


@pytest.mark.parametrize("kind", ["smt", "bptt", "stock"])
def test_tied_weights_raise_no_alarm(make, kind, said):
    make[kind](max_steps=1, save_strategy="steps", save_steps=1).train()
    trainer = make[kind](max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2 and not said()


@pytest.mark.parametrize("kind", ["smt", "bptt", "stock"])
def test_the_best_weights_come_back(make, kind, said):
    trainer = make[kind](max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.state.best_model_checkpoint = f"{trainer.args.output_dir}/checkpoint-1"
    trainer._load_best_model()
    for name, value in load_file(f"{trainer.state.best_model_checkpoint}/{WEIGHTS}").items():
        assert trainer.model.state_dict()[name].equal(value)
    assert not said()


@pytest.fixture
def saved(make_smt, tmp_path):
    trainer = make_smt()
    trainer.save_model(str(tmp_path / "checkpoint"))
    return trainer, tmp_path / "checkpoint"


@pytest.mark.parametrize(
    "name", ["teacher.lm_head.weight", "teacher.memory_registers", "student.model.initial_memory"]
)
def test_a_missing_weight_is_named(saved, name):
    trainer, folder = saved
    tensors = load_file(folder / WEIGHTS)
    tensors.pop(name)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=f"lacks .*{name}"):
        trainer._load_from_checkpoint(str(folder))


def test_an_unexpected_weight_is_named(saved):
    trainer, folder = saved
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "teacher.more": torch.zeros(2)}, folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match="also contains teacher.more"):
        trainer._load_from_checkpoint(str(folder))


def test_shards(saved, said):
    trainer, folder = saved
    model = model_for_bytes(seed=1)
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    trainer._load_from_checkpoint(str(folder))
    for name, value in model.state_dict().items():
        assert trainer.model.state_dict()[name].equal(value)
    assert not said()
