"""Recipes: what they say, and that what cannot work is said before anything is trained."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from smt_hf.cli.recipe_file import read_recipe
from smt_hf.comparison import Comparison
from smt_hf.comparison.stages import ancestry
from smt_hf.data import byte_tokenizer
from smt_hf.errors import InputError
from tests.backbones import language_model
from tests.comparison.conftest import TINY, tiny

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted((CONFIGS / "synthetic").glob("*.yaml"))
OF_DATASETS = sorted((CONFIGS / "compare").glob("*.yaml"))
SMT = {"smt": {}}


def stage(**fields):
    """A recipe's stages: one SMT stage with these fields."""
    return {"stages": {"smt": fields}}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes(file):
    comparison = Comparison(**read_recipe(str(file)))
    for length in comparison.lengths:
        for one in comparison.all_stages():
            arguments = comparison.arguments(one, length, comparison.seeds[0], "unused")
            assert arguments.context_length == (one.length or length)


def test_transitions_that_all_lengths_share():
    """Shorter rows hold fewer; a number of a stage's own is what it is."""
    training = {"num_transitions": 24, "segment_length": 4}
    comparison = tiny(
        lengths=[14, 40], training=training, stages={"smt": {}, "short": {"trainer": "smt", "length": 9}}
    )
    found = {
        (stage.name, length): comparison.arguments(stage, length, 0, "unused").num_transitions
        for stage in comparison.all_stages()
        for length in comparison.lengths
    }
    assert found == {("smt", 14): 12, ("smt", 40): 24, ("short", 14): 8, ("short", 40): 8}
    with pytest.raises(
        InputError, match="stage 'smt' at length 14: num_transitions=16 is more than context_length=14"
    ):
        tiny(lengths=[14], training=training, stages={"smt": {"num_transitions": 16}})


def test_there_are_recipes():
    assert RECIPES and OF_DATASETS


