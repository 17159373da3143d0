"""Teachers on language models in a comparison: what is trained on what, and what it costs."""

import pytest
import torch
from transformers import set_seed

from smt_hf.checkpoints import load_backbone, load_joint, load_student
from smt_hf.comparison import run_student, write_corpus_report
from smt_hf.comparison.backbones import language_model_losses, new_config
from smt_hf.comparison.corpus_report import free_of_backbones, read_rows, runs_of
from smt_hf.comparison.flops import position_flops, sequential_flops
from smt_hf.comparison.results import BUDGETS
from smt_hf.comparison.runs import Run, new_trainer, sample_batches
from smt_hf.comparison.stages import Stage
from smt_hf.errors import InputError
from tests.backbones import language_model
from tests.comparison.corpora import images, text
from tests.comparison.test_flops import encoding, readout

LM = {"model": {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}}
STAGES = {
    "lm": {**LM, "cells": ["transformer"]},
    "teacher": {"trainer": "smt", "after": "lm", "shown": False, "num_transitions": 4, "dynamics_weight": 0.0},
    "dmt": {
        **{"after": "teacher", "label": "teacher first → DMT", "rollout": "carried", "segment_length": 4},
        **{"teacher_lead": 4, "kd_weight": 1.0},
    },
    "bptt": {"label": "BPTT"},
    "distilled": {"trainer": "bptt", "after": "lm", "label": "BPTT, distilled", "kd_weight": 0.5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A comparison, its folder, and the results of its one run."""
    folder = tmp_path_factory.mktemp("backbone")
    comparison = text(folder, stages=STAGES)
    comparison.subject.open()
    return comparison, folder / "out", run_student(comparison, "transformer", 1.0, 0, str(folder / "out"))


def place(folder, name):
    return str(folder / "transformer" / "data-1" / "seed-0" / name)


def test_the_teacher_is_built_on_the_language_model(run):
    """Which stays as it was, and the student that follows is the teacher's."""
    _, folder, _ = run
    lm, joint = load_backbone(place(folder, "lm")), load_joint(place(folder, "teacher"))
    kept = joint.teacher.backbone.state_dict()
    assert all(kept[name].equal(value) for name, value in lm.state_dict().items())
    assert joint.teacher.config.backbone_config.hidden_size == 24
    student = load_student(place(folder, "dmt"))
    assert student.config.hidden_size == 16


def test_what_is_on_the_way_is_spent_and_stands_in_no_table(run):
    _, folder, results = run
    write_corpus_report(str(folder))
    rows = read_rows(folder / "results.csv")
    runs = {each["method"]: each for each in runs_of(rows)}
    assert set(runs) == {"teacher first → DMT", "BPTT", "BPTT, distilled"}
    ends = [result["trace"][-1] for result in results[:3]]
    path = runs["teacher first → DMT"]["path"]
    assert path[-1]["flops"] == pytest.approx(sum(end["flops"] for end in ends))
    assert path[-1]["steps"] == 9
    free = {each["method"]: each["path"][-1] for each in free_of_backbones(list(runs.values()))}
    assert set(free) == {"teacher first → DMT", "BPTT, distilled"}
    for method, end in free.items():
        for name in BUDGETS:
            assert end[name] == pytest.approx(runs[method]["path"][-1][name] - ends[0][name])
    assert "The same without the cost of the language model" in (folder / "results.md").read_text(encoding="utf-8")


def test_a_segment_of_every_row_is_read_in_a_step(run):
    """A window has three segments, of which only rows that begin one let the teacher encode."""
    comparison, folder, results = run
    assert results[2]["trace"][-1]["tokens"] == 3 * 4 * 4
    arguments = comparison.arguments(comparison.all_stages()[2], 1.0, 0, str(folder / "again"))
    work = Run(comparison, "transformer", 1.0, 0, str(folder))
    stages = comparison.all_stages()
    data = comparison.subject.data(stages[2], 1.0, 0, arguments)
    trainer = new_trainer(work, stages[2], stages[1], args=arguments, **data)
    assert len(sample_batches(trainer)) == 1 + 12 // 4


def test_the_loss_of_a_language_model(run):
    comparison, folder, results = run
    model = load_backbone(place(folder, "lm"))
    loss = comparison.subject.measure(model, comparison.all_stages()[0], 1.0)
    assert loss["loss"] == pytest.approx(results[0]["trace"][-1]["loss"]) and loss["rows"] == 6


def test_bptt_learns_from_the_language_model(run):
    """It begins as the student of the teacher on that language model does, and the language model stays as it was."""
    comparison, folder, _ = run
    lm, teacher, *_, distilled = comparison.all_stages()
    work, made = Run(comparison, "transformer", 1.0, 0, str(folder)), {}
    for stage in (teacher, distilled):
        arguments = comparison.arguments(stage, 1.0, 0, str(folder / "again"))
        data = comparison.subject.data(stage, 1.0, 0, arguments)
        set_seed(0)
        made[stage.name] = new_trainer(work, stage, lm, args=arguments, **data)
    trainer = made["distilled"]
    begun = made["teacher"].model.export_student().state_dict()
    assert all(value.equal(begun[name]) for name, value in trainer.student().state_dict().items())
    kept = trainer.backbone.state_dict()
    assert all(kept[name].equal(value) for name, value in load_backbone(place(folder, "lm")).state_dict().items())
    ids = sample_batches(trainer)[0]["input_ids"][:, :12]
    read = sequential_flops(trainer, ids)
    backbone, trainer.backbone = trainer.backbone, None
    assert read - sequential_flops(trainer, ids) == pytest.approx(position_flops(backbone, ids))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_losses_of_a_language_model_token_by_token(name):
    """Every document from its start; without a bos token its first token counts nothing."""
    model = language_model(name)
    ids = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[0] * 4 + [1] * 5, [0] * 9])
    losses = language_model_losses(model, ids, documents)
    bos = model.config.bos_token_id
    for row, (start, end) in ((0, (0, 4)), (0, (4, 9)), (1, (0, 9))):
        part = ids[row, start:end]
        inputs = part if bos is None else torch.cat([torch.tensor([bos]), part])
        logits = model(inputs[None]).logits[0].log_softmax(dim=-1)
        first = int(bos is None)
        expected = [-logits[i - first, part[i]].item() for i in range(first, len(part))]
        assert losses[row, start + first : end].tolist() == pytest.approx(expected, rel=1e-4)
        assert bos is not None or losses[row, start] == 0


