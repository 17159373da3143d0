"""Words, flags and recipes: what stands for which field, and what is refused."""

from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_type_hints

import pytest

from smt_hf.cli import parsing
from smt_hf.cli.parsing import Command, parse
from smt_hf.data import TextOptions
from smt_hf.errors import InputError
from smt_hf.utils.renamed import RENAMED, hint_for
from tests.cli.test_help import COMMANDS, parser_of


@dataclass
class Taken:
    share: float | None = field(default=None, metadata={"help": "A share."})
    choice: Literal["a", "b"] | None = field(default=None, metadata={"help": "A choice."})
    words: list[str] | None = field(default=None, metadata={"help": "Words."})
    fields: dict | str | None = field(default=None, metadata={"help": "Fields."})
    name: str | None = field(default=None, metadata={"help": "A name."})
    steps: int = field(default=1, metadata={"help": "Steps."})
    text: str = field(default="", metadata={"help": "A text."})


@dataclass
class Options:
    model: str | None = field(default=None, metadata={"help": "A model."})
    prompt: str = field(default="Once", metadata={"help": "A text."})
    kind: Literal["small", "large"] = field(default="small", metadata={"help": "A kind."})
    numbers: list[int] = field(default_factory=lambda: [1], metadata={"help": "Numbers."})
    fast: bool = field(default=False, metadata={"help": "Whether."})


COMMAND = Command("try", [Options], "Tries.", "example:\n  smt-hf try m", ["model", "prompt"], {"model": "a folder"})


def parsed(*words):
    return parse(COMMAND, words)[0]


@pytest.mark.parametrize(
    "words",
    [
        ["m", "a text"],
        ["--model", "m", "--prompt", "a text"],
        ["--kind", "small", "m", "--numbers", "1", "--", "a text"],
        ["m", "--fast", "false", "a text"],
    ],
)
def test_words_stand_for_fields(words):
    assert parsed(*words) == Options("m", "a text")


def test_a_word_that_looks_like_a_flag():
    assert parsed("m", "--", "--fast").prompt == "--fast"
    assert parsed("m", "-1").prompt == "-1"
    assert parsed("m", "-- a dash").prompt == "-- a dash"
    assert parsed("m", "").prompt == ""


def test_flags_override_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: from the recipe\nkind: large\nnumbers: [2, 3]\n")
    assert parsed("--config", str(recipe)) == Options("from the recipe", "Once", "large", [2, 3])
    assert parsed("m", "--config", str(recipe), "--numbers", "4").model == "m"
    assert parsed("m", "--config", str(recipe), "--numbers", "4").numbers == [4]


