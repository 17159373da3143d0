"""The record of a training, kept beside the weights: every stage that led to them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import transformers
from transformers import TrainingArguments
from transformers.utils import cached_file

from ..errors import InputError

RECORD = "training.json"
# What says nothing of the model, or nothing that strangers should read.
_LEFT_OUT = set(
    "output_dir overwrite resume cache_dir logging_dir run_name hub_token hub_model_id push_to_hub disable_tqdm report_to "
    "save_strategy save_steps save_total_limit logging_steps teacher student model num_threads dataloader_pin_memory".split()
)


@dataclass
class TrainingStage:
    """One training command: what it was told, and what it started from.

    Args:
        command: `"smt"`, `"dmt"`, `"bptt"` or `"finetune"`.
        options: its parsed dataclasses.
        starts_from: folder or Hub id of the models that it started from; their stages come first in the record.
    """

    command: str
    options: Sequence
    starts_from: Sequence[str] = ()

    def write(self, trainer, metrics: dict) -> None:
        """Writes `training.json` into the trainer's output folder: the earlier stages, then this one."""
        earlier = []
        for path in self.starts_from:
            earlier += [stage for stage in read_stages(path) if stage not in earlier]
        record = json.dumps([*earlier, self._describe(trainer, metrics)], indent=1)
        (Path(trainer.args.output_dir) / RECORD).write_text(record + "\n", encoding="utf-8")

    def _describe(self, trainer, metrics: dict) -> dict:
        from .. import __version__

        args = trainer.args
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        recipe = {}
        for given in self.options:
            recipe |= changed_fields(given)
        device = (
            torch.cuda.get_device_name() if args.device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
        )
        return {
            "command": self.command,
            "recipe": recipe,
            "data": describe_data(trainer.train_dataset),
            "steps": trainer.state.global_step,
            "windows_per_step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "seconds": round(metrics.get("train_runtime", 0), 1),
            "losses": logs[-1] if logs else {},
            "evaluation": {name: value for name, value in metrics.items() if name.startswith("eval_")},
            "hardware": f"{args.world_size} x {device}" if args.world_size > 1 else device,
            "versions": {"smt_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        }


def changed_fields(options) -> dict:
    """The fields of an options dataclass that differ from its defaults; local files and folders by their names only."""
    reference = (
        type(options)(output_dir=options.output_dir) if isinstance(options, TrainingArguments) else type(options)()
    )
    changed = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name.startswith("_") or field.name in _LEFT_OUT or value == getattr(reference, field.name, None):
            continue
        if isinstance(value, str) and (os.path.isabs(value) or os.path.exists(value)):
            value = Path(value).name
        try:
            json.dumps(value)
        except TypeError:
            value = str(value)
        changed[field.name] = getattr(value, "value", value)
    return changed


def describe_data(dataset) -> dict:
    """How much text a data set of token windows holds; nothing for others."""
    cache = getattr(dataset, "cache", None)
    if cache is None:
        return {}
    return {
        "tokens": cache.num_tokens,
        "documents": cache.num_documents,
        "bytes": cache.num_bytes,
        "window_length": dataset.window_length,
    }


def read_stages(path: str) -> list[dict]:
    """The stages recorded beside a model, in their order; none if it has no record.

    Raises:
        InputError: if the record is damaged.
    """
    try:
        file = cached_file(path, RECORD, _raise_exceptions_for_missing_entries=False)
    except OSError:
        file = None
    if file is None:
        return []
    try:
        stages = json.loads(Path(file).read_text(encoding="utf-8"))
        return [dict(stage) for stage in stages]
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is no training record: delete it, or restore it from the run") from error
