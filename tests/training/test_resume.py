"""A resumed run goes on exactly, or not at all."""

import json
import logging
import shutil

import pytest
import torch

from smt_hf.data import TokenWindows
from smt_hf.errors import InputError
from smt_hf.training.resume import MANIFEST, STATE, numbered_checkpoints

from .conftest import logged, model_for_bytes

SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.fixture
def run(make_bptt, tmp_path):
    """A run of four steps with checkpoints after two and four, and a maker of trainers in its folder."""

    def make(**options):
        torch.manual_seed(0)
        return make_bptt(
            model_for_bytes(seed=1).export_student(), output_dir=str(tmp_path / "run"), **{**SAVED, **options}
        )

    begun = make()
    begun.train()
    make.weights, make.folder = weights(begun), tmp_path / "run"
    return make


def test_a_finished_run_does_nothing_more(run):
    before = {file: file.read_bytes() for file in run.folder.glob("checkpoint-*/*") if file.is_file()}
    trainer = run()
    result = trainer.train(resume_from_checkpoint=True)
    assert result.global_step == 4 and trainer.state.global_step == 4
    torch.testing.assert_close(weights(trainer), run.weights, rtol=0, atol=0)
    assert {file: file.read_bytes() for file in run.folder.glob("checkpoint-*/*") if file.is_file()} == before
    assert len(logged(trainer)) == 4 and not logged(trainer, "train_loss")[1:]


def test_a_run_that_goes_on_for_longer(run):
    torch.manual_seed(5)  # of no matter
    longer = run(max_steps=6)
    longer.train(resume_from_checkpoint=True)
    whole = run(max_steps=6, save_strategy="no")
    whole.train()
    torch.testing.assert_close(weights(longer), weights(whole), rtol=0, atol=0)
    assert longer.changes == [{"step": 4, "settings": {"max_steps": [4, 6]}}]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"seed": 7}, r"seed=42 then, 7 now.* accept_changes seed"),
        ({"weight_decay": 0.5}, "weight_decay=0.01 then, 0.5 now"),
        ({"muon": True}, "muon=False then, True now"),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type='constant_with_warmup' then, 'cosine' now"),
        ({"warmup_steps": 0.5}, "warmup_steps=0 then, 0.5 now|warmup_steps=0.0 then"),
        ({"context_length": 12}, "context_length=24 then, 12 now; data.window_length=25 then, 13 now"),
        ({"bptt_horizon": 8}, "bptt_horizon=None then, 8 now"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=1 then, 2 now"),
        ({"per_device_train_batch_size": 4}, "per_device_train_batch_size=8 then, 4 now"),
        ({"train_start": False}, "train_start=True then, False now"),
        ({"adam_beta2": 0.9}, "adam_beta2=0.95 then, 0.9 now"),
        ({"data_seed": 3}, "data_seed=None then, 3 now"),
    ],
)
def test_changed_settings_are_refused_with_both_values(run, options, message):
    with pytest.raises(InputError, match=message):
        run(**options).train(resume_from_checkpoint=True)


def test_other_sizes_weights_methods_and_texts(run, make_bptt, make_smt, cache):
    folder = {"output_dir": str(run.folder), **SAVED}
    other = model_for_bytes(hidden_size=64).export_student()
    with pytest.raises(InputError, match="model.hidden_size=32 then, 64 now.*pass those of the checkpoint$"):
        make_bptt(other, **folder).train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="model.hidden_size"):
        make_bptt(other, accept_changes=["model"], **folder).train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="comes from a training by BPTT, not by SMT"):
        smt = make_smt(**SAVED)
        smt.args.output_dir = str(run.folder)
        smt.train(resume_from_checkpoint=True)
    text = TokenWindows(cache, 25, seed=3)
    with pytest.raises(InputError, match="data.seed=0 then, 3 now"):
        make_bptt(model_for_bytes().export_student(), dataset=text, **folder).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("rows", [[{"input_ids": [5] * 25}] * 40, [{"input_ids": [6] * 25}] * 39])
def test_other_rows_of_any_data_set(make_bptt, tmp_path, rows):
    def make(data):
        return make_bptt(model_for_bytes().export_student(), dataset=data, output_dir=str(tmp_path / "rows"), **SAVED)

    make([{"input_ids": [5] * 25}] * 39).train()
    with pytest.raises(InputError, match="data.(rows|sample)=.* then"):
        make(rows).train(resume_from_checkpoint=True)


def test_another_teacher(make_dmt):
    make_dmt(model_for_bytes(seed=0), **SAVED).train()
    with pytest.raises(InputError, match="teacher='.*' then"):
        make_dmt(model_for_bytes(seed=1), **SAVED).train(resume_from_checkpoint=True)


def test_changes_that_are_accepted_are_recorded(run):
    trainer = run(seed=7, max_steps=6, accept_changes=["seed"])
    trainer.train(resume_from_checkpoint=True)
    changed = {"seed": [42, 7], "max_steps": [4, 6]}
    assert trainer.state.global_step == 6 and trainer.changes == [{"step": 4, "settings": changed}]
    further = run(seed=7, max_steps=7)
    further.train(resume_from_checkpoint=True)
    assert further.changes == [*trainer.changes, {"step": 6, "settings": {"max_steps": [6, 7]}}]


