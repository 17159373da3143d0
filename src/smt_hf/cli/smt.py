"""`smt-hf smt`: train teacher and student together."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..checkpoints import check_vocabulary, load_joint
from ..data import DataOptions
from ..errors import InputError
from ..training import SmtTrainer, SmtTrainingArguments
from .options import ModelOptions, RunOptions, backbone_for, processing_for
from .parsing import Command, parse
from .run import REQUIRED, train


@dataclass
class SmtOptions(RunOptions, DataOptions, ModelOptions):
    """The teacher and student to train, and the data to train them on."""

    model: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of an SMT run to start from instead of new weights; its sizes are kept."},
    )


COMMAND = Command(
    name="smt",
    kinds=[SmtOptions, SmtTrainingArguments],
    description="""Supervised Memory Training: a Transformer teacher learns a memory state for every time step, and the
recurrent student learns the transitions between them, all time steps in parallel. The output folder holds both.""",
    example=r"""example:
  smt-hf smt --config configs/tinystories_cpu/smt.yaml \
      --dataset stories.txt --output_dir runs/smt
  torchrun --nproc_per_node 8 -m smt_hf smt \
      --config configs/tinystories/smt.yaml --output_dir runs/smt""",
    positionals=["model"],
    required=REQUIRED,
)


def main(argv: Sequence[str]) -> SmtTrainer:
    """Runs the command and returns the trainer."""
    options, arguments = parse(COMMAND, argv)
    if options.model is not None and options.backbone is not None:
        raise InputError(
            f"backbone={options.backbone!r} is for a new teacher, but model={options.model!r} has one: leave one out"
        )
    return train("smt", options, arguments, [options.model or options.backbone], build)


def build(options: SmtOptions, arguments: SmtTrainingArguments) -> SmtTrainer:
    """Builds the trainer of an SMT run, with its model and data."""
    model = load_joint(options.model) if options.model else None
    language_model = backbone_for(options)
    tokenizer = processing_for(options)
    if model is None:
        model = options.new_model(tokenizer, language_model, arguments.seed)
    check_vocabulary(model.teacher, tokenizer)
    datasets = options.datasets(tokenizer, arguments.window_length, arguments)
    return SmtTrainer(model=model, args=arguments, processing_class=tokenizer, **datasets)