@pytest.mark.parametrize("name", [each.name for each in fields(Taken)])
@pytest.mark.parametrize("form", ["--{} null", "--{}=null"])
def test_null_takes_a_field_of_the_recipe_back(name, form, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text('share: 0.5\nchoice: b\nwords: [x, y]\nfields: {a: 1}\nname: n\nsteps: 7\ntext: "t"\n')
    words = ["--config", str(recipe), *form.format(name).split()]
    command = Command("try", [Taken], "Tries.", "example:\n  smt-hf try")
    if name == "steps":
        with pytest.raises(InputError, match="steps='null' must be a whole number"):
            parse(command, words)
        return
    whole = Taken(0.5, "b", ["x", "y"], {"a": 1}, "n", 7, "t")
    assert parse(command, words)[0] == replace(whole, **{name: "null" if name == "text" else None})


def test_what_is_required_cannot_be_taken_back(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: m\n")
    with pytest.raises(InputError, match="model is missing"):
        parsed("--config", str(recipe), "--model", "null")


@pytest.mark.parametrize(
    "words, message",
    [
        ([], r"model is missing: pass a folder \(smt-hf try MODEL\)"),
        (["m", "a", "b"], "'b' does not belong to any flag"),
        (["m", "--model", "n"], "model is given twice, as 'm' and as --model 'n'"),
        (["m", "--kind", "huge"], "kind='huge' must be one of small, large"),
        (["m", "--numbers", "x"], "numbers='x' must be a whole number"),
        (["m", "--fast", "maybe"], "fast='maybe' must be true or false"),
        (["m", "-k", "small"], "unknown flag '-k'"),
        (["m", "--knd=small"], "unknown flag '--knd=small': did you mean '--kind'?"),
        (["m", "--"], None),
    ],
)
def test_what_is_refused(words, message):
    if message is None:
        assert parsed(*words).model == "m"
        return
    with pytest.raises(InputError, match=message):
        parsed(*words)


@pytest.mark.parametrize(
    "line, message", [("kind: huge", "kind='huge' must be one of small, large"), ("fast: 1", "fast=1")]
)
def test_what_is_refused_in_a_recipe(line, message, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(line)
    with pytest.raises(InputError, match=message):
        parsed("m", "--config", str(recipe))


@pytest.mark.parametrize("command", COMMANDS)
def test_old_names_are_refused_with_the_new_ones(command, tmp_path):
    """In flags and in recipes alike, where the new name is one of the command's."""
    parser = parser_of(command)
    known = {action.dest for action in parser._actions}
    for old, new in RENAMED.items():
        if old in known or new not in known:
            continue
        with pytest.raises(InputError, match=f"unknown flag '--{old}': it is called '--{new}' now"):
            parse(parser.command, [f"--{old}", "1"])
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"{old}: 1\n")
        with pytest.raises(InputError, match=f"unknown field '{old}': it is called '{new}' now"):
            parse(parser.command, ["--config", str(recipe)])


def test_every_new_name_is_in_use():
    known = {action.dest for command in COMMANDS for action in parser_of(command)._actions}
    assert set(RENAMED.values()) <= known
    assert hint_for("rollout_steps", ["horizon"]) is None


def test_the_same_word_for_the_same_thing():
    """The options of the text are the same fields in every command that reads one."""
    text = {each.name for each in fields(TextOptions)}
    for command in ("smt", "dmt", "bptt", "finetune", "evaluate"):
        kinds = parser_of(command).command.kinds
        assert issubclass(kinds[0], TextOptions) and text <= {each.name for each in fields(kinds[0])}


# A flag of every command that makes a new model or goes on with one.
NEW_MODEL_FLAGS = {
    "bptt": ["--cell_type", "gru", "--tokenizer", "byte"],
    "lm": ["--tokenizer", "byte", "--model_type", "gpt2"],
    "smt": ["--image_size", "8", "--num_encoder_layers", "2"],
    "tokenize": ["--image_size", "8", "--num_levels", "4"],
}


def test_all_commands_that_make_a_new_model_or_go_on_with_one():
    both = set()
    for parser in map(parser_of, COMMANDS):
        hints = [get_type_hints(kind).get("model") for kind in parser.command.kinds]
        if str | None in hints and "model" in parser.groups:
            both.add(parser.command.name)
    assert both == set(NEW_MODEL_FLAGS)


@pytest.mark.parametrize("command", NEW_MODEL_FLAGS)
def test_flags_of_a_new_model_beside_one(command, tmp_path):
    command = parser_of(command).command
    words = ["--dataset", "d"] + (["--output_dir", str(tmp_path)] if command.name != "tokenize" else [])
    flags = NEW_MODEL_FLAGS[command.name]
    parse(command, [*words, "--model", "m"])
    parse(command, [*words, *flags])
    with pytest.raises(InputError, match=f"{flags[0][2:]}={flags[1]}, {flags[2][2:]}={flags[3]}: this is for a new"):
        parse(command, [*words, *flags, "--model", "m"])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{flags[0][2:]}: {flags[1]}\n")
    parse(command, [*words, "--config", str(recipe), "--model", "m"])  # it says how to train either


def test_the_fields_of_a_comparison_are_no_model_to_go_on_with():
    command = parser_of("compare").command
    with pytest.raises(InputError) as error:
        parse(command, ["--model", "{num_encoder_layers: 2}", "--image_size", "8"])
    assert "for a new model" not in str(error.value)


@pytest.mark.parametrize(
    "words, asked",
    [
        (["name/of-a-model", "--dataset", "digits"], True),
        (["{folder}", "--dataset", "digits"], False),
        (["{folder}", "--dataset", "name/of-a-dataset"], True),
    ],
)
def test_the_hub_is_asked_once_whether_it_is_there(words, asked, tmp_path, monkeypatch):
    command = parser_of("evaluate").command
    calls = []
    monkeypatch.setattr(parsing, "go_offline_if_unreachable", lambda: calls.append(True))
    parse(command, [word.format(folder=tmp_path) for word in words])
    assert calls == [True] * asked
