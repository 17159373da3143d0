"""The metrics for `evaluate` against slow computations, the package's own report, and bad input."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
import torch
from transformers import Trainer, TrainingArguments

import smt_hf.evaluation.metrics
from smt_hf.cli.main import main
from smt_hf.data import cached_tokens, evenly_spaced_windows
from smt_hf.errors import InputError
from smt_hf.evaluation import next_token_losses, rollout
from smt_hf.evaluation.metrics import METRICS, load
from smt_hf.rollout import teacher_rollout
from tests.conftest import tiny_model
from tests.ecosystem.conftest import byte_student

FORMS = {"tensors": lambda x: x, "arrays": lambda x: x.numpy(), "lists": lambda x: x.tolist()}


@pytest.fixture
def metric(tmp_path):
    return lambda name, **kwargs: load(name, cache_dir=str(tmp_path), **kwargs)


@pytest.fixture(scope="module")
def given():
    """Logits of 6 rows of 5 tokens, the tokens, the student's and the teacher's memories."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 7, generator=generator)
    ids = torch.randint(7, (6, 5), generator=generator)
    ids[1, 3:], ids[4, 0] = -100, -100
    memories = torch.randn(2, 6, 5, 3, 4, generator=generator)
    return logits, ids, memories[0], memories[1]


def naive_losses(logits, ids):
    """One loss after another, with their steps, in Python's floats."""
    for row, targets in zip(logits.tolist(), ids.tolist(), strict=True):
        for step, (scores, target) in enumerate(zip(row, targets, strict=True)):
            if target != -100:
                yield step, math.log(sum(math.exp(score) for score in scores)) - scores[target]


def losses_by_row(logits, ids):
    return [[loss for _, loss in naive_losses(*row)] for row in zip(logits.split(1), ids.split(1), strict=True)]


def naive_rank(memories):
    """From the singular values, in float64, instead of the covariance's eigenvalues."""
    tokens = memories.double().flatten(0, -2)
    spectrum = torch.linalg.svdvals(tokens - tokens.mean(dim=0)).square()
    weights = [value / sum(spectrum.tolist()) for value in spectrum.tolist()]
    return math.exp(-sum(weight * math.log(weight) for weight in weights if weight > 0))


@pytest.mark.parametrize("form", FORMS)
def test_losses_against_a_loop(metric, given, form):
    logits, ids, *_ = given
    losses = list(naive_losses(logits, ids))
    mean = sum(loss for _, loss in losses) / len(losses)
    inputs = {"predictions": FORMS[form](logits), "references": FORMS[form](ids)}
    result = metric("rollout_loss").compute(**inputs)
    assert result["rollout_loss"] == pytest.approx(mean, rel=1e-6)
    for step in range(5):
        here = [loss for at, loss in losses if at == step]
        assert result["loss_by_position"][step] == pytest.approx(sum(here) / len(here), rel=1e-6)
    sums = [(torch.tensor(own), len(own)) for own in losses_by_row(logits, ids)]
    residuals = [own.double().sum() - mean * count for own, count in sums]
    error = math.sqrt(6 / 5 * sum(float(residual) ** 2 for residual in residuals)) / len(losses)
    assert result["standard_error"] == pytest.approx(error, rel=1e-5)
    bits = metric("bits_per_byte").compute(**inputs, bytes_per_token=1.7)["bits_per_byte"]
    assert bits == pytest.approx(mean / math.log(2) / 1.7, rel=1e-6)


def test_standard_error_of_rows_of_one_length(metric):
    losses = torch.rand(7, 5)
    result = metric("rollout_loss").compute(predictions=losses, references=torch.zeros(7, 5, dtype=torch.long))
    assert result["standard_error"] == pytest.approx(losses.double().mean(dim=1).std().item() / math.sqrt(7), rel=1e-6)
    single = metric("rollout_loss").compute(predictions=losses[:1], references=torch.zeros(1, 5, dtype=torch.long))
    assert math.isnan(single["standard_error"])


@pytest.mark.parametrize("form", FORMS)
def test_losses_in_place_of_logits(metric, given, form):
    logits, ids, *_ = given
    losses = next_token_losses(torch.nn.Identity(), logits, ids)
    for name, options in (("rollout_loss", {}), ("bits_per_byte", {"bytes_per_token": 2.0})):
        whole = metric(name, **options).compute(predictions=logits, references=ids)
        short = metric(name, **options).compute(predictions=FORMS[form](losses), references=FORMS[form](ids))
        assert short == whole


