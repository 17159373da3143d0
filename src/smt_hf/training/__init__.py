"""Trainers of SMT, DMT and BPTT, on `transformers.Trainer` and Accelerate."""

from .bptt import BpttTrainer
from .bptt_arguments import BpttTrainingArguments
from .dmt import DmtTrainer
from .dmt_arguments import DmtTrainingArguments
from .smt import SmtTrainer
from .smt_arguments import SmtTrainingArguments

__all__ = [
    "BpttTrainer",
    "BpttTrainingArguments",
    "DmtTrainer",
    "DmtTrainingArguments",
    "SmtTrainer",
    "SmtTrainingArguments",
]
