"""Runs: what they train on and from, what they leave behind, and how they go on after a stop."""

import json

import pytest
import torch
from transformers import set_seed

from smt_hf import SmtForPreTraining
from smt_hf.checkpoints import load_joint, load_student
from smt_hf.comparison import run_shared_stages, run_student, runs
from smt_hf.comparison.task_subject import row_seed
from smt_hf.comparison.trace import Trace, even_shares
from smt_hf.errors import InputError
from smt_hf.evaluation import evaluate_on_task
from smt_hf.evaluation.tasks import EVALUATION_SEED
from smt_hf.tasks import TaskDataset
from smt_hf.training.callbacks import TrainClock
from smt_hf.training.memory_trainer import MemoryTrainer
from tests.comparison.conftest import TINY, tiny

RUN = ("transformer", 12, 0)


def stage_folder(folder, name):
    rows = "every-length" if name == "short" else "length-12"
    return folder / "transformer" / rows / "seed-0" / name


def untimed(results):
    """Results without what a clock says."""
    timed = ("cpu_seconds", "wall_seconds")
    traces = [[{k: v for k, v in point.items() if k not in timed} for point in r["trace"]] for r in results]
    logs = [[{k: v for k, v in entry.items() if "per_second" not in k} for entry in r["log"]] for r in results]
    return [{**r, "trace": trace, "log": log} for r, trace, log in zip(results, traces, logs, strict=True)]


def test_every_stage_is_measured_and_saved(comparison_run):
    folder, results = comparison_run
    assert [result["settings"]["stages"][-1]["name"] for result in results] == list(TINY["stages"])
    for name, result in zip(TINY["stages"], results, strict=True):
        written = json.loads((stage_folder(folder, name) / "result.json").read_text())
        assert written == result
        last, length = result["trace"][-1], 8 if name == "short" else 12
        assert (last["steps"], last["tokens"]) == (3, 3 * 4 * length)
        assert last["flops"] > last["sequential_flops"] > 0
        if name == "short":  # a step of a curriculum
            assert len(result["trace"]) == 1 and "student" not in result
            continue
        assert [point["steps"] for point in result["trace"]] == [2, 3]
        taught, is_smt = name != "bptt", name == "smt"
        assert set(result["student"]) == {"12", "24"}
        assert ("drift" in result) == taught and ("teacher" in result) == is_smt
        assert ("initial_gradient_norms" in result) == (name == "bptt")
        assert len(result["gradient_norms"]) == 17
        assert len(result["memory_space"]["points"]) == 64 and len(result["memory_space"]["explained"]) == 2
        if taught:
            assert len(result["drift"]) == 12
        if is_smt:
            assert len(result["transition_gradient_norms"]) == 16


def test_the_saved_student_is_the_measured_one(comparison_run):
    folder, results = comparison_run
    for name, result in list(zip(TINY["stages"], results, strict=True))[1:]:
        student = load_student(str(stage_folder(folder, name))).eval()
        assert evaluate_on_task(student, tiny().load_task(12), 16) == pytest.approx(result["student"]["12"])
    assert load_joint(str(stage_folder(folder, "smt"))).teacher.config.vocab_size == 5


def test_every_stage_goes_on_from_the_one_before(comparison_run):
    """Three small steps move the weights less than another initialisation would."""
    folder, _ = comparison_run

    def weights(name):
        student = load_student(str(stage_folder(folder, name)))
        return torch.cat([parameter.flatten() for parameter in student.model.cell.parameters()])

    for name, fields in TINY["stages"].items():
        if "after" in fields:
            before, after = weights(fields["after"]), weights(name)
            assert not before.equal(after)
            assert (after - before).abs().max() < 3 * 3e-3 * 1.1


def test_finished_stages_are_not_trained_again(comparison_run, monkeypatch):
    folder, results = comparison_run
    monkeypatch.setattr(runs, "run_stage", lambda *args: pytest.fail("trained again"))
    assert run_student(tiny(), *RUN, str(folder)) == results
    assert run_student(tiny(only=["dmt"]), *RUN, str(folder)) == results[:3]


