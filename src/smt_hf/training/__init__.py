"""Trainers of SMT and DMT, on `transformers.Trainer` and Accelerate."""

from .dmt_arguments import DmtTrainingArguments
from .dmt_trainer import DmtTrainer
from .smt_arguments import SmtTrainingArguments
from .smt_trainer import SmtTrainer

__all__ = ["DmtTrainer", "DmtTrainingArguments", "SmtTrainer", "SmtTrainingArguments"]
