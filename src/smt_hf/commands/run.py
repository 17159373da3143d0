"""What the training commands do alike: the output folder, the threads, resuming, saving."""

import json
import shutil
from pathlib import Path

import torch
from transformers.trainer_utils import get_last_checkpoint

from ..checkpoints import check_output_dir
from ..errors import InputError


def prepare(arguments, run) -> str | None:
    """Sets the threads and checks the output folder.

    Returns:
        The checkpoint to resume from, or `None`.

    Raises:
        InputError: if the folder is in use, or there is nothing to resume.
    """
    if run.num_threads is not None:
        torch.set_num_threads(run.num_threads)
    if not run.resume:
        check_output_dir(arguments.output_dir, run.overwrite)
        return None
    checkpoint = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    if checkpoint is None:
        raise InputError(f"output_dir={arguments.output_dir!r} holds no checkpoint to resume: leave out --resume")
    return checkpoint


def train(trainer, run, checkpoint: str | None) -> None:
    """Trains, then saves the model, the tokenizer, the state and the metrics in the output folder."""
    folder = Path(trainer.args.output_dir)
    if run.overwrite and checkpoint is None and trainer.is_world_process_zero():
        for earlier in folder.glob("checkpoint-*"):  # else a later --resume would find them
            shutil.rmtree(earlier)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_state()
    metrics = result.metrics
    if trainer.eval_dataset is not None:
        metrics |= trainer.evaluate()
    if trainer.is_world_process_zero():
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