def test_a_backbone_from_elsewhere(tmp_path):
    language_model(vocab_size=258, dtype=torch.float32).save_pretrained(tmp_path / "lm")
    stages = {"smt": {"backbone": str(tmp_path / "lm"), "num_transitions": 4, "shown": True, "label": "SMT"}}
    comparison = text(tmp_path, stages=stages)
    comparison.subject.open()
    (result,) = run_student(comparison, "transformer", 1.0, 0, str(tmp_path / "out"))
    assert result["settings"]["stages"][0]["backbone"] == "lm"
    assert result["settings"]["config"]["teacher_config"]["backbone_config"]["hidden_size"] == 48


def test_sequential_flops_by_hand(run):
    """A frozen backbone is passed once, its registers and the readout forward and backward; no student runs."""
    comparison, folder, _ = run
    lm, teacher = comparison.all_stages()[:2]
    work, found = Run(comparison, "transformer", 1.0, 0, str(folder)), {}
    for stage, before in ((lm, None), (teacher, lm)):
        arguments = comparison.arguments(stage, 1.0, 0, str(folder / "again"))
        data = comparison.subject.data(stage, 1.0, 0, arguments)
        trainer = new_trainer(work, stage, before, args=arguments, **data)
        found[stage.name] = sequential_flops(trainer, sample_batches(trainer)[0]["input_ids"][:, :12])
    layer = 2 * (4 * 24 * 24 + 3 * 24 * 32)
    position = layer + 4 * 24 * 13  # attention over the tokens and the bos token
    assert found["lm"] == pytest.approx(3 * (position + 2 * 24 * 258))
    registers = encoding(2, 12) + 13 * 2 * 24 * 16 * 2 / (12 + 2 * 12)  # and their share of the projection
    read = readout(2) - 2 * 16 * 5 + 2 * 16 * 258
    assert found["teacher"] == pytest.approx(position + 3 * (registers + read))


def test_images(tmp_path):
    stages = {**STAGES, "dmt": {**STAGES["dmt"], "teacher_lead": 0}}
    comparison = images(tmp_path, stages=stages, only=["dmt"])
    comparison.subject.open()
    results = run_student(comparison, "transformer", 1.0, 0, str(tmp_path / "out"))
    assert results[0]["trace"][-1]["loss"] > 0 and results[2]["trace"][-1]["tokens"] == 3 * 4 * 4


def test_a_language_model_has_the_dropout_that_its_stage_names():
    """None by default, as `smt-hf lm` has it; GPT-2's own is 0.1."""
    sizes = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "resid_pdrop": 0.2}
    config = new_config(Stage("lm", "lm", model=sizes), {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 0}, 8)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.2, 0.0, 0.0)


@pytest.mark.parametrize(
    "stages, words",
    [
        ({"lm": {"model": {"model_type": "lama"}}}, "stage 'lm': model_type='lama' is not a causal language model"),
        ({"lm": {"model": {"layers": 3}}}, "stage 'lm': model: unknown field 'layers' of a llama"),
        ({"lm": {"model": {"hidden_size": 15, "num_attention_heads": 2}}}, "stage 'lm': "),
        ({"lm": LM, "dmt": {"after": "lm"}}, "stage 'dmt' cannot continue the language model 'lm'"),
        ({"smt": {}, "lm": {"after": "smt"}}, "stage 'lm': a language model starts from nothing"),
        (
            {"smt": {}, "dmt": {"after": "smt", "backbone": "x"}},
            "stage 'dmt': backbone is for an SMT or BPTT stage that",
        ),
        ({"bptt": {"kd_weight": 1.0}}, "stage 'bptt': kd_weight=1 needs a language model to learn from: start with"),
        ({"smt": {"kd_weight": 1.0}}, "stage 'smt': kd_weight=1 needs a language model to learn from: start with"),
        ({"bptt": {"backbone": "x"}}, "stage 'bptt': nothing is learned from its language model: raise kd_weight"),
        (
            {"lm": LM, "bptt": {"after": "lm"}},
            "stage 'bptt': nothing is learned from its language model: raise kd_weight",
        ),
        ({"smt": {"backbone": 3}}, "stage 'smt': backbone=3 must be a folder or a Hub id"),
        ({"smt": {"backbone": "/nowhere"}}, "there is no folder '/nowhere' here"),
        ({"smt": {"shown": "no"}}, "stage 'smt': shown='no' must be true or false"),
        ({"smt": {"model": {"backbone_config": {}}}}, "backbone_config cannot be set here: set a stage's backbone"),
    ],
)
def test_what_cannot_work(stages, words, tmp_path):
    with pytest.raises(InputError, match=words):
        text(tmp_path, stages=stages).subject.open()
