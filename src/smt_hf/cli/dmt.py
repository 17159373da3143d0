"""`smt-hf dmt`: correct the student on the states that it reaches by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..checkpoints import check_vocabulary, load_student, load_teacher
from ..data import DataOptions
from ..training import DmtTrainer, DmtTrainingArguments
from .options import RunOptions, processing_for
from .parsing import Command, parse
from .run import REQUIRED, train


@dataclass
class DmtOptions(RunOptions, DataOptions):
    """The student to train, its teacher, and the data to train on."""

    _argument_group_name = "arguments"

    model: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of an SMT run, or of a student to start from."}
    )
    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of an SMT run or of a teacher; by default, MODEL's own."}
    )


COMMAND = Command(
    name="dmt",
    kinds=[DmtOptions, DmtTrainingArguments],
    description="""DAgger Memory Training: the frozen teacher corrects the student on the states that the student reaches on
its own. The output folder holds the student, an ordinary causal language model.""",
    example=r"""example:
  smt-hf dmt runs/smt --config configs/tinystories_cpu/dmt.yaml \
      --dataset stories.txt --output_dir runs/dmt""",
    positionals=["model"],
    required={"model": "the folder or Hub id of an SMT run", **REQUIRED},
)


def main(argv: Sequence[str]) -> DmtTrainer:
    """Runs the command and returns the trainer."""
    options, arguments = parse(COMMAND, argv)
    return train("dmt", options, arguments, [options.teacher, options.model], build)


def build(options: DmtOptions, arguments: DmtTrainingArguments) -> DmtTrainer:
    """Builds the trainer of a DMT run, with its models and data."""
    student, teacher = load_student(options.model), load_teacher(options.teacher or options.model)
    tokenizer = processing_for(options)
    check_vocabulary(student, tokenizer)
    datasets = options.datasets(tokenizer, arguments.window_length, arguments)
    return DmtTrainer(model=student, args=arguments, teacher=teacher, processing_class=tokenizer, **datasets)
