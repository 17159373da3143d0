"""`smt-hf finetune`: back-propagation through time, through the stock Trainer."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import Trainer, TrainingArguments, default_data_collator, set_seed

from ..checkpoints import check_vocabulary, load_student
from ..data import load_tokenizer
from ..errors import InputError
from ..models.documents_smt import document_starts
from ..sharing import TrainingStage
from ..training.callbacks import DatasetEpoch, TrainClock
from .options import DataOptions, RunOptions
from .parsing import parse
from .run import prepare, train

DESCRIPTION = """Fine-tune a student with ordinary back-propagation through time (BPTT) over the whole window, through the
stock transformers.Trainer."""
EXAMPLE = """example:
  smt-hf finetune --config configs/tinystories_cpu/finetune.yaml --student runs/dmt --dataset my.txt --output_dir runs/ft"""


@dataclass
class FinetuneOptions:
    """What to fine-tune, and over how many tokens."""

    _argument_group_name = "model"

    student: str | None = field(default=None, metadata={"help": "Folder or Hub id of the student."})
    context_length: int = field(default=128, metadata={"help": "Tokens of a window, all of them back-propagated."})
    max_train_seconds: float | None = field(default=None, metadata={"help": "Stop after so many seconds of training."})
    train_clock: str = field(default="wall", metadata={"help": "'wall' or 'cpu' seconds."})


@dataclass
class FinetuneArguments(TrainingArguments):
    """`TrainingArguments` whose data keeps its document ids and whose saved model serves with its cache."""

    remove_unused_columns: bool = field(default=False, metadata={"help": "Off: document ids are needed."})
    use_cache: bool = field(default=True, metadata={"help": "Kept in the saved configuration, for generation."})


def collate(items: list[dict]) -> dict[str, torch.Tensor]:
    """Stacks windows and adds their labels; the first token of a document is no label of the one before."""
    batch = default_data_collator(items)
    begins = document_starts(batch["input_ids"], batch["document_ids"])
    return batch | {"labels": batch["input_ids"].masked_fill(begins, -100)}


def main(argv: Sequence[str]) -> Trainer:
    """Runs the command and returns the trainer."""
    options, data, run, arguments = parse(
        [FinetuneOptions, DataOptions, RunOptions, FinetuneArguments], argv, "finetune", DESCRIPTION, EXAMPLE
    )
    if options.student is None:
        raise InputError("student is missing: give --student the folder of a student")
    checkpoint = prepare(arguments, run)
    set_seed(arguments.seed)
    student, tokenizer = load_student(options.student), load_tokenizer(options.student)
    check_vocabulary(student, tokenizer)
    datasets = data.datasets(tokenizer, options.context_length, arguments)
    trainer = Trainer(
        model=student,
        args=arguments,
        processing_class=tokenizer,
        data_collator=collate,
        callbacks=[DatasetEpoch(), TrainClock(options.max_train_seconds, options.train_clock)],
        **datasets,
    )
    train(trainer, run, checkpoint, TrainingStage("finetune", [options, data, arguments], [options.student]))
    return trainer
