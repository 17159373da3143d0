"""Supervised Memory Training (Kumar & Isola, arXiv 2606.06479) in the Hugging Face ecosystem.

Importing the package registers its models with the Auto classes of `transformers`.
"""

from .models import (
    SmtConfig,
    SmtForPreTraining,
    SmtRnnCache,
    SmtRnnConfig,
    SmtRnnForCausalLM,
    SmtRnnModel,
    SmtTeacherConfig,
    SmtTeacherModel,
)

__version__ = "0.1.0"

__all__ = [
    "SmtConfig",
    "SmtForPreTraining",
    "SmtRnnCache",
    "SmtRnnConfig",
    "SmtRnnForCausalLM",
    "SmtRnnModel",
    "SmtTeacherConfig",
    "SmtTeacherModel",
]
