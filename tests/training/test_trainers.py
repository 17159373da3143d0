"""What both trainers train, average, log and refuse."""

import copy
import time

import pytest
import torch

from smt_hf import SmtTeacherModel
from smt_hf.data import TokenWindows
from smt_hf.errors import InputError
from smt_hf.training import DmtTrainer, DmtTrainingArguments, SmtTrainingArguments
from tests.conftest import tiny_config
from tests.training.conftest import logged, model_for_bytes


def moved(model, before):
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(
    "options", [{}, {"muon": True}, {"segment_length": 4, "student_weight": 1.0}, {"detach_teacher": True}]
)
def test_smt_trains_every_parameter(make_smt, options):
    trainer = make_smt(**options)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()  # the initial memory follows the teacher's empty context
    assert moved(trainer.model, before) == set(before)


def test_the_papers_mode_trains(make_smt):
    model = model_for_bytes(encoder_attention="bidirectional")
    trainer = make_smt(
        model, num_transitions=1, num_decoded=1, full_context=True, stream_weight=0.0, readout_weight=0.0
    )
    before = copy.deepcopy(model.state_dict())
    trainer.train()
    assert moved(model, before) == set(before)
    assert "stream" not in trainer.state.log_history[0]


@pytest.mark.parametrize("options", [{}, {"muon": True}, {"rollout": "sequential"}, {"segment_length": 4}])
def test_dmt_trains_the_student_and_leaves_the_teacher(make_dmt, options):
    trainer = make_dmt(**options)
    before = copy.deepcopy(trainer.model.state_dict())
    teacher = copy.deepcopy(trainer.teacher.state_dict())
    trainer.train()
    assert set(before) - moved(trainer.model, before) == {"model.initial_memory"}
    assert not moved(trainer.teacher, teacher)


def test_detached_readout_trains_the_readout_alone(make_dmt):
    trainer = make_dmt(detach_readout=True, dynamics_weight=0.0, weight_decay=0.0)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in moved(trainer.model, before)} == {
        "model.decoder",
        "lm_head.weight",
    }


@pytest.mark.parametrize("kind", ["smt", "dmt"])
def test_training_lowers_the_loss(make_smt, make_dmt, kind):
    make = make_smt if kind == "smt" else make_dmt
    trainer = make(max_steps=30, learning_rate=3e-3)
    trainer.train()
    losses = logged(trainer)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("kind", ["smt", "dmt"])
def test_gradient_accumulation_equals_one_batch(make_smt, make_dmt, kind):
    make = make_smt if kind == "smt" else make_dmt
    runs = []
    for size, steps in ((8, 1), (2, 4)):
        trainer = make(per_device_train_batch_size=size, gradient_accumulation_steps=steps)
        trainer.train()
        runs.append(trainer)
    for name in ("loss", "grad_norm", "dynamics", "readout"):
        assert logged(runs[0], name) == pytest.approx(logged(runs[1], name), rel=1e-4), name
    for mine, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_every_term_is_logged(make_smt, make_dmt):
    smt, dmt = make_smt(segment_length=2, student_weight=1.0, uniformity_weight=0.1), make_dmt()
    smt.train()
    dmt.train()
    common = {"loss", "dynamics", "readout", "effective_rank", "memory_variance", "drift"}
    common |= {"transitions_per_second"}
    assert common | {"decoding", "uniformity", "stream", "student"} <= set(smt.state.log_history[0])
    assert common <= set(dmt.state.log_history[0])
    entry = smt.state.log_history[0]
    weights = {"decoding": 1, "dynamics": 0.1, "uniformity": 0.1, "readout": 1, "stream": 1, "student": 1}
    assert entry["loss"] == pytest.approx(sum(weight * entry[name] for name, weight in weights.items()), rel=1e-3)


def test_evaluation_reports_terms_and_a_cold_rollout(make_smt, cache):
    trainer = make_smt()
    trainer.eval_dataset = torch.utils.data.Subset(trainer.train_dataset, range(10))
    first, second = trainer.evaluate(), trainer.evaluate()
    for name in ("loss", "decoding", "dynamics", "readout", "stream", "cold_start_loss"):
        assert first[f"eval_{name}"] == second[f"eval_{name}"]


