"""`smt-hf finetune`: go on with a student by back-propagation through time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from ..training import BpttTrainer, BpttTrainingArguments
from .bptt import train_student
from .options import DataOptions, RunOptions
from .parsing import parse

DESCRIPTION = """Fine-tune a student by back-propagation through time (BPTT), over the whole window unless --bptt_horizon says
otherwise. It is `smt-hf bptt` with a student to start from."""
EXAMPLE = """example:
  smt-hf finetune --config configs/tinystories_cpu/finetune.yaml --student runs/dmt --dataset my.txt --output_dir runs/ft"""


@dataclass
class FinetuneOptions:
    """What to fine-tune."""

    _argument_group_name = "model"

    student: str | None = field(default=None, metadata={"help": "Folder or Hub id of the student."})


def main(argv: Sequence[str]) -> BpttTrainer:
    """Runs the command and returns the trainer."""
    options, data, run, arguments = parse(
        [FinetuneOptions, DataOptions, RunOptions, BpttTrainingArguments], argv, "finetune", DESCRIPTION, EXAMPLE
    )
    if options.student is None:
        raise InputError("student is missing: give --student the folder of a student")
    return train_student("finetune", options, data, run, arguments)
