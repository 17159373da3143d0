"""The warning on collapsed memories: trainings that collapse and trainings that do not, in one piece and resumed."""

import logging

import pytest
from transformers import TrainerState

from smt_hf.training import BpttTrainingArguments, DmtTrainingArguments, SmtTrainingArguments
from smt_hf.training.collapse import CollapseWarning, advice, count_below
from tests.training.conftest import logged

# only the dynamics loss, which is 0 where all memories are the same
COLLAPSE = {
    "dynamics_weight": 100.0,
    "uniformity_weight": 0.0,
    "decoding_weight": 0.0,
    "readout_weight": 0.0,
    "stream_weight": 0.0,
    "learning_rate": 3e-3,
    "drift_steps": 0,
    "logging_steps": 5,
}


@pytest.fixture
def warnings(caplog):
    """The warnings of collapse so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [r.getMessage() for r in caplog.records if r.name == "smt_hf.training.collapse"]


def test_a_collapsing_training_warns_once(make_smt, warnings):
    trainer = make_smt(**COLLAPSE, max_steps=80)
    trainer.train()
    (message,) = warnings()
    below = [value < 1e-3 for value in logged(trainer, "memory_variance")]
    first = below.index(True)
    assert below[first:] == [True] * len(below[first:]) and len(below[first:]) > 5
    assert f"from step {5 * (first + 1)} to {5 * (first + 5)}, below collapse_variance=0.001" in message
    assert "Raise uniformity_weight (now 0) or lower dynamics_weight (now 100), or set detach_teacher" in message
    assert "raise readout_weight or decoding_weight" in message
    assert logged(trainer, "effective_rank")[-1] > 2  # which would not have told


@pytest.mark.parametrize("mend", [{"uniformity_weight": 10.0}, {"detach_teacher": True, "readout_weight": 1.0}])
def test_what_the_warning_advises(make_smt, warnings, mend):
    trainer = make_smt(**{**COLLAPSE, **mend}, max_steps=80)
    trainer.train()
    assert not warnings()
    assert logged(trainer, "memory_variance")[-1] > 0.01


@pytest.mark.parametrize("kind", ["smt", "dmt", "bptt"])
def test_a_healthy_training_does_not_warn(make_smt, make_dmt, make_bptt, warnings, kind):
    make = {"smt": make_smt, "dmt": make_dmt, "bptt": make_bptt}[kind]
    trainer = make(max_steps=30, learning_rate=3e-3)
    trainer.train()
    assert not warnings()
    assert min(logged(trainer, "memory_variance")) > 5e-3


def test_thresholds_of_0_turn_it_off(make_smt, warnings):
    make_smt(**COLLAPSE, max_steps=60, collapse_variance=0.0, collapse_rank=0.0).train()
    assert not warnings()


@pytest.mark.parametrize("stop", [20, 60])
def test_a_resumed_training_warns_as_one_in_one_piece(make_smt, warnings, stop, caplog):
    """Stopped in the middle of the collapse, and after the warning."""
    options = {**COLLAPSE, "save_strategy": "steps", "save_steps": stop}
    make_smt(**options, max_steps=stop).train()
    assert len(warnings()) == (stop == 60)
    resumed = make_smt(**options, max_steps=80)
    resumed.train(resume_from_checkpoint=f"{resumed.args.output_dir}/checkpoint-{stop}")
    in_parts = warnings()
    caplog.clear()
    make_smt(**COLLAPSE, max_steps=80).train()
    assert len(in_parts) == 1 and in_parts == warnings()


def history(values, name="memory_variance", rates=None):
    rates = rates or [1e-3] * len(values)
    return [
        {"effective_rank": 9.0, name: value, "learning_rate": rate, "step": 10 * (index + 1)}
        for index, (value, rate) in enumerate(zip(values, rates, strict=True))
    ]


def test_what_counts():
    assert count_below([], "memory_variance", 1e-3) == 0
    assert count_below(history([0.0] * 4), "memory_variance", 1e-3) == 4
    assert count_below(history([0.0, 0.1, 0.0, 0.0]), "memory_variance", 1e-3) == 2
    assert count_below(history([0.0, float("nan"), 0.0]), "memory_variance", 1e-3) == 1
    assert count_below(history([1e-3]), "memory_variance", 1e-3) == 0
    warm_up = [1e-4, 2e-4, 3e-4, 3e-4, 2e-4]
    assert count_below(history([0.0] * 5, rates=warm_up), "memory_variance", 1e-3) == 2
    assert count_below([{"effective_rank": 1.0}], "memory_variance", 1e-3) == 0  # a batch of one memory


def warned_at(values, name, warnings):
    """The logs after which there is a warning."""
    entries, callback, steps = history(values, name), CollapseWarning(), []
    args = SmtTrainingArguments(output_dir="unused", use_cpu=True)
    for number in range(1, len(entries) + 1):
        known = len(warnings())
        callback.on_log(args, TrainerState(log_history=entries[:number]), None, logs=entries[number - 1])
        if len(warnings()) > known:
            steps.append(number)
    return steps


def test_a_line_and_a_second_collapse(warnings):
    assert warned_at([5.0, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 3.0], "effective_rank", warnings) == [6]
    assert "effective_rank was at most 1.1 from step 20 to 60, below collapse_rank=1.2" in warnings()[-1]
    assert "(its highest was 5, at step 10)" in warnings()[-1]
    assert warned_at([0.0] * 6 + [0.1] + [0.0] * 4, "memory_variance", warnings) == [5]
    assert warned_at([0.0] * 6 + [0.1] + [0.0] * 6, "memory_variance", warnings) == [5, 12]


def test_advice_fits_the_trainer(tmp_path):
    dmt = advice(DmtTrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    assert "teacher's memories collapsed too" in dmt and "dynamics_weight (now 10)" in dmt
    bptt = advice(BpttTrainingArguments(output_dir=str(tmp_path), use_cpu=True, learning_rate=0.5))
    assert bptt == "Lower learning_rate (now 0.5) or max_grad_norm (now 1)."
    smt = SmtTrainingArguments(output_dir=str(tmp_path), use_cpu=True, detach_teacher=True)
    assert "detach_teacher" not in advice(smt) and "readout_weight" not in advice(smt)
