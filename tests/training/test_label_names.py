"""`labels` are ids at their own position, shifted inside; `shift_labels` are aligned already: the same for model and trainers."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from smt_hf.batch import IGNORED, Batch
from tests.conftest import tiny_model

from .conftest import COMMON

T = 20  # tokens per row


@pytest.fixture
def ids():
    return torch.randint(20, (4, T), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def labels(ids):
    """Other ids than the inputs, some ignored, as for a prompt that is not trained on."""
    labels = (ids + 3) % 20
    labels[:, :5] = IGNORED
    labels[2, 9] = IGNORED
    return labels


def shifted(labels):
    """The same targets, aligned by hand."""
    return torch.cat([labels[:, 1:], torch.full((len(labels), 1), IGNORED)], dim=1)


def rows(**columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def close(found, expected):
    """The library's loss is in float32."""
    torch.testing.assert_close(found, expected.to(found.dtype))


def losses(trainer, batch):
    """The loss and the gradients of one batch, as one optimiser step makes them."""
    trainer.model.zero_grad()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    (batch,), num_items = trainer.get_batch_samples(iter([batch]), 1, batch["input_ids"].device)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=num_items)
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def test_next_targets(ids, labels):
    def targets(**columns):
        return Batch.of({"input_ids": ids, **columns}).targets

    assert targets(labels=labels)[:, 1:].equal(targets(shift_labels=shifted(labels))[:, 1:])
    assert targets(labels=ids).equal(targets())
    both = targets(labels=ids, shift_labels=shifted(labels))  # as in the library, the aligned ones count
    assert both[:, 1:].equal(shifted(labels))


def test_the_model(ids, labels):
    student = tiny_model().export_student()
    logits = student(ids).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    for given in (
        {"labels": labels},
        {"shift_labels": shifted(labels)},
        {"labels": ids, "shift_labels": shifted(labels)},
    ):
        close(student(ids, **given).loss, expected)
    num_items = torch.tensor(7)
    close(
        student(ids, shift_labels=shifted(labels), num_items_in_batch=num_items).loss,
        student(ids, labels=labels, num_items_in_batch=num_items).loss,
    )


def test_documents_leave_aligned_targets_alone(ids, labels):
    student, documents = tiny_model().export_student(), torch.arange(T).expand(4, -1) // 6
    logits, targets = student(ids, documents=documents).logits, shifted(labels)
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten())
    close(student(ids, documents=documents, shift_labels=targets).loss, expected)
    within = targets.masked_fill(documents != torch.roll(documents, -1, dims=1), IGNORED)
    expected = cross_entropy(logits.flatten(0, 1), within.flatten())
    close(student(ids, documents=documents, labels=labels).loss, expected)


@pytest.mark.parametrize("method", ["smt", "dmt", "bptt", "bptt_cut"])
def test_the_trainers(make_smt, make_dmt, make_bptt, ids, labels, method):
    """The same targets in either form give the same loss and gradients; so do the inputs as labels, and none."""
    joint = tiny_model()
    labels[:, 0] = IGNORED  # an aligned target cannot be read from the initial memory
    make = {
        "smt": lambda: make_smt(joint, dataset=[], context_length=16, horizon=4, student_weight=1.0),
        "dmt": lambda: make_dmt(joint, dataset=[], context_length=16),
        "bptt": lambda: make_bptt(joint.export_student(), dataset=[]),
        "bptt_cut": lambda: make_bptt(joint.export_student(), dataset=[], bptt_horizon=6),
    }[method]
    aligned = {"shift_labels": shifted(labels)}
    for one, other in (({"labels": labels}, aligned), ({"labels": ids}, {}), ({"labels": ids} | aligned, aligned)):
        (loss, gradients), (expected, expected_gradients) = (
            losses(make(), {"input_ids": ids, **x}) for x in (one, other)
        )
        assert loss == pytest.approx(expected, rel=1e-6)  # losses are summed in float32
        torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-7)


def test_the_first_label_is_read_from_the_initial_memory(make_bptt, ids):
    labels = torch.full_like(ids, IGNORED)
    labels[:, 0] = ids[:, 0]
    student = tiny_model().export_student()
    loss, _ = losses(make_bptt(student, dataset=[]), {"input_ids": ids, "labels": labels})
    expected = cross_entropy(student.readout(student.initial_memory).expand(4, -1), ids[:, 0])
    assert loss == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("form", ["labels", "shift_labels"])
def test_evaluation_of_the_rollout(make_bptt, ids, labels, form):
    columns = {"input_ids": ids, form: labels if form == "labels" else shifted(labels)}
    trainer = make_bptt(dataset=[], eval_dataset=rows(**columns), eval_rollout_steps=T)
    metrics, student = trainer.evaluate(), trainer.model
    logits = student(ids).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).item()
    assert metrics["eval_cold_start_loss"] == pytest.approx(expected, rel=1e-5)
    assert ("eval_cold_start_accuracy" in metrics) == (form == "shift_labels")


def test_a_language_modelling_collator(make_bptt, make_smt, make_dmt, tokenizer):
    """Its labels are the inputs: every trainer learns what it learns without labels."""
    text = [{"input_ids": [97 + (i + j) % 7 for j in range(30)]} for i in range(16)]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    for make in (make_bptt, make_smt, make_dmt):
        found = []
        for data_collator in (None, collator):
            trainer = make(dataset=text)
            trainer.data_collator = data_collator or trainer.data_collator
            trainer.train()
            found.append(trainer.state.log_history[0]["loss"])
        assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_label_smoothing_of_the_stock_trainer(tmp_path, ids, labels):
    student = tiny_model(dtype=torch.float32).export_student()
    arguments = {name: COMMON[name] for name in ("use_cpu", "report_to")}
    trainer = Trainer(student, TrainingArguments(str(tmp_path), label_smoothing_factor=1e-9, **arguments))
    with torch.no_grad():
        smoothed = trainer.compute_loss(student, {"input_ids": ids, "labels": labels})
        torch.testing.assert_close(smoothed, student(ids, labels=labels).loss)
