"""From a text to a language model, a teacher on it and its student, and what is refused on the way."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from smt_hf import SmtForPreTraining, SmtRnnForCausalLM
from smt_hf.cli import dmt, lm, smt
from smt_hf.cli.main import main
from smt_hf.cli.parsing import parse
from smt_hf.data import byte_tokenizer
from smt_hf.utils.packaged import packaged_folder
from tests.conftest import SIZES, TRAINING


def flags(**values):
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


COMMON = {name: value for name, value in TRAINING.items() if name != "num_eval_windows"}
LM = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def lm_run(stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm") / "run"
    data = {"dataset": stories / "train.txt", "cache_dir": stories / "cache"}
    assert main(["lm", *flags(**COMMON, **LM, **data, output_dir=folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def teacher_run(lm_run, stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    data = {"dataset": stories / "train.txt", "cache_dir": stories / "cache"}
    options = {**SIZES, **COMMON, "horizon": 8, "num_transitions": 8, "dynamics_weight": 0, "uniformity_weight": 0}
    assert main(["smt", *flags(**options, **data, backbone=lm_run, output_dir=folder)]) == 0
    return folder


def test_a_language_model_is_an_ordinary_one(lm_run):
    model = AutoModelForCausalLM.from_pretrained(lm_run)
    assert type(model).__name__ == "LlamaForCausalLM" and model.config.vocab_size == 258
    card = (lm_run / "README.md").read_text()
    assert "A llama language model" in card and "### LM" in card and "memory has a fixed size" not in card


def test_the_backbone_travels_with_its_teacher(lm_run, teacher_run):
    joint = SmtForPreTraining.from_pretrained(teacher_run)
    for name, parameter in AutoModelForCausalLM.from_pretrained(lm_run).named_parameters():
        assert parameter.equal(joint.teacher.backbone.get_parameter(name)), name
    stages = json.loads((teacher_run / "training.json").read_text())
    assert [stage["command"] for stage in stages] == ["lm", "smt"]


def test_a_student_from_it(teacher_run, stories, tmp_path):
    data = {"dataset": stories / "train.txt", "cache_dir": stories / "cache"}
    options = {**COMMON, "rollout": "carried", "segment_length": 8, "kd_weight": 0.5, "learning_rate": 1e-3}
    assert main(["dmt", str(teacher_run), *flags(**options, **data, output_dir=tmp_path / "dmt")]) == 0
    assert type(SmtRnnForCausalLM.from_pretrained(tmp_path / "dmt")) is SmtRnnForCausalLM


@pytest.mark.parametrize("kind", ["gpt2", "opt", "phi", "seed_oss"])
@pytest.mark.parametrize("dropout", [None, 0.3])
def test_dropout_is_what_was_asked_for_whatever_its_name(kind, dropout):
    given = {} if dropout is None else {"dropout": dropout}
    required = {"dataset": "stories.txt", "output_dir": "out"}
    options, _ = parse(lm.COMMAND, flags(**required, **LM, model_type=kind, **given))
    model = options.new_model(byte_tokenizer(), 32)
    rates = {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)}
    read = {getattr(layer, name) for layer in model.modules() for name in vars(layer) if name.endswith("dropout")}
    rates |= {rate for rate in read if isinstance(rate, float)}
    assert rates == {dropout or 0.0}


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("smt", {"backbone": "no-such-folder"}, "there is no folder 'no-such-folder' here"),
        ("smt", {"backbone": "{lm}", "tokenizer": "gpt2"}, "tokenizer='gpt2' is not that of backbone="),
        ("smt", {"backbone": "{lm}", "encoder_attention": "bidirectional"}, "cannot be used with a backbone"),
        ("smt", {"backbone": "{lm}", "model": "{teacher}"}, "leave one out"),
        ("smt", {"backbone": "{dmt}"}, "is a student (SmtRnnForCausalLM): pass a Transformer"),
        ("lm", {"model_type": "bert_of_nobody"}, "is not a causal language model of transformers"),
        ("lm", {"model_type": "mamba"}, "takes no attention_mask and no position_ids|takes no position_ids"),
        ("lm", {"model_type": "bert"}, "a BertLMHeadModel sees later tokens"),
        ("lm", {"model_type": "gpt_neo"}, "a gpt_neo of these sizes cannot be made: Configuration for convolutional"),
        ("lm", {"model_type": "dbrx"}, "a dbrx of these sizes cannot be made"),
        (
            "lm",
            {"hidden_size": 30, "num_attention_heads": 8},
            "hidden_size=30 is not divisible by num_attention_heads=8",
        ),
        ("lm", {"model": "no-such-folder"}, "there is no folder 'no-such-folder' here"),
        ("lm", {"model": "{dmt}"}, "is a student (SmtRnnForCausalLM): pass a Transformer"),
        (
            "dmt",
            {"model": "{dmt_joint}", "kd_weight": 0.5, "rollout_length": 24},
            "kd_weight=0.5 needs a teacher with a backbone",
        ),
    ],
)
def test_refused_in_one_line(command, options, message, request, lm_run, stories, tmp_path, capsys):
    places = {"lm": lm_run}
    for name, fixture in {"teacher": "teacher_run", "dmt": "dmt_run", "dmt_joint": "smt_run"}.items():
        if any(f"{{{name}}}" == value for value in options.values()):
            places[name] = request.getfixturevalue(fixture)
    options = {name: str(value).format(**places) for name, value in options.items()}
    data = {"dataset": stories / "train.txt", "cache_dir": stories / "cache"}
    capsys.readouterr()
    assert main([command, *flags(**COMMON, **data, **options, output_dir=tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert any(part in said for part in message.split("|")), said
    assert not (tmp_path / "out").exists()


CONFIGS = packaged_folder("configs")


@pytest.mark.parametrize("folder", ["tinystories_cpu", "mnist_cpu", "smollm2"])
def test_recipes_of_the_teacher_first(folder, lm_run, teacher_run, stories, tmp_path):
    """They are read by their commands, and make a teacher on a language model and its student."""
    data = {"dataset": stories / "train.txt", "eval_dataset": stories / "valid.txt", "cache_dir": stories / "cache"}
    argv = flags(**data, streaming=False, bf16=False, use_cpu=True, max_steps=1, output_dir=tmp_path / "run")
    if (CONFIGS / folder / "lm.yaml").exists():
        options, arguments = parse(lm.COMMAND, ["--config", str(CONFIGS / folder / "lm.yaml"), *argv])
        assert options.new_model(byte_tokenizer(), arguments.window_length).config.vocab_size == 258
    options, arguments = parse(
        smt.COMMAND, ["--config", str(CONFIGS / folder / "teacher.yaml"), *argv, "--backbone", str(lm_run)]
    )
    assert not arguments.runs_student
    model = smt.build(options, arguments).model
    assert model.teacher.backbone is not None and model.student.config.num_readout_layers == options.num_readout_layers
    options, arguments = parse(
        dmt.COMMAND, [str(teacher_run), "--config", str(CONFIGS / folder / "student.yaml"), *argv]
    )
    assert arguments.carry_memory and arguments.kd_weight