@pytest.mark.parametrize("schedule", ["constant_with_warmup", "linear", "cosine"])
def test_another_learning_rate_is_what_the_run_goes_on_with(run, make_bptt, tmp_path, schedule):
    """As the message on a loss that is no number advises."""

    def make(rate, **options):
        student = model_for_bytes(seed=1).export_student()
        folder = str(tmp_path / schedule)
        more = {**SAVED, "max_steps": 8, "learning_rate": rate, "lr_scheduler_type": schedule, **options}
        return make_bptt(student, output_dir=folder, **more)

    make(0.01).train()
    for checkpoint in ("checkpoint-8", "checkpoint-6"):
        shutil.rmtree(tmp_path / schedule / checkpoint)
    expected = [rate / 4 for rate in logged(make_and_train(make(0.01, save_strategy="no")), "learning_rate")[4:]]
    resumed = make(0.0025, max_grad_norm=0.5)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "learning_rate")[4:] == pytest.approx(expected)
    assert resumed.changes[0]["settings"] == {"learning_rate": [0.01, 0.0025], "max_grad_norm": [1.0, 0.5]}


def make_and_train(trainer):
    trainer.train()
    return trainer


DAMAGES = {
    "weights cut": lambda folder: cut(folder / "model.safetensors"),
    "weights gone": lambda folder: (folder / "model.safetensors").unlink(),
    "one bit of the weights": lambda folder: flip(folder / "model.safetensors"),
    "optimizer empty": lambda folder: (folder / "optimizer.pt").write_bytes(b""),
    "one bit of the optimizer": lambda folder: flip(folder / "optimizer.pt"),
    "scheduler cut": lambda folder: cut(folder / "scheduler.pt"),
    "random state gone": lambda folder: (folder / "rng_state.pth").unlink(),
    "state cut": lambda folder: cut(folder / STATE),
    "state {}": lambda folder: (folder / STATE).write_text("{}"),
    "state gone": lambda folder: (folder / STATE).unlink(),
    "manifest gone": lambda folder: (folder / MANIFEST).unlink(),
    "manifest []": lambda folder: (folder / MANIFEST).write_text("[]"),
    "config cut": lambda folder: cut(folder / "config.json"),
}


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(run, caplog, damage):
    DAMAGES[damage](run.folder / "checkpoint-4")
    trainer = run()
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=True)
    assert "checkpoint-4' cannot be resumed from" in caplog.text and "continuing from checkpoint-2" in caplog.text
    torch.testing.assert_close(weights(trainer), run.weights, rtol=0, atol=0)


def test_no_whole_checkpoint_and_one_asked_for_by_name(run):
    for name in ("checkpoint-2", "checkpoint-4"):
        cut(run.folder / name / "model.safetensors")
    with pytest.raises(
        InputError, match="checkpoint-4.* model.safetensors is damaged; .*contains no complete checkpoint"
    ):
        run().train(resume_from_checkpoint=True)
    with pytest.raises(InputError, match="checkpoint-2' cannot be resumed from: model.safetensors is damaged"):
        run().train(resume_from_checkpoint=str(run.folder / "checkpoint-2"))


def test_a_checkpoint_without_optimizer(make_bptt, tmp_path):
    options = {**SAVED, "output_dir": str(tmp_path / "bare")}
    make_bptt(save_only_model=True, **options).train()
    with pytest.raises(InputError, match="without what resuming needs .save_only_model"):
        make_bptt(**options).train(resume_from_checkpoint=True)


def test_odd_names_are_no_checkpoints(run):
    for name in ("checkpoint-best", "checkpoint-10x", "checkpoint--7", "checkpoint-", "my-checkpoint-9"):
        shutil.copytree(run.folder / "checkpoint-2", run.folder / name)
    (run.folder / "checkpoint-99").write_text("a file")
    assert [path.name for path in numbered_checkpoints(run.folder)] == ["checkpoint-4", "checkpoint-2"]
    trainer = run()
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4


def test_the_last_file_makes_a_checkpoint_whole(run):
    """Whatever is written before `trainer_state.json` is in the manifest."""
    folder = run.folder / "checkpoint-4"
    listed = set(json.loads((folder / MANIFEST).read_text())["files"])
    assert listed == {file.name for file in folder.iterdir()} - {MANIFEST, STATE}
    times = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert max(times, key=times.get) == STATE


def test_rows_dealt_out_otherwise(make_bptt, tmp_path):
    """Streams belong to rows of a step, not to batches or processes."""

    def make(batch, accumulated, steps, name="dealt"):
        rows = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, "max_steps": steps}
        options = {**SAVED, **rows, "carry_memory": True, "bptt_horizon": 8, "output_dir": str(tmp_path / name)}
        return make_bptt(model_for_bytes(seed=1).export_student(), **options)

    make(4, 1, 4).train()
    shutil.rmtree(tmp_path / "dealt" / "checkpoint-4")
    for batch, accumulated in ((2, 2), (1, 4)):
        resumed = make(batch, accumulated, 6)
        resumed.train(resume_from_checkpoint=str(tmp_path / "dealt" / "checkpoint-2"))
        whole = make_and_train(make(4, 1, 6, "whole"))
        torch.testing.assert_close(weights(resumed), weights(whole), rtol=1e-4, atol=1e-5)
        assert "per_device_train_batch_size" in resumed.changes[-1]["settings"]
    with pytest.raises(InputError, match="per_device_train_batch_size=4 then, 8 now"):
        make(8, 1, 6).train(resume_from_checkpoint=str(tmp_path / "dealt" / "checkpoint-2"))


def test_evaluations_change_nothing(make_smt, cache):
    """What a step draws depends on the seed and the step alone, so that evaluating more or less often trains the same."""
    held_out = torch.utils.data.Subset(TokenWindows(cache, 32), range(16))

    def train(**options):
        options = {"uniformity_weight": 0.5, "max_steps": 4, "per_device_train_batch_size": 64, **options}
        trainer = make_smt(model_for_bytes(seed=1), eval_dataset=held_out, **options)
        trainer.train()
        return weights(trainer)

    torch.testing.assert_close(train(), train(eval_strategy="steps", eval_steps=1), rtol=0, atol=0)
