"""What the training commands share: the output folder, the threads, resuming, saving, and stopping on a signal."""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import set_seed

from ..checkpoints import check_output_dir
from ..errors import InputError, Interrupted
from ..hub import CARD, TrainingStage, is_own_card, make_repository, share_folder, write_card
from ..training.resume import checkpoint_to_resume, numbered_checkpoints, settings_of
from ..utils.folder_lock import hold_folder
from ..utils.renamed import hint_for
from .options import RunOptions
from .signals import StopAtSignal

# Fields that every training needs.
REQUIRED = {
    "dataset": "a text file, a folder of them, or a Hub dataset id",
    "output_dir": "a folder for checkpoints and the trained model",
}
# Files that a run leaves in its output folder, besides numbered checkpoints and a card.
LEFT_BY_RUNS = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "training.json",
    "metrics.json",
    "preprocessor_config.json",
    "samples.png",
    "trainer_state.json",
    "training_args.bin",
    "evaluation.*",
    "evaluation/evaluation.*",
)


def train(command: str, options, arguments, starts_from: Sequence[str | None], build: Callable):
    """Trains, then saves the model, the tokenizer, the state, the metrics, the record and the card in the output folder.

    Args:
        command: name of the command, for the record.
        options: the command's own options, including [`RunOptions`].
        arguments: the trainer's arguments.
        starts_from: folders or Hub ids of the models that the run starts from; `None` where there is none.
        build: makes the trainer from `options` and `arguments`.

    Returns:
        The trainer.

    Raises:
        InputError: if the run cannot start, see [`prepare`] and `build`.
        Interrupted: if a signal ended it; a checkpoint of the step is saved then, unless `save_strategy` is "no".
    """
    stage = TrainingStage(command, [options, arguments], [place for place in starts_from if place is not None])
    prepare(options, arguments, stage)
    set_seed(arguments.seed)
    trainer = build(options, arguments)
    check_accepted(trainer)
    folder = Path(arguments.output_dir)
    if trainer.is_world_process_zero():
        hold_folder(folder)
        if not options.resume:  # another run may have finished since
            check_output_dir(str(folder), options.overwrite)
        if options.overwrite:
            remove_earlier_run(folder)
    with StopAtSignal(trainer) as stop:
        result = trainer.train(resume_from_checkpoint=options.resume)
    if stop.number is not None:
        raise Interrupted(stop.number, what_is_kept(trainer))
    save(trainer, result.metrics, stage)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        leave_process_group(trainer)
    return trainer


def prepare(options: RunOptions, arguments, stage: TrainingStage) -> None:
    """Sets the threads and checks what a run needs, before anything is read.

    Raises:
        InputError: if the folder is in use, there is nothing to resume, an earlier record is damaged, or the Hub refuses the
            model.
    """
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    if options.resume and options.overwrite:
        raise InputError("resume continues a run and overwrite starts over: pass one of them")
    if arguments.accept_changes and not options.resume:
        raise InputError(
            f"accept_changes={arguments.accept_changes} is for a resumed run: pass --resume, or leave it out"
        )
    stage.read_earlier()
    for place in stage.starts_from:
        if Path(place).expanduser().resolve() == Path(arguments.output_dir).resolve():
            raise InputError(
                f"output_dir={arguments.output_dir!r} contains the model that this run starts from: choose another folder"
            )
    if not options.resume:
        check_output_dir(arguments.output_dir, options.overwrite)
    if Path(arguments.output_dir).is_dir() and arguments.process_index == 0:
        hold_folder(arguments.output_dir)
    if options.resume:
        checkpoint_to_resume(True, arguments.output_dir)
    if arguments.push_to_hub:  # to learn of a refused token before the training, not after it
        make_repository(hub_name(arguments), bool(arguments.hub_private_repo), arguments.hub_token)


def check_accepted(trainer) -> None:
    """Checks that every name in `accept_changes` is a setting of the run.

    Raises:
        InputError: naming the first that is not.
    """
    accepted = trainer.args.accept_changes
    known = {*vars(trainer.args), *settings_of(trainer)} if accepted else set()
    for name in accepted:
        if name not in known:
            hint = hint_for(name, known) or "use the names that the refusal to resume lists, such as 'seed' or 'data'"
            raise InputError(f"accept_changes: there is no setting {name!r}: {hint}")


def save(trainer, metrics: dict, stage: TrainingStage) -> None:
    """Saves and evaluates the result of a finished training, and pushes it to the Hub if asked to."""
    folder = Path(trainer.args.output_dir)
    trainer.save_model(_internal_call=True)  # shared below, with its card
    trainer.save_state()
    if trainer.eval_dataset is not None:
        metrics = {**metrics, **trainer.evaluate()}
    if trainer.is_world_process_zero():
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        stage.write(trainer, metrics)
        write_card(str(folder), hub_name(trainer.args) if trainer.args.push_to_hub else None)
        if trainer.args.push_to_hub:
            share_folder(folder, hub_name(trainer.args), token=trainer.args.hub_token)


def remove_earlier_run(folder: Path) -> None:
    """Removes what an earlier run left in its output folder, so that it is not mistaken for the result of this run."""
    for checkpoint in numbered_checkpoints(folder):
        shutil.rmtree(checkpoint)
    files = [file for pattern in LEFT_BY_RUNS for file in folder.glob(pattern)]
    if is_own_card(folder / CARD):
        files.append(folder / CARD)
    for file in files:
        file.unlink()


def what_is_kept(trainer) -> str:
    """Says what an interrupted training saved, and how to continue."""
    kept = numbered_checkpoints(trainer.args.output_dir)
    step = trainer.state.global_step
    if not kept:
        return f"interrupted at step {step}; no checkpoint was saved, so there is nothing to resume: start again"
    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--resume")]
    command = shlex.join(["smt-hf", *words, "--resume"])
    return f"interrupted at step {step}; {kept[0].name} in {trainer.args.output_dir!r} was saved. Continue with: {command}"


def hub_name(arguments) -> str:
    """The repository that a run is pushed to: `hub_model_id`, or the name of the output folder."""
    return arguments.hub_model_id or Path(arguments.output_dir).resolve().name


def leave_process_group(trainer) -> None:
    """Ends the process group for all processes together: one that leaves early would break the others' connections.

    DistributedDataParallel goes first. If it held the last reference to the group, its destructor would wait, holding the
    interpreter lock, for a thread of the group that may need that lock.
    """
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
