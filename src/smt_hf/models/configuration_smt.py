"""Configuration of teacher and student together."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_smt_rnn import SmtRnnConfig
from .configuration_smt_shared import SmtSharedConfig, check_dtype
from .configuration_smt_teacher import SmtTeacherConfig

# Memory and readout depend on these; the other shared fields may differ.
_MUST_FIT = (
    "vocab_size hidden_size num_memory_tokens num_attention_heads intermediate_size hidden_act memory_normalization "
    "rms_norm_eps rope_theta qk_norm"
).split()


@strict
class SmtConfig(PreTrainedConfig):
    r"""Configuration of [`SmtForPreTraining`]: one teacher and one student that fit each other.

    Args:
        teacher_config: an [`SmtTeacherConfig`] or its dictionary; the default configuration when `None`.
        student_config: an [`SmtRnnConfig`] or its dictionary; a student that fits the teacher when `None`.
        pad_token_id, bos_token_id, eos_token_id: Taken from the teacher.
        tie_word_embeddings: Must be `True`: the student's readout is the teacher's decoder and head.

    Raises:
        huggingface_hub.errors.StrictDataclassError: if the two do not fit, naming the values that differ.
    """

    model_type = "smt"
    _auto_class = "AutoConfig"  # a saved folder includes the code, see pretrained_smt.py
    sub_configs = {"teacher_config": SmtTeacherConfig, "student_config": SmtRnnConfig}

    teacher_config: Any = None
    student_config: Any = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        for name in self.sub_configs:
            value = getattr(self, name)
            if not (value is None or isinstance(value, dict | PreTrainedConfig)):
                raise TypeError(f"{name}={value!r} is neither a configuration nor a dictionary of one")
        check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        if self.teacher_config is None:
            self.teacher_config = SmtTeacherConfig()
        elif isinstance(self.teacher_config, dict):
            self.teacher_config = SmtTeacherConfig(**self.teacher_config)
        if self.student_config is None:
            self.student_config = student_config_for(self.teacher_config)
        elif isinstance(self.student_config, dict):
            self.student_config = SmtRnnConfig(**self.student_config)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            setattr(self, name, getattr(self.teacher_config, name))
        super().__post_init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of token ids of teacher and student; setting it changes both."""
        return self.teacher_config.vocab_size

    @vocab_size.setter
    def vocab_size(self, value: int):
        self.teacher_config.vocab_size = self.student_config.vocab_size = value

    def validate_fit(self):
        """Checks that teacher and student share the memory, the vocabulary and the readout."""
        check_fit(self.teacher_config, self.student_config)
        if not self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=False: the student's readout is the teacher's, leave it at True")
        if self.student_config.tie_word_embeddings:
            raise ValueError("student tie_word_embeddings=True: its head is the teacher's, leave it at False")


def student_config_for(teacher_config, **overrides) -> SmtRnnConfig:
    """The student configuration that fits a teacher; `overrides` are fields of [`SmtRnnConfig`]."""
    shared = {name: getattr(teacher_config, name) for name in SmtSharedConfig.__annotations__}
    return SmtRnnConfig(**{**shared, "num_readout_layers": teacher_config.num_decoder_layers, **overrides})


def check_fit(teacher_config, student_config) -> None:
    """Checks that a student can learn from a teacher.

    Raises:
        ValueError: naming each field that differs but must not.
    """
    pairs = [(name, name) for name in _MUST_FIT] + [("num_decoder_layers", "num_readout_layers")]
    compared = [(a, getattr(teacher_config, a), b, getattr(student_config, b)) for a, b in pairs]
    differing = [f"teacher {a}={x} but student {b}={y}" for a, x, b, y in compared if x != y]
    if differing:
        raise ValueError(f"teacher and student do not match: {'; '.join(differing)}; give them the same values")
