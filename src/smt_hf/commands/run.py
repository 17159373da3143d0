"""What the training commands do alike: the output folder, the threads, resuming, saving."""

import json
import shutil
from pathlib import Path

import torch

from ..checkpoints import check_output_dir
from ..errors import InputError
from ..sharing import TrainingStage, make_repository, share_folder, write_card


def prepare(arguments, run) -> str | None:
    """Sets the threads and checks the output folder.

    Returns:
        The checkpoint to resume from, or `None`.

    Raises:
        InputError: if the folder is in use, there is nothing to resume, or the Hub will not have the model.
    """
    if run.num_threads is not None:
        torch.set_num_threads(run.num_threads)
    if arguments.push_to_hub:  # a refused token is better known before the training than after it
        make_repository(hub_name(arguments), bool(arguments.hub_private_repo), arguments.hub_token)
    if not run.resume:
        check_output_dir(arguments.output_dir, run.overwrite)
        return None
    checkpoint = last_complete_checkpoint(Path(arguments.output_dir))
    if checkpoint is None:
        raise InputError(f"output_dir={arguments.output_dir!r} holds no checkpoint to resume: leave out --resume")
    return str(checkpoint)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: a run may be killed while it writes one.

    The Trainer writes `trainer_state.json` last.
    """

    def complete(checkpoint: Path) -> bool:
        try:
            return isinstance(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")), dict)
        except (OSError, ValueError):
            return False

    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    return next((checkpoint for checkpoint in found if complete(checkpoint)), None)


def train(trainer, run, checkpoint: str | None, stage: TrainingStage) -> None:
    """Trains, then saves the model, the tokenizer, the state, the metrics, the record and the card in the output folder."""
    folder = Path(trainer.args.output_dir)
    if run.overwrite and checkpoint is None and trainer.is_world_process_zero():
        for earlier in folder.glob("checkpoint-*"):  # else a later --resume would find them
            shutil.rmtree(earlier)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(_internal_call=True)  # shared below, with its card
    trainer.save_state()
    metrics = result.metrics
    if trainer.eval_dataset is not None:
        metrics |= trainer.evaluate()
    if trainer.is_world_process_zero():
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        stage.write(trainer, metrics)
        write_card(str(folder), hub_name(trainer.args) if trainer.args.push_to_hub else None)
        if trainer.args.push_to_hub:
            share_folder(folder, hub_name(trainer.args), token=trainer.args.hub_token)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        leave_process_group(trainer)


def hub_name(arguments) -> str:
    """The repository that a run is shared in: `hub_model_id`, or the output folder's name."""
    return arguments.hub_model_id or Path(arguments.output_dir).resolve().name


def leave_process_group(trainer) -> None:
    """Ends the process group for all processes together: one that leaves early takes the others' connections with it.

    DistributedDataParallel goes first. If it held the last reference to the group, its destructor would wait, holding the
    interpreter lock, for a thread of the group that may need that lock.
    """
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
