"""Training and evaluation on tasks: few labels, aligned with the inputs."""

import math

import pytest
import torch

from smt_hf import SmtConfig, SmtForPreTraining, SmtTeacherConfig
from smt_hf.errors import InputError
from smt_hf.models import student_config_for
from smt_hf.rollout import rollout
from smt_hf.tasks import TaskDataset, load_task
from smt_hf.training import SmtTrainer, SmtTrainingArguments

from .conftest import COMMON, logged

TASK = load_task("retrieval", length=32)


def make(tmp_path, eval_dataset=None, **overrides):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_memory_tokens": 2, "num_attention_heads": 2, "num_decoder_layers": 1}
    teacher = SmtTeacherConfig(vocab_size=TASK.vocab_size, num_encoder_layers=1, **sizes)
    model = SmtForPreTraining(
        SmtConfig(teacher_config=teacher, student_config=student_config_for(teacher, num_updater_layers=1))
    )
    options = {"context_length": 32, "horizon": 8, "num_transitions": 4, "num_decoded": 2, "learning_rate": 0.0}
    arguments = SmtTrainingArguments(str(tmp_path), **{**COMMON, **options, **overrides})
    dataset = TaskDataset(TASK, 64, seed=0)
    return SmtTrainer(model=model, args=arguments, train_dataset=dataset, eval_dataset=eval_dataset)


def test_a_term_is_averaged_over_the_steps_that_have_labels_for_it(tmp_path):
    trainer = make(tmp_path, max_steps=20, logging_steps=10)
    trainer.train()
    losses = logged(trainer, "readout")
    assert losses and all(abs(loss - math.log(TASK.vocab_size)) < 0.3 for loss in losses)


def test_pinned_columns_see_the_label_in_every_step(tmp_path):
    trainer = make(tmp_path, max_steps=6, pinned_columns=[-1])
    trainer.train()
    assert len(logged(trainer, "readout")) == 6
    assert len(logged(make_and_train(tmp_path), "readout")) < 6


def make_and_train(tmp_path):
    trainer = make(tmp_path, max_steps=6)
    trainer.train()
    return trainer


def test_the_evaluation_tells_the_accuracy_of_the_rollout(tmp_path):
    held_out = TaskDataset(TASK, 48, seed=1)
    trainer = make(tmp_path, held_out, per_device_eval_batch_size=16, eval_rollout_batches=9, pinned_columns=[-1])
    metrics = trainer.evaluate()
    rows = [held_out[index] for index in range(48)]
    input_ids, labels = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "shift_labels"))
    student = trainer.student().eval()
    logits = student.readout(rollout(student, input_ids)[1])[:, -1]
    expected = (logits.argmax(dim=-1) == labels[:, -1]).float().mean().item()
    assert metrics["eval_cold_start_accuracy"] == pytest.approx(expected)
    loss = torch.nn.functional.cross_entropy(logits, labels[:, -1]).item()
    assert metrics["eval_cold_start_loss"] == pytest.approx(loss, rel=1e-5)
    assert "eval_readout" in metrics


def test_nothing_is_said_of_terms_without_labels(tmp_path):
    held_out = TaskDataset(TASK, 16, seed=1)
    trainer = make(tmp_path, held_out, num_transitions=1, num_decoded=1, horizon=1, eval_rollout_steps=16)
    metrics = trainer.evaluate()
    assert "eval_dynamics" in metrics
    assert not {"eval_readout", "eval_cold_start_loss", "eval_cold_start_accuracy"} & set(metrics)


def test_labels_that_training_never_reaches(tmp_path):
    with pytest.raises(InputError, match="context_length \\+ horizon = 24 columns"):
        make(tmp_path, context_length=16, horizon=8).train()


def test_a_label_outside_the_vocabulary(tmp_path):
    trainer = make(tmp_path)
    row = {"input_ids": torch.zeros(32, dtype=torch.long), "shift_labels": torch.full((32,), TASK.vocab_size)}
    trainer.train_dataset = [row] * 8
    with pytest.raises(InputError, match=f"shift_labels contain {TASK.vocab_size}, which is neither -100"):
        trainer.train()
