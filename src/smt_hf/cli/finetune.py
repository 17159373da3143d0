"""`smt-hf finetune`: fine-tune a student by back-propagation through time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..data import DataOptions
from ..training import BpttTrainer, BpttTrainingArguments
from .bptt import build
from .options import RunOptions
from .parsing import Command, parse
from .run import REQUIRED, train


@dataclass
class FinetuneOptions(RunOptions, DataOptions):
    """The student to fine-tune, and the data to train it on."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})


COMMAND = Command(
    name="finetune",
    kinds=[FinetuneOptions, BpttTrainingArguments],
    description="""Fine-tune a student by back-propagation through time (BPTT), over the whole window unless --bptt_horizon
says otherwise. This is `smt-hf bptt` with a student to start from.""",
    example=r"""example:
  smt-hf finetune runs/dmt --config configs/tinystories_cpu/finetune.yaml \
      --dataset my.txt --output_dir runs/finetuned""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student", **REQUIRED},
)


def main(argv: Sequence[str]) -> BpttTrainer:
    """Runs the command and returns the trainer."""
    options, arguments = parse(COMMAND, argv)
    return train("finetune", options, arguments, [options.model], build)
