"""Configurations refuse what cannot work, naming the value."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from smt_hf import SmtConfig, SmtRnnConfig, SmtTeacherConfig
from tests.conftest import tiny_config


@pytest.mark.parametrize("kind", [SmtRnnConfig, SmtTeacherConfig])
@pytest.mark.parametrize(
    "values, message",
    [
        ({"hidden_size": 30}, "hidden_size=30 is not divisible by num_attention_heads=8"),
        ({"num_memory_tokens": 0}, "num_memory_tokens=0"),
        ({"vocab_size": -1}, "vocab_size=-1"),
        ({"memory_normalization": "batch"}, "'batch'"),
        ({"attention_dropout": 1.5}, "attention_dropout=1.5"),
        ({"eos_token_id": 258}, "eos_token_id=258 is outside the vocabulary of 258"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_bad_values(kind, values, message):
    with pytest.raises(StrictDataclassError, match=message):
        kind(**values)


@pytest.mark.parametrize(
    "kind, values, message",
    [
        (SmtRnnConfig, {"cell_type": "tape"}, "'tape'"),
        (SmtRnnConfig, {"cell_input": "text"}, "'text'"),
        (SmtRnnConfig, {"num_hidden_layers": 0}, "num_hidden_layers=0"),
        (SmtTeacherConfig, {"encoder_attention": "sideways"}, "'sideways'"),
        (SmtTeacherConfig, {"num_encoder_layers": 0}, "num_encoder_layers=0"),
        (SmtTeacherConfig, {"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        (SmtConfig, {"student_config": {"tie_word_embeddings": True}}, "student tie_word_embeddings=True"),
        (SmtConfig, {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    ],
)
def test_bad_values_of_one(kind, values, message):
    with pytest.raises(StrictDataclassError, match=message):
        kind(**values)


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