class Labelled(torch.utils.data.Dataset):
    """Sequences whose only target is the first token again, after the last."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = torch.randint(1, 5, (12,), generator=torch.Generator().manual_seed(index))
        labels = torch.full((12,), -100)
        labels[-1] = tokens[0]
        return {"input_ids": tokens, "shift_labels": labels}


def test_explicit_targets(make_smt, make_dmt):
    """Aligned labels, most of them ignored, in windows shorter than the context."""
    smt = make_smt(dataset=Labelled(), num_transitions=24, max_steps=40, learning_rate=3e-3)
    smt.train()
    assert logged(smt, "readout")[-1] < logged(smt, "readout")[0]
    dmt = make_dmt(smt.model, dataset=Labelled())
    dmt.train()
    assert logged(dmt, "readout")[-1] < 3


def test_not_a_number_stops_before_the_weights(make_smt):
    trainer = make_smt()
    with torch.no_grad():
        trainer.model.teacher.lm_head.weight[0, 0] = float("nan")
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(FloatingPointError, match="at step 1 .*lower learning_rate"):
        trainer.train()
    assert all(value.equal(before[name]) or value.isnan().any() for name, value in trainer.model.state_dict().items())


def test_clock_stops_and_the_schedule_follows_it(make_smt):
    trainer = make_smt(max_steps=-1, max_train_seconds=1.5, lr_scheduler_type="linear")
    start = time.monotonic()
    trainer.train()
    assert time.monotonic() - start < 30
    rates = logged(trainer, "learning_rate")
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]
    assert trainer.clock.elapsed >= 1.5


def test_a_resumed_run_has_the_time_that_is_left(make_smt):
    begun = make_smt(max_steps=2, max_train_seconds=1000, save_strategy="steps", save_steps=2)
    begun.train()
    used = begun.state.stateful_callbacks["TrainClock"]["args"]["elapsed"]
    resumed = make_smt(max_steps=100, max_train_seconds=0.9 * used, save_strategy="no")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 2  # nothing was left


def test_saved_student_knows_its_start(make_smt, tmp_path):
    trainer = make_smt()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    student = type(trainer.model).from_pretrained(tmp_path / "saved").student
    empty = trainer.model.teacher.encode(torch.zeros(1, 1, dtype=torch.long), torch.tensor([-1]))[0, 0]
    torch.testing.assert_close(student.initial_memory, empty, rtol=0, atol=1e-5)
    assert student.config.use_cache


@pytest.mark.parametrize(
    "kind, values, message",
    [
        (SmtTrainingArguments, {"num_transitions": 0}, "num_transitions=0"),
        (SmtTrainingArguments, {"num_transitions": 25, "context_length": 24}, "context_length=24 .*: lower it to 24"),
        (
            SmtTrainingArguments,
            {"num_transitions": 64, "context_length": 34, "segment_length": 4},
            "num_transitions=64 is more than context_length=34 holds in segments of segment_length=4: lower it to 32",
        ),
        (SmtTrainingArguments, {"segment_length": 3, "num_transitions": 8}, "segment_length=3 does not divide"),
        (SmtTrainingArguments, {"pinned_columns": [256]}, "pinned_columns: 256 lies outside context_length=256"),
        (SmtTrainingArguments, {"dynamics_weight": -1.0}, "dynamics_weight=-1.0"),
        (SmtTrainingArguments, {"max_train_seconds": 0.0}, "max_train_seconds=0.0"),
        (SmtTrainingArguments, {"train_clock": "sun"}, "'sun'"),
        (SmtTrainingArguments, {"collapse_variance": -1.0}, "collapse_variance=-1.0 must be at least 0"),
        (
            DmtTrainingArguments,
            {"collapse_rank": float("nan")},
            "collapse_rank=nan must be a finite number, at least 0",
        ),
        (DmtTrainingArguments, {"rollout": "loop"}, "'loop'"),
        (DmtTrainingArguments, {"rollout_length": 999}, "rollout_length=999 exceeds context_length=256"),
        (DmtTrainingArguments, {"segment_length": 5}, "segment_length=5 does not divide"),
        (DmtTrainingArguments, {"num_sweeps": [-1]}, r"num_sweeps=\[-1\]"),
        (DmtTrainingArguments, {"cold_start_probability": 2.0}, "cold_start_probability=2.0"),
    ],
)
def test_arguments_that_cannot_work(kind, values, message, tmp_path):
    with pytest.raises(InputError, match=message):
        kind(output_dir=str(tmp_path), use_cpu=True, **values)


def test_a_teacher_that_does_not_fit(make_dmt, tmp_path):
    student = model_for_bytes().export_student()
    teacher = SmtTeacherModel(tiny_config(vocab_size=258, num_memory_tokens=5).teacher_config)
    arguments = DmtTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(InputError, match="teacher num_memory_tokens=5 but student num_memory_tokens=3"):
        DmtTrainer(model=student, teacher=teacher, args=arguments)


def test_stream_loss_needs_a_causal_encoder(make_smt):
    with pytest.raises(InputError, match="stream_weight=1.0 needs a causal encoder"):
        make_smt(model_for_bytes(encoder_attention="bidirectional"))


@pytest.mark.parametrize("bad", [258, -1])
def test_a_token_id_outside_the_vocabulary(make_smt, bad):
    dataset = [{"input_ids": torch.full((32,), bad)}] * 8
    with pytest.raises(InputError, match=f"token id {bad} is outside the model's vocabulary of 258"):
        make_smt(dataset=dataset).train()


def test_windows_shorter_than_a_segment(make_smt):
    dataset = [{"input_ids": torch.zeros(3, dtype=torch.long)}] * 8
    with pytest.raises(InputError, match="windows of 3 tokens are shorter than segment_length=4"):
        make_smt(dataset=dataset, segment_length=4).train()


def test_smt_measures_rollouts_from_the_teachers_empty_context(make_smt, cache):
    trainer = make_smt(max_steps=2, drift_steps=8)
    trainer.train()
    model = trainer.model.eval()
    empty = model.teacher.encode(torch.zeros(1, 1, dtype=torch.long), torch.tensor([-1]))[0, 0]
    torch.testing.assert_close(model.student.initial_memory, empty)
    with torch.no_grad():
        model.student.model.initial_memory.normal_()
    trainer.evaluate(TokenWindows(cache, 32))
    torch.testing.assert_close(model.student.initial_memory, empty)


@pytest.mark.parametrize(
    "lengths, expected",
    [
        ({}, 32),
        ({"context_length": 24}, 24),
        ({"segment_length": 5}, 30),
        ({"context_length": 24, "segment_length": 5}, 20),
        ({"segment_length": 48}, 48),
        ({"segment_length": 7, "full_context": True}, 7),
    ],
)
def test_transitions_by_default(lengths, expected, tmp_path):
    assert SmtTrainingArguments(str(tmp_path), use_cpu=True, **lengths).num_transitions == expected
