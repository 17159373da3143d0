"""Supervised Memory Training (Kumar & Isola, arXiv 2606.06479) in the Hugging Face ecosystem.

Importing the package registers its models with the Auto classes of `transformers`.
"""

from ._version import __version__
from .models import (
    SmtConfig,
    SmtForPreTraining,
    SmtImageProcessor,
    SmtMemory,
    SmtRnnCache,
    SmtRnnConfig,
    SmtRnnForCausalLM,
    SmtRnnForSequenceClassification,
    SmtRnnModel,
    SmtTeacherConfig,
    SmtTeacherModel,
)

_TRAINING = (
    "BpttTrainer",
    "BpttTrainingArguments",
    "DmtTrainer",
    "DmtTrainingArguments",
    "LmTrainer",
    "LmTrainingArguments",
    "SmtTrainer",
    "SmtTrainingArguments",
)


def __getattr__(name: str):
    """Imports the trainers on first use, so that code that only serves a model does not wait for them."""
    if name in _TRAINING:
        from . import training

        return getattr(training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BpttTrainer",
    "BpttTrainingArguments",
    "DmtTrainer",
    "DmtTrainingArguments",
    "LmTrainer",
    "LmTrainingArguments",
    "SmtConfig",
    "SmtForPreTraining",
    "SmtImageProcessor",
    "SmtMemory",
    "SmtRnnCache",
    "SmtRnnConfig",
    "SmtRnnForCausalLM",
    "SmtRnnForSequenceClassification",
    "SmtRnnModel",
    "SmtTeacherConfig",
    "SmtTeacherModel",
    "SmtTrainer",
    "SmtTrainingArguments",
    "__version__",
]
