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
    """The student to train, a new or a saved one, and the data to train it on."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a student or of an SMT run to start from instead of new weights; its sizes are kept."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a causal language model whose predictions the student also learns, with kd_weight; a new "
            "student uses its tokenizer."
        },
    )


COMMAND = Command(
    name="bptt",
    kinds=[BpttOptions, BpttTrainingArguments],
    description="""Train a student without a teacher, by full or truncated back-propagation through time (BPTT), from new
weights or from MODEL. The output folder holds the student, an ordinary causal language model.""",
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
    """Builds the trainer of a BPTT run, with its student and data; `options` are those of `bptt` or `finetune`."""
    backbone = backbone_for(options)
    student = load_student(options.model) if options.model else None
    tokenizer = processing_for(options)
    if student is None:
        student = SmtRnnForCausalLM(options.student_config(tokenizer, None if backbone is None else backbone.config))
    check_vocabulary(student, tokenizer)
    datasets = options.datasets(tokenizer, arguments.window_length, arguments)
    return BpttTrainer(model=student, args=arguments, backbone=backbone, processing_class=tokenizer, **datasets)
