"""`smt-hf bptt`: train a student alone, by back-propagation through time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import set_seed

from ..checkpoints import check_vocabulary, load_student
from ..data import load_tokenizer
from ..hub import TrainingStage
from ..models import SmtRnnForCausalLM
from ..training import BpttTrainer, BpttTrainingArguments
from .options import DataOptions, RunOptions, StudentOptions
from .parsing import parse
from .run import prepare, train

DESCRIPTION = """Train a student without a teacher, by full or truncated back-propagation through time (BPTT): from new weights,
or going on with --student. The output folder holds the student, an ordinary causal language model."""
EXAMPLE = """example:
  smt-hf bptt --config configs/tinystories_cpu/bptt.yaml --dataset stories.txt --output_dir runs/bptt
  smt-hf bptt --config configs/tinystories_cpu/bptt.yaml --dataset stories.txt --student runs/dmt --output_dir runs/on"""


@dataclass
class BpttOptions(StudentOptions):
    """The student: new, of these sizes, or one to go on with."""

    student: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a student to start from instead of new weights; the sizes are its own."
        },
    )


def main(argv: Sequence[str]) -> BpttTrainer:
    """Runs the command and returns the trainer."""
    options, data, run, arguments = parse(
        [BpttOptions, DataOptions, RunOptions, BpttTrainingArguments], argv, "bptt", DESCRIPTION, EXAMPLE
    )
    return train_student("bptt", options, data, run, arguments)


def train_student(command: str, options, data, run, arguments) -> BpttTrainer:
    """What `bptt` and `finetune` do alike once their arguments are parsed: load or make the student, train it, save it."""
    stage = TrainingStage(command, [options, data, arguments], [options.student] if options.student else [])
    resume = prepare(arguments, run, stage)
    set_seed(arguments.seed)
    tokenizer = load_tokenizer(options.student or options.tokenizer)
    config = None if options.student else options.student_config(tokenizer)
    datasets = data.datasets(tokenizer, arguments.window_length, arguments)
    student = SmtRnnForCausalLM(config) if config else load_student(options.student)
    check_vocabulary(student, tokenizer)
    trainer = BpttTrainer(model=student, args=arguments, processing_class=tokenizer, **datasets)
    train(trainer, run, resume, stage)
    return trainer