@pytest.mark.parametrize("file", OF_DATASETS, ids=lambda file: file.stem)
def test_shipped_recipes_of_datasets(file, tmp_path):
    """They fit small data of the kind, and give every arm the same time."""
    recipe = read_recipe(str(file))
    if "image_size" in recipe:
        pixels = np.zeros((300, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / "data.npz", x=pixels, y=(np.arange(300) % 10).astype(np.uint8))
        data = {"dataset": str(tmp_path / "data.npz"), "eval_split": "validation", "holdout": 20}
        recipe["training"]["per_device_train_batch_size"] = 4
    else:
        if "tokenizer" in recipe:  # that of a language model elsewhere, on which the teachers are built
            recipe["tokenizer"] = elsewhere = str(tmp_path / "model")
            language_model(vocab_size=258, max_position_embeddings=200).save_pretrained(elsewhere)
            byte_tokenizer().save_pretrained(elsewhere)
            for fields in recipe["stages"].values():
                fields.update({"backbone": elsewhere} if "backbone" in fields else {})
        (tmp_path / "data.txt").write_text("a story of many words " * 2000)
        data = {
            "dataset": str(tmp_path / "data.txt"),
            "eval_dataset": str(tmp_path / "data.txt"),
            "eval_split": "train",
        }
    comparison = Comparison(**{**recipe, **data, "cache_dir": str(tmp_path)})
    comparison.subject.open()
    stages = comparison.all_stages()
    assert {stage.trainer for stage in stages} >= {"smt", "dmt", "bptt"}
    went_on_from = {stage.after for stage in stages}
    for stage in stages:
        if stage.name not in went_on_from:
            assert sum(each.share for each in ancestry(stages, stage.name)) == pytest.approx(1.0, abs=0.002), stage


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"task": None}, "task is missing: pass --task"),
        ({"task": "retreival"}, "the task 'retreival' is unknown: choose one of retrieval"),
        ({"task_options": {"symbols": 4}}, "the task 'retrieval' has no option 'symbols'"),
        ({"task_options": {"length": 4}}, "task_options: length cannot be set here: list it in lengths"),
        ({"task_options": "{num_symbols: 4}"}, "is not JSON"),
        ({"stages": "{"}, "stages='{' is not JSON"),
        ({"stages": "[1]"}, r"stages=\[1\] must be a mapping"),
        ({"stages": {}}, "stages is empty: give at least one"),
        ({"lengths": []}, "lengths is empty: give at least one"),
        ({"lengths": 12}, r"lengths=12 must be a list: write \[12\]"),
        ({"lengths": ["12"]}, "lengths=.*'12' must be a whole number"),
        ({"lengths": [12, 12]}, "12 appears twice: list it once"),
        ({"lengths": [2]}, "length is 2: pass 3 or more"),
        (
            stage(task_options={"num_symbols": 5}),
            "stage 'smt': task_options=.* need 6 ids, but the comparison's task has 5",
        ),
        (stage(task_options={"length": 5}), "stage 'smt': length cannot be set in task_options"),
        (stage(task_options={"symbols": 5}), "stage 'smt': the task 'retrieval' has no option 'symbols'"),
        (stage(task_options=5), "stage 'smt': task_options=5 must be a mapping"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [0, 0]}, "0 appears twice"),
        ({"seeds": [-1]}, "-1 must be from 0 to 4294967295"),
        ({"cells": []}, "cells is empty"),
        ({"cells": "transformer"}, r"cells='transformer' must be a list: write \[transformer\]"),
        ({"cells": ["tape"]}, "cell_type='tape' is unknown: choose one of transformer"),
        ({"cells": ["lstm"], "student": {"num_updater_layers": 2}}, "choose a multiple of 4"),
        ({"eval_factors": []}, "eval_factors is empty"),
        ({"eval_factors": [2, 4]}, "leaves out 1, the training length: add it"),
        ({"eval_factors": [1, 0]}, r"eval_factors=\[1, 0\]: 0 must be at least 1"),
        ({"eval_rows": 0}, "eval_rows=0 must be at least 1"),
        ({"trace_points": 0}, "trace_points=0"),
        ({"trace_points": "3"}, "trace_points='3'"),
        ({"gradient_length": 2}, "gradient_length: length is 2: pass 3 or more"),
        ({"cpu_seconds": []}, "cpu_seconds is empty"),
        ({"cpu_seconds": 60}, r"cpu_seconds=60 must be a list: write \[60\]"),
        ({"cpu_seconds": [0]}, r"cpu_seconds=\[0\]: 0 must be above 0"),
        (
            {"cpu_seconds": [1, 2]},
            r"cpu_seconds=\[1, 2\] must be one positive number, or one for each of lengths=\[12\]",
        ),
        ({"only": ["smt", "dtm"]}, "only: there is no stage 'dtm': choose one of short, smt, dmt"),
        ({"only": "smt"}, r"only='smt' must be a list: write \[smt\]"),
        ({"only": []}, "only is empty"),
        ({"model": {"hiden_size": 16}}, "model: unknown field 'hiden_size': did you mean 'hidden_size'"),
        ({"model": {"hidden_size": 15}}, "hidden_size=15 is not divisible"),
        ({"model": {"vocab_size": 9}}, "model: vocab_size cannot be set here: it comes from the data"),
        ({"student": {"cell_type": "gru"}}, "student: cell_type cannot be set here: list it in cells"),
        ({"student": {"hidden_size": 32}}, "hidden_size=16 but student hidden_size=32"),
        ({"cell_options": {"grru": {}}}, "cell_options of 'grru': cell_type='grru' is unknown: choose one of"),
        ({"cell_options": {"gru": [1]}}, r"cell_options of 'gru'=\[1\] must be a mapping"),
        ({"cell_options": {"gru": {"layers": 1}}}, "cell_options of 'gru': unknown field 'layers'"),
        (
            {"training": {"learnign_rate": 0.1}},
            "training: unknown field 'learnign_rate': did you mean 'learning_rate'",
        ),
        ({"training": {"seed": 1}}, "training: seed cannot be set here: list the comparison's seeds"),
        (stage(trainer="stm"), "stage 'smt': trainer='stm' is unknown: choose one of smt, dmt, bptt"),
        (stage(trainer=["smt"]), r"trainer=\['smt'\] is unknown"),
        (stage(share=0), "stage 'smt': share=0 must be a positive number"),
        (stage(share="half"), "share='half' must be a positive number"),
        (stage(label=8), "label=8 must be text: put it in quotes"),
        (stage(length=0), "length=0 must be a whole number of at least 1"),
        (stage(length="8"), "length='8' must be a whole number"),
        (stage(length=2), "stage 'smt': length is 2: pass 3 or more"),
        (stage(after="smt"), "stage 'smt' continues 'smt', which is not an earlier stage: fix `after`"),
        (stage(num_sweeps=[1]), "stage 'smt': unknown field 'num_sweeps'"),
        (stage(num_transitions=0), "stage 'smt' at length 12: num_transitions=0 must be at least 1"),
        (stage(num_transitions="8"), "stage 'smt' at length 12: num_transitions='8' must be a whole number"),
        (stage(learning_rate="fast"), "learning_rate='fast' must be a number"),
        (
            stage(num_train_epochs=5),
            "num_train_epochs cannot be set here: set cpu_seconds and share, max_train_seconds",
        ),
        ({"stages": {"smt": [1]}}, r"stage 'smt': \[1\] must be a mapping"),
        ({"stages": {3: {"trainer": "smt"}}}, "stage 3: the name is also that of a folder"),
        ({"stages": {"../smt": {"trainer": "smt"}}}, "stage '../smt': the name is also that of a folder"),
        ({"stages": {"dmt": {}}}, "stage 'dmt' needs a teacher: put it `after` an SMT stage"),
        ({"stages": {"bptt": {}, "dmt": {"after": "bptt"}}}, "stage 'dmt' needs a teacher"),
        ({"stages": {"dmt": {"after": "smt"}, "smt": {}}}, "continues 'smt', which is not an earlier stage"),
        (
            {"stages": {**SMT, "dmt": {"after": "smt"}, "more": {"trainer": "smt", "after": "dmt"}}},
            "stage 'more': SMT can only continue SMT, not 'dmt'",
        ),
        (
            {"stages": {"a": {"trainer": "smt", "label": "SMT"}, "b": {"trainer": "smt", "label": "SMT"}}},
            "stage 'a' and stage 'b' would both be called 'SMT': give one of them another label",
        ),
        (
            {
                "stages": {
                    "bptt": {},
                    "bptt_8": {"trainer": "bptt", "length": 8},
                    "grown": {"trainer": "bptt", "after": "bptt_8", "label": "bptt"},
                }
            },
            "stage 'bptt' and stage 'grown' would both be called 'bptt'",
        ),
        ({"stages": {"bptt": {"bptt_horizon": 13}}}, "stage 'bptt' at length 12: bptt_horizon=13 exceeds"),
        ({"stages": {"bptt": {"carry_memory": True, "bptt_horizon": 4}}}, "carry_memory cannot be set here"),
        ({"stages": {**SMT, "dmt": {"after": "smt", "segment_length": 0}}}, "segment_length=0 must be at least 1"),
        ({"stages": {**SMT, "dmt": {"after": "smt", "segment_length": 13}}}, "segment_length=13 does not divide"),
    ],
)
def test_what_cannot_work(changes, words):
    with pytest.raises(InputError, match=words):
        tiny(**changes)