def test_killed_and_started_again_equals_uninterrupted(comparison_run, tmp_path, monkeypatch):
    """Without the rest of the recipe, too: a result depends on the stages that it went through alone."""
    folder, results = comparison_run
    train, trained = MemoryTrainer.train, []

    def killed(trainer, *args, **kwargs):
        trained.append(trainer)
        if len(trained) == 2:
            trainer.save_model()  # what lies in the folder is not what should
            raise KeyboardInterrupt
        return train(trainer, *args, **kwargs)

    monkeypatch.setattr(MemoryTrainer, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run_student(tiny(only=["dmt"]), *RUN, str(tmp_path))
    assert (stage_folder(tmp_path, "smt") / "model.safetensors").exists()
    assert not (stage_folder(tmp_path, "smt") / "result.json").exists()
    again = run_student(tiny(only=["dmt"]), *RUN, str(tmp_path))
    assert len(trained) == 4  # short, smt broken off, smt, dmt
    assert untimed(again) == untimed(results[:3])
    for name in ("short", "smt", "dmt"):
        mine, other = (load_student(str(stage_folder(root, name))).state_dict() for root in (tmp_path, folder))
        assert all(mine[key].equal(other[key]) for key in other)


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"training": {**TINY["training"], "learning_rate": 1e-2}},
            "stages.0.arguments.learning_rate: 0.003, now 0.01",
        ),
        ({"eval_rows": 32}, "eval_rows: 16, now 32"),
        ({"task_options": {"num_symbols": 5}}, "task_options.num_symbols: 4, now 5"),
        ({"student": {"num_updater_layers": 2}}, "config.student_config.num_updater_layers: 1, now 2"),
        ({"eval_factors": [1]}, r"eval_factors: \[1, 2\], now \[1\]"),
        ({"gradient_length": 24}, "gradient_length: 16, now 24"),
    ],
)
def test_other_settings_are_refused(changes, words, comparison_run):
    with pytest.raises(InputError, match=f"short/result.json' was made with different settings .{words}.*output_dir"):
        run_student(tiny(**changes), *RUN, str(comparison_run[0]))


def test_another_budget_is_refused(comparison_run):
    with pytest.raises(InputError, match="length-12/seed-0/smt/result.json' was made .* .cpu_seconds: 60.0, now 30"):
        run_student(tiny(cpu_seconds=[30]), *RUN, str(comparison_run[0]))


def test_other_stages_do_not_matter(comparison_run):
    folder, results = comparison_run
    stages = {name: fields for name, fields in TINY["stages"].items() if name != "finetune"}
    stages["bptt"] = {**stages["bptt"], "weight_decay": 0.5}
    assert run_student(tiny(stages=stages, only=["dmt"]), *RUN, str(folder)) == results[:3]
    with pytest.raises(InputError, match="bptt/result.json.*stages.0.arguments.weight_decay: None, now 0.5"):
        run_student(tiny(stages=stages), *RUN, str(folder))


def test_lengths_share_steps_with_rows_and_budget_of_their_own(comparison_run, tmp_path, monkeypatch):
    """Trained first, or by another length, they are the same."""
    folder, results = comparison_run
    both = {"lengths": [16, 12], "cpu_seconds": [60, 60], "only": ["dmt"]}
    assert untimed(run_shared_stages(tiny(**both), "transformer", 0, str(tmp_path))) == untimed(results[:1])
    trained = []
    run_stage = runs.run_stage
    monkeypatch.setattr(runs, "run_stage", lambda run, stage: trained.append(stage.name) or run_stage(run, stage))
    for length in (16, 12):
        last = run_student(tiny(**both), "transformer", length, 0, str(tmp_path))
    assert trained == ["smt", "dmt", "smt", "dmt"]
    assert untimed(last) == untimed(results[:3])


@pytest.mark.parametrize(
    "changes, stage, shared",
    [
        ({}, "short", True),
        ({}, "smt", False),  # rows of the comparison's length
        ({"training": {"max_train_seconds": 5}}, "short", True),
        ({"training": {}}, "short", False),  # a share of the budget, which may be each length's own
        (
            {"training": {}, "stages": {"short": {"trainer": "smt", "length": 8, "max_train_seconds": 5}}},
            "short",
            True,
        ),
        ({"training": {}, "stages": {"short": {"trainer": "smt", "length": 8, "max_steps": 5}}}, "short", True),
        ({"stages": {"smt": {}, "dmt_8": {"trainer": "dmt", "length": 8, "after": "smt"}}}, "dmt_8", False),
        ({"stages": {"short": {"trainer": "smt", "task_options": {"num_symbols": 3}}}}, "short", False),
    ],
)
def test_what_lengths_share(changes, stage, shared):
    comparison = tiny(**changes)
    (found,) = [other for other in comparison.all_stages() if other.name == stage]
    assert comparison.is_shared(found) == shared


