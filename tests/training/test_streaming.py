"""Trainings on a corpus that is read as it comes go on where they stopped, however it is read."""

import shutil

import pytest
import torch

from smt_hf.cli.main import main
from smt_hf.data import TextStream
from smt_hf.errors import InputError
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from smt_hf.training.resume import numbered_checkpoints

from .conftest import COMMON, DMT, SMT, logged, model_for_bytes

SAVED = {**COMMON, "save_strategy": "steps", "save_steps": 3, "max_steps": 7, "per_device_train_batch_size": 4}
CARRIED = {"carry_memory": True, "bptt_horizon": 8}


@pytest.fixture(autouse=True)
def states_now_and_then(monkeypatch):
    monkeypatch.setattr("smt_hf.data.stream_loader.STATE_EVERY", 2)


@pytest.fixture
def make(stories, tokenizer, tmp_path):
    """A trainer of a kind on a stream."""

    def build(kind, **options):
        stream = TextStream(str(stories / "train.txt"), tokenizer, 32, num_readers=2, shuffle_buffer_size=8)
        options, joint = {"output_dir": str(tmp_path / "run"), **SAVED, **options}, model_for_bytes()
        if kind == "smt":
            return SmtTrainer(model=joint, args=SmtTrainingArguments(**SMT, **options), train_dataset=stream)
        if kind == "dmt":
            args, models = DmtTrainingArguments(**DMT, **options), (joint.export_student(), joint.teacher)
            return DmtTrainer(model=models[0], teacher=models[1], args=args, train_dataset=stream)
        args = BpttTrainingArguments(**options, **(CARRIED if kind == "carried" else {}))
        return BpttTrainer(model=joint.export_student(), args=args, train_dataset=stream)

    return build


@pytest.mark.parametrize("kind", ["smt", "dmt", "bptt", "carried"])
def test_resumed_equals_uninterrupted(make, kind, tmp_path):
    whole = make(kind)
    whole.train()
    expected = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    for checkpoint in numbered_checkpoints(tmp_path / "run")[:-1]:
        shutil.rmtree(checkpoint)
    assert [folder.name for folder in numbered_checkpoints(tmp_path / "run")] == ["checkpoint-3"]
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "run", kept)

    resumed = make(kind)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed) == logged(whole) and logged(resumed, "epoch") == logged(whole, "epoch")
    torch.testing.assert_close(dict(resumed.model.state_dict()), expected, rtol=0, atol=0)

    otherwise = make(kind, per_device_train_batch_size=2, gradient_accumulation_steps=2, dataloader_num_workers=2)
    otherwise.train(resume_from_checkpoint=str(kept / "checkpoint-3"))  # the same rows, dealt out otherwise
    assert logged(otherwise) == pytest.approx(logged(whole), rel=1e-4)


def test_other_readers_are_another_run(make):
    make("bptt", max_steps=3).train()
    other = make("bptt")
    other.train_dataset.num_readers = 4
    with pytest.raises(InputError, match="data.num_readers=2 then, 4 now"):
        other.train(resume_from_checkpoint=True)


def test_a_stream_has_no_end_of_its_own(make):
    with pytest.raises(InputError, match="pass max_steps or max_train_seconds"):
        make("smt", max_steps=-1)
    with pytest.raises(InputError, match="dispatch_batches is not supported with a streamed text"):
        make("smt", accelerator_config={"dispatch_batches": True})


def test_the_command_streams(recipes, stories, tmp_path, capsys):
    words = [
        "bptt",
        "--config",
        str(recipes["bptt"]),
        "--streaming",
        "true",
        "--save_strategy",
        "steps",
        "--save_steps",
        "2",
    ]
    words += ["--cache_dir", str(tmp_path / "cache"), "--output_dir", str(tmp_path / "run")]
    assert main(words) == 0
    assert len(list((tmp_path / "cache").glob("**/meta.json"))) == 1  # of the validation text
    assert (tmp_path / "run" / "checkpoint-2" / "text_stream.json").is_file()
    assert main([*words, "--resume", "true", "--num_readers", "2"]) == 2
    assert "data.num_readers=1 then, 2 now" in capsys.readouterr().err
    assert main([*words, "--overwrite", "true", "--max_steps", "-1", "--num_train_epochs", "1"]) == 2
    assert "streaming has no last window: pass max_steps or max_train_seconds" in capsys.readouterr().err
