"""`smt-hf dmt`: correct the student on the states that it reaches by itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import set_seed

from ..checkpoints import check_vocabulary, load_student, load_teacher
from ..data import load_tokenizer
from ..errors import InputError
from ..hub import TrainingStage
from ..training import DmtTrainer, DmtTrainingArguments
from .options import DataOptions, RunOptions
from .parsing import parse
from .run import prepare, train

DESCRIPTION = """DAgger Memory Training: the frozen teacher corrects the student on the states that the student reaches on
its own. The output folder holds the student, an ordinary causal language model."""
EXAMPLE = """example:
  smt-hf dmt --config configs/tinystories_cpu/dmt.yaml --teacher runs/smt --dataset stories.txt --output_dir runs/dmt"""


@dataclass
class TeacherOptions:
    """Whom to train, and against whom."""

    _argument_group_name = "model"

    teacher: str | None = field(default=None, metadata={"help": "Folder or Hub id of an SMT run, or of a teacher."})
    student: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the student to start from; the SMT run's by default."}
    )


def main(argv: Sequence[str]) -> DmtTrainer:
    """Runs the command and returns the trainer."""
    options, data, run, arguments = parse(
        [TeacherOptions, DataOptions, RunOptions, DmtTrainingArguments], argv, "dmt", DESCRIPTION, EXAMPLE
    )
    if options.teacher is None:
        raise InputError("teacher is missing: give --teacher the folder of an SMT run")
    starts_from = [options.teacher, options.student or options.teacher]
    stage = TrainingStage("dmt", [options, data, arguments], starts_from)
    resume = prepare(arguments, run, stage)
    set_seed(arguments.seed)
    teacher, student = load_teacher(options.teacher), load_student(options.student or options.teacher)
    tokenizer = load_tokenizer(options.student or options.teacher)
    check_vocabulary(student, tokenizer)
    datasets = data.datasets(tokenizer, arguments.window_length, arguments)
    trainer = DmtTrainer(model=student, args=arguments, teacher=teacher, processing_class=tokenizer, **datasets)
    train(trainer, run, resume, stage)
    return trainer
