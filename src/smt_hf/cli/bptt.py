"""`smt-hf bptt`: train a student alone, by back-propagation through time."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..checkpoints import check_vocabulary, load_student
from ..data import DataOptions
from ..models import SmtRnnForCausalLM
from ..training import BpttTrainer, BpttTrainingArguments
from .options import RunOptions, StudentOptions, backbone_for, processing_for
from .parsing import Command, parse
from .run import REQUIRED, train


@dataclass
class BpttOptions(RunOptions, DataOptions, StudentOptions):
    """The student, new of these sizes or one to start from, and what to train it on."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a student or of an SMT run to start from instead of new weights; the sizes are its own."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a causal language model whose predictions a new student learns too, with kd_weight; its "
            "tokenizer is the student's."
        },
    )


COMMAND = Command(
    name="bptt",
    kinds=[BpttOptions, BpttTrainingArguments],
    description="""Train a student without a teacher, by full or truncated back-propagation through time (BPTT): from new
weights, or continuing with MODEL. The output folder holds the student, an ordinary causal language model.""",
    example=r"""example:
  smt-hf bptt --config configs/tinystories_cpu/bptt.yaml \
      --dataset stories.txt --output_dir runs/bptt
  smt-hf bptt runs/dmt --config configs/tinystories_cpu/bptt.yaml \
      --dataset stories.txt --output_dir runs/on""",
    positionals=["model"],
    required=REQUIRED,
)


def main(argv: Sequence[str]) -> BpttTrainer:
    """Runs the command and returns the trainer."""
    options, arguments = parse(COMMAND, argv)
    return train("bptt", options, arguments, [options.model], build)


def build(options, arguments: BpttTrainingArguments) -> BpttTrainer:
    """The trainer of a BPTT run, with its student and its data; `options` are those of `bptt` or `finetune`."""
    backbone = backbone_for(options)
    student = load_student(options.model) if options.model else None
    tokenizer = processing_for(options)
    if student is None:
        student = SmtRnnForCausalLM(options.student_config(tokenizer, None if backbone is None else backbone.config))
    check_vocabulary(student, tokenizer)
    datasets = options.datasets(tokenizer, arguments.window_length, arguments)
    return BpttTrainer(model=student, args=arguments, backbone=backbone, processing_class=tokenizer, **datasets)