def test_a_step_of_a_curriculum_is_called_nothing():
    assert [stage.shown_label for stage in tiny().all_stages()] == [None, "SMT", "DMT", "BPTT", "BPTT"]
    assert tiny(stages={"smt": None}).all_stages()[0].shown_label == "smt"
    again = {"trainer": "smt", "length": 8, "label": "SMT"}
    assert len(tiny(stages={"a": again, "b": {**again, "length": 10}}).all_stages()) == 2


def test_a_stage_may_train_on_an_easier_task():
    comparison = tiny(
        stages={"easy": {"trainer": "smt", "task_options": {"num_symbols": 2}}, "smt": {"after": "easy"}}
    )
    easy, smt = comparison.all_stages()
    assert easy.shown_label is None and smt.shown_label == "smt"
    assert comparison.stage_task(easy, 12).num_symbols == 2
    assert comparison.stage_task(smt, 12) == comparison.load_task(12)


def test_only_picks_stages_and_what_they_go_on_from():
    def names(*only):
        return [stage.name for stage in tiny(only=list(only)).chosen_stages()]

    assert names("finetune") == ["short", "smt", "dmt", "finetune"]
    assert names("bptt", "short") == ["short", "bptt"]
    assert [stage.name for stage in tiny().chosen_stages()] == list(TINY["stages"])
    assert [stage.name for stage in ancestry(tiny().all_stages(), "dmt")] == ["short", "smt", "dmt"]


