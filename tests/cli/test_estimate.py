"""`smt-hf estimate` from a recipe to numbers."""

import json

import pytest
import yaml

from smt_hf.cli.estimate import changes
from smt_hf.cli.main import main
from smt_hf.errors import InputError


def printed(capsys, *words):
    assert main(["estimate", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_from_a_recipe(recipes, capsys):
    text = printed(capsys, recipes["smt"], "--processes", 2, "--price", 3)
    for line in (
        "SMT on 2 x NVIDIA H100 SXM",
        "FLOPs a token",
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


def test_refusals(recipes, tmp_path, capsys):
    for words, message in (
        ([recipes["smt"], "--hardware", "abacus"], "hardware='abacus' is unknown: choose one of a100, h100"),
        ([recipes["smt"], "--set", "hidden_size"], "'hidden_size' is no change: write field=value"),
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
