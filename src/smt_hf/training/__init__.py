"""Trainers for SMT, DMT and BPTT, built on `transformers.Trainer` and Accelerate."""

from .bptt import BpttTrainer, BpttTrainingArguments
from .dmt import DmtTrainer, DmtTrainingArguments
from .lm import LmTrainer, LmTrainingArguments
from .smt import SmtTrainer, SmtTrainingArguments

__all__ = [
    "BpttTrainer",
    "BpttTrainingArguments",
    "DmtTrainer",
    "DmtTrainingArguments",
    "LmTrainer",
    "LmTrainingArguments",
    "SmtTrainer",
    "SmtTrainingArguments",
]
