"""Configurations refuse what cannot work, naming the value."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.activations import ACT2FN

from smt_hf import SmtConfig, SmtRnnConfig, SmtTeacherConfig
from tests.conftest import tiny_config


@pytest.mark.parametrize("kind", [SmtRnnConfig, SmtTeacherConfig])
@pytest.mark.parametrize(
    "values, message",
    [
        ({"hidden_size": 30}, "hidden_size=30 is not divisible by num_attention_heads=8"),
        ({"num_memory_tokens": 0}, "num_memory_tokens=0"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"memory_normalization": "batch"}, "'memory_normalization' expected one of .*'none'., got batch"),
        ({"attention_dropout": 1.5}, "attention_dropout=1.5"),
        ({"eos_token_id": 258}, "eos_token_id=258 is outside the vocabulary of 258"),
        ({"eos_token_id": [1, 300]}, "eos_token_id=300"),
        ({"pad_token_id": -1}, "pad_token_id=-1"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_act": "nosuch"}, "hidden_act='nosuch' is unknown: choose a name"),
        ({"hidden_act": ""}, "hidden_act=''"),
        ({"hidden_act": None}, "hidden_act"),
    ],
)
def test_bad_values(kind, values, message):
    with pytest.raises(StrictDataclassError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    "kind, values, message",
    [
        (SmtRnnConfig, {"cell_type": "tape"}, "cell_type='tape' is unknown: choose one of transformer, mlp"),
        (SmtRnnConfig, {"cell_input": "text"}, "'cell_input' expected one of .* got text"),
        (SmtRnnConfig, {"num_updater_layers": 0}, "num_updater_layers=0"),
        (SmtTeacherConfig, {"encoder_attention": "sideways"}, "'encoder_attention' expected one of .* got sideways"),
        (SmtTeacherConfig, {"num_encoder_layers": 0}, "num_encoder_layers=0"),
        (SmtTeacherConfig, {"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        (SmtConfig, {"student_config": {"tie_word_embeddings": True}}, "student tie_word_embeddings=True"),
        (SmtConfig, {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ],
)
def test_bad_values_of_one(kind, values, message):
    with pytest.raises(StrictDataclassError, match=message):
        kind(**values)


ALLOWED = {
    "rms_norm_eps": lambda value: 0 < value < math.inf,
    "rope_theta": lambda value: 0 < value < math.inf,
    "initializer_range": lambda value: 0 <= value < math.inf,
    "attention_dropout": lambda value: 0 <= value < 1,
}


@given(
    kind=st.sampled_from([SmtRnnConfig, SmtTeacherConfig]), name=st.sampled_from(sorted(ALLOWED)), value=st.floats()
)
def test_numbers(kind, name, value):
    if ALLOWED[name](value):
        assert getattr(kind(**{name: value}), name) == value
    else:
        with pytest.raises(StrictDataclassError, match=f"{name}={value}".replace("+", r"\+")):
            kind(**{name: value})


@pytest.mark.parametrize("name", sorted(ACT2FN))
def test_every_activation_of_the_library_is_known(name):
    assert SmtRnnConfig(hidden_act=name).hidden_act == name


@pytest.mark.parametrize("kind", [SmtRnnConfig, SmtTeacherConfig, SmtConfig])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_dtypes(kind, name):
    for value in ("float32", "bfloat16", "float16", "float64", torch.bfloat16):
        dtype = kind(**{name: value}).dtype
        assert dtype == (getattr(torch, value) if isinstance(value, str) else value)
    assert kind(**{name: None}).dtype is None
    for value in ("float99", "nn", "int64", torch.int8, 5, "Tensor", ""):
        with pytest.raises(ValueError, match=f"dtype={value!r} is not a floating-point dtype"):
            kind(**{name: value})


@pytest.mark.parametrize("part", ["teacher_config", "student_config"])
@pytest.mark.parametrize("value", [5, "x", [], 0, False])
def test_parts_that_are_no_configurations(part, value):
    with pytest.raises(TypeError, match=f"{part}="):
        SmtConfig(**{part: value})


def test_the_vocabulary_of_both():
    config = SmtConfig()
    config.vocab_size = 300
    assert config.vocab_size == config.teacher_config.vocab_size == config.student_config.vocab_size == 300
    assert "vocab_size" not in config.to_dict()


def test_teacher_and_student_must_fit():
    with pytest.raises(StrictDataclassError, match="teacher hidden_size=64 but student hidden_size=256"):
        SmtConfig(teacher_config=SmtTeacherConfig(hidden_size=64), student_config=SmtRnnConfig())
    with pytest.raises(StrictDataclassError, match="num_decoder_layers=4 but student num_readout_layers=2"):
        SmtConfig(teacher_config=SmtTeacherConfig(), student_config=SmtRnnConfig(num_readout_layers=2))


@pytest.mark.parametrize("config", [SmtRnnConfig(), SmtTeacherConfig(hidden_size=64), tiny_config()])
def test_round_trip(config, tmp_path):
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is type(config)
    assert loaded.to_json_string() == config.to_json_string()