def test_a_stage_is_named_after_its_trainer_or_says_it():
    stages = tiny(stages={"smt": None, "late": {"trainer": "bptt", "after": "smt", "bptt_horizon": 4}}).all_stages()
    assert [stage.trainer for stage in stages] == ["smt", "bptt"]
    assert stages[1].arguments == {"bptt_horizon": 4} and stages[1].share == 1.0


def test_the_lengths_of_a_stage():
    comparison = tiny()
    comparison.stages["dmt"]["segment_length"] = 5
    short, smt, dmt, _, bptt = comparison.all_stages()

    def arguments(stage, length=12):
        return comparison.arguments(stage, length, 0, "unused")

    assert (arguments(short).context_length, arguments(short).horizon) == (8, 8)
    assert (arguments(smt).context_length, arguments(smt).horizon) == (12, 12)
    assert (arguments(dmt).context_length, arguments(dmt).rollout_length) == (12, 10)
    assert arguments(bptt).context_length == 12


def test_the_arguments_of_every_trainer_alone():
    comparison = tiny(training={"num_sweeps": [7], "bptt_horizon": 4, "weight_decay": 0.5, "max_steps": 3})
    _, smt, dmt, _, bptt = [comparison.arguments(stage, 12, 0, "unused") for stage in comparison.all_stages()]
    assert not hasattr(smt, "num_sweeps") and not hasattr(bptt, "num_sweeps")
    assert dmt.num_sweeps == [1, 2]  # the stage's own
    assert bptt.bptt_horizon == 4 and not hasattr(dmt, "bptt_horizon")
    assert {arguments.weight_decay for arguments in (smt, dmt, bptt)} == {0.5}


def test_the_budget():
    training = {"per_device_train_batch_size": 4}
    stages = {"smt": {"share": 0.25}, "bptt": {"max_steps": 7}, "timed": {"trainer": "bptt", "max_train_seconds": 3}}
    comparison = tiny(lengths=[12, 24], cpu_seconds=[8, 20.0], training=training, stages=stages)
    smt, bptt, timed = (comparison.arguments(stage, 24, 0, "unused") for stage in comparison.all_stages())
    assert (smt.max_train_seconds, smt.train_clock) == (5, "cpu")
    assert (bptt.max_steps, bptt.max_train_seconds) == (7, None)
    assert (timed.max_train_seconds, timed.train_clock) == (3, "cpu")
    assert tiny(lengths=[12, 24], cpu_seconds=[8]).cpu_seconds == [8, 8]


def test_mappings_as_json_and_yaml():
    recipe = yaml.safe_load(yaml.safe_dump(TINY, sort_keys=False))
    assert Comparison(**recipe) == tiny()
    comparison = tiny(stages='{"smt": {"num_transitions": 4}}', task_options='{"num_symbols": 5}')
    assert comparison.load_task(12).num_symbols == 5
    assert comparison.all_stages()[0].arguments == {"num_transitions": 4}
    assert tiny(cell_options=None).cell_options == {}


def test_cells_have_options_of_their_own():
    comparison = tiny(cells=["transformer", "gru"], cell_options={"gru": {"num_updater_layers": 2}})
    layers = [comparison.model_config(cell, 12).student_config.num_updater_layers for cell in comparison.cells]
    assert layers == [1, 2]
    assert comparison.model_config("gru", 12).student_config.cell_type == "gru"
    assert comparison.model_config("gru", 12).teacher_config.vocab_size == 5


def test_the_numbers_of_yaml():
    """`1e-3`, without a point, is text in YAML and a number here."""
    comparison = tiny(**stage(learning_rate="1e-3"))
    assert comparison.arguments(comparison.all_stages()[0], 12, 0, "unused").learning_rate == 1e-3
