"""`smt-hf smt`: train teacher and student together."""

from collections.abc import Sequence

from transformers import set_seed

from ..checkpoints import check_vocabulary, load_joint
from ..data import load_tokenizer
from ..hub import TrainingStage
from ..models import SmtForPreTraining
from ..training import SmtTrainer, SmtTrainingArguments
from .options import DataOptions, ModelOptions, RunOptions
from .parsing import parse
from .run import prepare, train

DESCRIPTION = """Supervised Memory Training: a Transformer teacher learns a memory state for every time step, and the
recurrent student learns the transitions between them, all time steps in parallel. The output folder holds both."""
EXAMPLE = """example:
  smt-hf smt --config configs/tinystories_cpu/smt.yaml --dataset stories.txt --output_dir runs/smt
  torchrun --nproc_per_node 8 -m smt_hf smt --config configs/tinystories/smt.yaml --output_dir runs/smt"""


def main(argv: Sequence[str]) -> SmtTrainer:
    """Runs the command and returns the trainer."""
    model_options, data, run, arguments = parse(
        [ModelOptions, DataOptions, RunOptions, SmtTrainingArguments], argv, "smt", DESCRIPTION, EXAMPLE
    )
    starts_from = [model_options.model] if model_options.model else []
    stage = TrainingStage("smt", [model_options, data, arguments], starts_from)
    resume = prepare(arguments, run, stage)
    set_seed(arguments.seed)
    tokenizer = load_tokenizer(model_options.model or model_options.tokenizer)
    config = None if model_options.model else model_options.config(tokenizer)
    datasets = data.datasets(tokenizer, arguments.window_length, arguments)
    model = SmtForPreTraining(config) if config else load_joint(model_options.model)
    check_vocabulary(model.teacher, tokenizer)
    trainer = SmtTrainer(model=model, args=arguments, processing_class=tokenizer, **datasets)
    train(trainer, run, resume, stage)
    return trainer
