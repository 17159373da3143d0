"""Docstrings of options classes from what `--help` says of their fields."""

import inspect
from dataclasses import dataclass, field, fields

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, TrainingArguments

from smt_hf import (
    BpttTrainingArguments,
    DmtTrainingArguments,
    SmtConfig,
    SmtRnnConfig,
    SmtTeacherConfig,
    SmtTrainingArguments,
)
from smt_hf.errors import InputError
from smt_hf.models.configuration_smt_shared import SmtSharedConfig
from smt_hf.utils.described import described


def args_section(kind: type) -> str:
    return inspect.getdoc(kind).partition("\nArgs:\n")[2].partition("\nRaises:")[0]


@pytest.mark.parametrize("kind", [SmtTrainingArguments, DmtTrainingArguments, BpttTrainingArguments])
def test_training_arguments_name_every_field_of_their_own(kind):
    section, inherited = args_section(kind), {each.name for each in fields(TrainingArguments)}
    own = [each.name for each in fields(kind) if each.name not in inherited]
    assert {"context_length", "max_train_seconds", "train_clock"} <= set(own)
    for name in [*own, "warmup_steps"]:
        assert f"\n    {name}: " in "\n" + section


@pytest.mark.parametrize("kind", [SmtSharedConfig, SmtRnnConfig, SmtTeacherConfig, SmtConfig])
def test_configurations_name_every_field_of_their_own(kind):
    documented = [
        name.strip() for line in args_section(kind).splitlines() for name in line.partition(": ")[0].split(",")
    ]
    assert set(inspect.get_annotations(kind)) <= set(documented)
    assert issubclass(kind, PreTrainedConfig)


def test_a_field_without_help_is_refused():
    with pytest.raises(TypeError, match="Undescribed.added has no help"):

        @described
        @dataclass
        class Undescribed(TrainingArguments):
            known: int = field(default=1, metadata={"help": "Known."})
            added: int = 1


def test_fixed_choices():
    with pytest.raises(InputError, match="train_clock='sun' must be one of wall, cpu"):
        BpttTrainingArguments("unused", train_clock="sun")
    with pytest.raises(InputError, match="rollout='none' must be one of sweeps, sequential"):
        DmtTrainingArguments("unused", rollout="none")
    with pytest.raises(StrictDataclassError, match="expected one of"):
        SmtTeacherConfig(encoder_attention="sideways")
