"""`smt-hf estimate` from a recipe to numbers."""

import json

import pytest
import yaml

from smt_hf.cli.estimate import EstimateOptions, changes, config_of, training
from smt_hf.cli.main import main
from smt_hf.cli.recipe_file import read_recipe
from smt_hf.errors import InputError
from smt_hf.estimation.trace import meta_trainer
from smt_hf.utils.packaged import packaged_folder
from tests.backbones import language_model, model_on

FOLDERS = ("demo", "digits", "mnist", "mnist_cpu", "quickdraw_cpu", "sketchy", "tinystories", "tinystories_cpu")


def printed(capsys, *words):
    assert main(["estimate", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_from_a_recipe(recipes, capsys):
    text = printed(capsys, recipes["smt"], "--processes", 2, "--price", 3)
    for line in (
        "SMT on 2 x NVIDIA H100 SXM",
        "FLOPs per token",
        "buckets of DistributedDataParallel",
        "cost",
        "  data: ",
    ):
        assert line in text
    found = json.loads(printed(capsys, recipes["smt"], "--json", "true"))
    assert found["method"] == "smt" and found["fits"] and found["steps"] == 4
    wide = json.loads(printed(capsys, recipes["smt"], "--json", "true", "--set", "hidden_size=64", "max_steps=8"))
    assert wide["parameters"]["trained"] > 3 * found["parameters"]["trained"] and wide["steps"] == 8


def test_sizes_from_elsewhere(recipes, smt_run, capsys):
    from_recipe = json.loads(printed(capsys, recipes["dmt"], "--json", "true"))
    from_run = json.loads(printed(capsys, recipes["dmt"], "--model", smt_run, "--json", "true"))
    assert from_recipe["parameters"] == from_run["parameters"] and from_run["method"] == "dmt"
    tuned = json.loads(printed(capsys, recipes["finetune"], "--json", "true", "--hardware", "cpu"))
    assert tuned["parameters"]["trained"] >= from_run["parameters"]["trained"] and "this CPU" in tuned["hardware"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_recipes_at_their_full_size(folder, monkeypatch):
    """Their trainers are made, and all of a folder train one student, whether a recipe gives its sizes or goes on with it."""
    found = {}
    for method in ("smt", "dmt", "bptt", "finetune"):
        file = packaged_folder("configs") / folder / f"{method}.yaml"
        if file.is_file():
            values = read_recipe(str(file)) | {"bf16": False}
            given, arguments = training(method, values)
            config = config_of(method, EstimateOptions(recipe=str(file)), given, values)
            student = getattr(config, "student_config", config).to_diff_dict()
            found[method] = {name: student[name] for name in sorted(student) if name != "dtype"}
            trainer = meta_trainer(config, arguments)
            assert next(trainer.model.parameters()).is_meta
    assert len(found) > 1 and all(each == found["smt"] for each in found.values())


def test_a_teacher_on_a_backbone(recipes, tmp_path, capsys):
    """The student of a teacher that is not trained yet, and of one that is."""
    backbone, lm_run, teacher_run = language_model(vocab_size=258), tmp_path / "lm", tmp_path / "teacher"
    backbone.save_pretrained(lm_run)
    model_on(backbone).save_pretrained(teacher_run)
    smt = yaml.safe_load(recipes["smt"].read_text()) | {"num_encoder_layers": 1}
    teacher, student = tmp_path / "teacher.yaml", tmp_path / "student.yaml"
    teacher.write_text(yaml.safe_dump(smt))
    dmt = {"context_length": 16, "segment_length": 4, "rollout": "carried", "kd_weight": 1.0, "max_steps": 3}
    student.write_text(yaml.safe_dump(dmt))
    words = [student, "--method", "dmt", "--json", "true", "--model"]
    planned = json.loads(printed(capsys, *words, teacher, "--backbone", lm_run))
    assert planned["tokens"] == 4 * 8 and planned["steps"] == 3
    alone = json.loads(printed(capsys, teacher, "--method", "smt", "--json", "true", "--backbone", lm_run))
    assert alone["parameters"]["trained"] > planned["parameters"]["trained"]
    assert json.loads(printed(capsys, *words, teacher_run))["method"] == "dmt"
    assert main(["estimate", *map(str, [*words, teacher])]) == 2 and "backbone" in capsys.readouterr().err


def test_refusals(recipes, tmp_path, capsys):
    for words, message in (
        ([recipes["smt"], "--hardware", "abacus"], "hardware='abacus' is unknown: choose one of a100, h100"),
        ([recipes["smt"], "--num_threads", "1"], "num_threads=1 is for hardware=cpu: leave it out"),
        ([recipes["smt"], "--set", "hidden_size"], "'hidden_size' is not a change: write field=value"),
        ([recipes["smt"], "--set", "hiden_size=3"], "unknown field 'hiden_size'"),
        ([recipes["smt"], "--set", "hidden_size=none"], "hidden_size"),
    ):
        assert main(["estimate", *map(str, words)]) == 2
        assert message in capsys.readouterr().err
    other = tmp_path / "mine.yaml"
    other.write_text(yaml.safe_dump({"context_length": 64}))
    assert main(["estimate", str(other)]) == 2 and "pass --method" in capsys.readouterr().err
    assert main(["estimate", str(other), "--method", "dmt"]) == 2 and "pass --model" in capsys.readouterr().err


def test_changes_are_values_of_recipes():
    assert changes(["a=3", "b=[1, 2]", "c=x=y", "d=1.0e-3"]) == {"a": 3, "b": [1, 2], "c": "x=y", "d": 1e-3}
    with pytest.raises(InputError):
        changes(["a"])