def test_bptt_starts_from_the_weights_that_smt_starts_from(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def start(name):
        starts = []

        def stop(trainer):
            if hasattr(trainer.model, "set_initial_memory"):
                trainer.model.set_initial_memory()
            starts.append({key: value.clone() for key, value in trainer.student().state_dict().items()})
            raise Stop

        monkeypatch.setattr(MemoryTrainer, "train", stop)
        with pytest.raises(Stop):
            run_student(tiny(only=[name]), "transformer", 12, 5, str(tmp_path))
        return starts[0]

    smt, bptt = start("short"), start("bptt")
    assert smt.keys() == bptt.keys() and all(smt[key].equal(bptt[key]) for key in smt)
    set_seed(5)
    fresh = SmtForPreTraining(tiny().model_config("transformer", 12)).export_student().state_dict()
    assert all(fresh[key].equal(bptt[key]) for key in bptt)
    set_seed(6)
    other = SmtForPreTraining(tiny().model_config("transformer", 12)).export_student().state_dict()
    assert not other["lm_head.weight"].equal(bptt["lm_head.weight"])


def test_rows_of_stages_and_seeds():
    """No two trainings see the same rows, and none sees those of the evaluation."""
    stages = tiny().all_stages()
    seeds = [row_seed(seed, stage) for seed in range(3) for stage in stages]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 1 << 32
    task = tiny(task_options={"num_symbols": 8}).load_task(24)
    rows = {tuple(row.tolist()) for row in task.sample(512, EVALUATION_SEED)["input_ids"]}
    for seed in seeds:
        dataset = TaskDataset(task, 512, seed=seed)
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            drawn = {tuple(dataset[index]["input_ids"].tolist()) for index in range(512)}
            assert len(drawn) == 512 and not drawn & rows
            rows |= drawn


def test_a_data_set_of_the_evaluation_seed_has_its_rows():
    """Why a comparison's rows have seeds above 2 ** 32: numpy takes a number for itself and zeros."""
    task = tiny().load_task(12)
    row = TaskDataset(task, 256, seed=EVALUATION_SEED)[0]["input_ids"]
    assert row.equal(task.sample(256, EVALUATION_SEED)["input_ids"][0])


def test_the_clock_ends_a_stage_without_max_steps(tmp_path):
    training = {name: value for name, value in TINY["training"].items() if name != "max_steps"}
    comparison = tiny(training=training, cpu_seconds=[1.0], stages={"bptt": {"share": 0.4}})
    (result,) = run_student(comparison, *RUN, str(tmp_path))
    seconds = [point["cpu_seconds"] for point in result["trace"]]
    assert seconds == sorted(seconds) and 0.2 <= seconds[0] < 0.4 <= seconds[-1] < 1
    assert result["trace"][-1]["steps"] > 3


def test_accumulated_batches_are_spent(tmp_path):
    training = {**TINY["training"], "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    (result,) = run_student(tiny(training=training, only=["bptt"]), *RUN, str(tmp_path))
    assert result["trace"][-1]["tokens"] == 3 * 4 * 12


def test_a_loss_that_is_no_number_names_its_stage(tmp_path, monkeypatch):
    def diverged(*args):
        raise FloatingPointError("the loss became nan at step 1")

    monkeypatch.setattr(runs, "run_stage", diverged)
    with pytest.raises(
        FloatingPointError, match="stage 'short' of transformer, every length, seed 0: the loss became nan"
    ):
        run_student(tiny(), *RUN, str(tmp_path))


class Step:
    """A trainer's state and control after a step."""

    def __init__(self, step, max_steps):
        self.global_step, self.max_steps, self.should_training_stop = step, max_steps, step == max_steps


@pytest.mark.parametrize(
    "elapsed, measured",
    [([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [3, 5, 8, 10]), ([6, 7, 8, 9, 10], [1, 3, 5]), ([11], [1])],
)
def test_a_trace_has_even_shares_of_the_time(elapsed, measured):
    clock = TrainClock(10.0)
    trace = Trace(clock, lambda: {"loss": 1.0}, even_shares(4))
    trace.on_train_begin(None, None, None)
    for step, clock.elapsed in enumerate(elapsed, start=1):
        state = Step(step, len(elapsed))
        trace.on_step_end(None, state, state)
    assert [point["steps"] for point in trace.points] == measured


def test_a_trace_without_a_limit_has_even_shares_of_the_steps():
    trace = Trace(TrainClock(), lambda: {"loss": 1.0}, even_shares(3))
    trace.on_train_begin(None, None, None)
    for step in range(1, 9):
        trace.on_step_end(None, Step(step, 8), Step(step, 8))
    assert [point["steps"] for point in trace.points] == [3, 6, 8]