@pytest.mark.parametrize("form", FORMS)
def test_drift_against_a_loop(metric, given, form):
    *_, own, target = given
    result = metric("drift").compute(predictions=FORMS[form](own), references=FORMS[form](target))
    for step in range(5):
        errors = [
            (own[row, step, k, d].item() - target[row, step, k, d].item()) ** 2
            for row in range(6)
            for k in range(3)
            for d in range(4)
        ]
        assert result["drift_by_step"][step] == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert result["drift"] == pytest.approx(sum(result["drift_by_step"]) / 5)


@pytest.mark.parametrize("form", FORMS)
def test_effective_rank_against_singular_values(metric, given, form):
    memories = given[2]
    for rows in (memories, memories.flatten(0, 1)):  # rows of memories, single memories
        result = metric("effective_rank").compute(predictions=FORMS[form](rows))
        assert result["effective_rank"] == pytest.approx(naive_rank(memories), rel=1e-4)


def test_effective_rank_at_its_ends(metric):
    def rank(memories):
        return metric("effective_rank").compute(predictions=memories)["effective_rank"]

    assert rank(torch.full((3, 5, 2, 8), 0.1)) == pytest.approx(1, abs=1e-5)
    line = torch.randn(3, 5, 2, 1) * torch.randn(8)
    assert rank(line) == pytest.approx(1, abs=1e-3)
    line[0, 0, 0, 0] = float("inf")
    assert math.isnan(rank(line))


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("name", METRICS)
def test_batches_and_rows_equal_one_call(metric, given, name, in_memory):
    logits, ids, own, target = given
    options = {"bytes_per_token": 1.5} if name == "bits_per_byte" else {}
    columns = {"predictions": logits, "references": ids}
    if name in ("drift", "effective_rank"):
        columns = {"predictions": own, "references": target}
    if name == "effective_rank":
        del columns["references"]
    whole = metric(name, keep_in_memory=in_memory, **options).compute(**columns)
    batched = metric(name, keep_in_memory=in_memory, **options)
    for first in (0, 4):
        batched.add_batch(**{column: values[first : first + 4] for column, values in columns.items()})
    assert batched.compute() == whole
    single = metric(name, keep_in_memory=in_memory, **options)
    for row in range(6):
        single.add(**{column.removesuffix("s"): values[row].numpy() for column, values in columns.items()})
    assert single.compute() == whole


def test_combined(metric, given):
    logits, ids, own, target = given
    losses = evaluate.combine([metric("rollout_loss"), metric("bits_per_byte", bytes_per_token=1.0)])
    result = losses.compute(predictions=logits, references=ids)
    assert result["bits_per_byte"] == pytest.approx(result["rollout_loss"] / math.log(2))
    memories = evaluate.combine([metric("drift"), metric("effective_rank")])
    memories.add_batch(predictions=own, references=target)
    assert set(memories.compute()) == {"drift", "drift_by_step", "effective_rank"}


def test_what_the_command_reports(metric, stories, tokenizer, tmp_path):
    model = tiny_model(vocab_size=258, dtype=torch.float32, initializer_range=0.1)
    model.set_initial_memory()
    model.save_pretrained(tmp_path / "joint")
    tokenizer.save_pretrained(tmp_path / "joint")
    dataset, folder = str(stories / "valid.txt"), str(tmp_path / "joint")
    argv = ["evaluate", folder, "--teacher", folder, "--dataset", dataset, "--cache_dir", str(tmp_path)]
    sizes = ["--context_length", "10", "--rollout_steps", "20", "--num_windows", "6", "--batch_size", "4"]
    assert main([*argv, *sizes, "--output_dir", str(tmp_path / "evaluation")]) == 0
    report = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())

    cache = cached_tokens(dataset, tokenizer, tmp_path)
    windows = evenly_spaced_windows(cache, 30, 6)
    student = model.export_student().eval()
    loss, drift = metric("rollout_loss"), metric("drift")
    bits = metric("bits_per_byte", bytes_per_token=cache.num_bytes / cache.num_tokens)
    for rows in (slice(0, 3), slice(3, 6)):
        ids, documents = (windows[name][rows, 10:] for name in ("input_ids", "documents"))
        before, after = rollout(student, ids, documents=documents)
        for metric_of_logits in (loss, bits):
            metric_of_logits.add_batch(predictions=student.readout(before).detach(), references=ids)
        drift.add_batch(predictions=after, references=teacher_rollout(model.teacher, ids, documents)[1])
    cold, result = report["student_cold"], loss.compute()
    rounded = {"rel": 0, "abs": 0.51e-4}
    assert result["rollout_loss"] == pytest.approx(cold["nats_per_token"], **rounded)
    assert result["loss_by_position"] == pytest.approx(cold["by_position"], **rounded)
    assert bits.compute()["bits_per_byte"] == pytest.approx(cold["bits_per_byte"], **rounded)
    assert drift.compute()["drift_by_step"] == pytest.approx(report["drift"], rel=0, abs=0.6e-6)


