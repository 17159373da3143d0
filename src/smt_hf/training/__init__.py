"""Trainers of SMT, DMT and BPTT, on `transformers.Trainer` and Accelerate."""

from .bptt_arguments import BpttTrainingArguments
from .bptt_trainer import BpttTrainer
from .dmt_arguments import DmtTrainingArguments
from .dmt_trainer import DmtTrainer
from .smt_arguments import SmtTrainingArguments
from .smt_trainer import SmtTrainer

__all__ = [
    "BpttTrainer",
    "BpttTrainingArguments",
    "DmtTrainer",
    "DmtTrainingArguments",
    "SmtTrainer",
    "SmtTrainingArguments",
]
