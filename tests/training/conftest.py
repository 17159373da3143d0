"""Trainers small enough for a test."""

import pytest
import torch

from smt_hf.data import TokenWindows
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from tests.conftest import tiny_model

COMMON = {
    "context_length": 24,
    "per_device_train_batch_size": 8,
    "max_steps": 3,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
}
SMT = {"horizon": 8, "num_transitions": 8, "num_decoded": 2, "uniformity_weight": 0.0}
DMT = {"rollout_length": 16, "num_sweeps": [1, 2]}


def model_for_bytes(**overrides):
    return tiny_model(vocab_size=258, dtype=torch.float32, initializer_range=0.1, **overrides)


@pytest.fixture
def make_smt(cache, tmp_path):
    def make(model=None, dataset=None, eval_dataset=None, **overrides):
        arguments = SmtTrainingArguments(output_dir=str(tmp_path / "smt"), **{**COMMON, **SMT, **overrides})
        dataset = TokenWindows(cache, arguments.window_length) if dataset is None else dataset
        data = {"train_dataset": dataset, "eval_dataset": eval_dataset}
        return SmtTrainer(model=model or model_for_bytes(), args=arguments, **data)

    return make


@pytest.fixture
def make_dmt(cache, tmp_path):
    def make(joint=None, dataset=None, **overrides):
        joint = joint or model_for_bytes()
        arguments = DmtTrainingArguments(output_dir=str(tmp_path / "dmt"), **{**COMMON, **DMT, **overrides})
        dataset = TokenWindows(cache, arguments.window_length) if dataset is None else dataset
        student = joint.export_student()
        return DmtTrainer(model=student, teacher=joint.teacher, args=arguments, train_dataset=dataset)

    return make


@pytest.fixture
def make_bptt(cache, tmp_path):
    def make(student=None, dataset=None, trainer=BpttTrainer, **overrides):
        names = {
            name: overrides.pop(name) for name in ("data_collator", "eval_dataset", "optimizers") if name in overrides
        }
        arguments = BpttTrainingArguments(**{"output_dir": str(tmp_path / "bptt"), **COMMON, **overrides})
        dataset = TokenWindows(cache, arguments.window_length) if dataset is None else dataset
        student = student or model_for_bytes().export_student()
        return trainer(model=student, args=arguments, train_dataset=dataset, **names)

    return make


def logged(trainer, name="loss"):
    return [entry[name] for entry in trainer.state.log_history if name in entry]