@pytest.mark.parametrize("reduced", [False, True])
def test_compute_metrics_of_the_stock_trainer(metric, tmp_path, reduced):
    """The forward pass without a cache is a cold-start rollout, so the metric is the evaluation's loss."""
    rollout_loss = metric("rollout_loss")

    def compute_metrics(prediction):
        given, labels = prediction
        shifted = given if reduced else given[:, :-1]
        return {"rollout_loss": rollout_loss.compute(predictions=shifted, references=labels[:, 1:])["rollout_loss"]}

    def losses(logits, labels):
        return next_token_losses(torch.nn.Identity(), logits[:, :-1], labels[:, 1:])

    ids = torch.randint(256, (6, 9), generator=torch.Generator().manual_seed(0))
    trainer = Trainer(
        byte_student(),
        TrainingArguments(str(tmp_path), per_device_eval_batch_size=3, use_cpu=True, report_to="none"),
        eval_dataset=[{"input_ids": row, "labels": row} for row in ids],
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=losses if reduced else None,
    )
    metrics = trainer.evaluate()
    assert metrics["eval_rollout_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)


def test_a_copied_folder_loads_by_itself(given, tmp_path):
    """As from a Space: `evaluate` copies the script alone."""
    logits, ids, *_ = given
    folder = Path(smt_hf.evaluation.metrics.__file__).parent / "rollout_loss"
    shutil.copytree(folder, tmp_path / "rollout_loss")
    copied = evaluate.load(str(tmp_path / "rollout_loss"), cache_dir=str(tmp_path))
    result = copied.compute(predictions=logits, references=ids)
    assert result == load("rollout_loss", cache_dir=str(tmp_path)).compute(predictions=logits, references=ids)


def test_nothing_is_imported_or_written_before_a_metric_is_needed(given, tmp_path):
    """`evaluate` takes a second to import; a home that cannot be written to is no reason not to measure."""
    code = """
import sys, smt_hf.evaluation.metrics as metrics
assert "evaluate" not in sys.modules
result = metrics.compute("rollout_loss", predictions=[[0.5, 1.5]], references=[[1, 2]])
assert result["rollout_loss"] == 1.0, result
"""
    home = tmp_path / "home"
    offline = {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], env=os.environ | offline, check=True)
    assert not home.exists()


def bad_inputs():
    logits, ids, states = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, 1, 4)
    ragged = [[[0.0] * 4] * 3, [[0.0] * 4] * 2], [[0] * 3, [0] * 2]
    yield (
        "rollout_loss",
        {"predictions": logits, "references": ids + 4},
        "reference 4 is neither -100 nor one of the 4",
    )
    yield "rollout_loss", {"predictions": logits, "references": ids - 100}, "no reference counts"
    yield "rollout_loss", {"predictions": logits[:, :2], "references": ids}, r"shape \(2, 2, 4\) and .* \(2, 3\)"
    yield "rollout_loss", {"predictions": ragged[0], "references": ragged[1]}, r"different shapes \(lengths \[2, 3\]\)"
    yield "rollout_loss", {"predictions": logits[..., 0] - 1, "references": ids}, "a loss of -1 nats is negative"
    yield "bits_per_byte", {"predictions": logits, "references": ids}, "bytes_per_token=None must be a positive"
    yield "bits_per_byte", {"predictions": logits, "references": ids, "bytes_per_token": 0}, "bytes_per_token=0 must"
    yield "drift", {"predictions": states, "references": states[:, :2]}, r"\(2, 3, 1, 4\) and .* \(2, 2, 1, 4\)"
    yield "effective_rank", {"predictions": states[:1, :1]}, "one memory token of 4 numbers has no covariance"


@pytest.mark.parametrize("name, inputs, message", list(bad_inputs()))
def test_bad_input(metric, name, inputs, message):
    with pytest.raises(InputError, match=message):
        metric(name, keep_in_memory=True).compute(**inputs)


def test_an_unknown_metric():
    with pytest.raises(InputError, match="metric 'drft' is unknown: choose one of bits_per_byte, drift"):
        load("drft")
