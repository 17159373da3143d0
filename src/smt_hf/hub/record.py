"""The record of a training, kept beside the weights: every stage that led to them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
import transformers
from transformers import TrainingArguments
from transformers.utils import cached_file

from .._version import __version__
from ..errors import InputError, one_line

RECORD = "training.json"
# Fields that say nothing about the model, or are private.
_LEFT_OUT = set(
    "output_dir overwrite resume cache_dir logging_dir run_name hub_token hub_model_id push_to_hub disable_tqdm report_to "
    "save_strategy save_steps save_total_limit logging_steps teacher student model num_threads dataloader_pin_memory".split()
)


@dataclass
class TrainingStage:
    """One training command: its options, and what it started from.

    Args:
        command: `"lm"`, `"smt"`, `"dmt"`, `"bptt"` or `"finetune"`.
        options: its parsed options dataclasses.
        starts_from: folders or Hub ids of the models that it started from; their stages come first in the record.
    """

    command: str
    options: Sequence
    starts_from: Sequence[str] = ()
    earlier: list[dict] = field(default_factory=list)

    def read_earlier(self) -> None:
        """Reads the records of the models that the run starts from; before it trains, because they may be damaged.

        Raises:
            InputError: if one is damaged.
        """
        self.earlier = []
        for path in self.starts_from:
            self.earlier += [stage for stage in read_stages(path) if stage not in self.earlier]

    def write(self, trainer, metrics: dict) -> None:
        """Writes `training.json` into the trainer's output folder: the earlier stages, then this one."""
        record = json.dumps([*self.earlier, self._describe(trainer, metrics)], indent=1)
        (Path(trainer.args.output_dir) / RECORD).write_text(record + "\n", encoding="utf-8")

    def _describe(self, trainer, metrics: dict) -> dict:
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
            "seconds": round(trainer.clock.elapsed, 1),
            **({"resumed": trainer.changes} if trainer.changes else {}),
            "losses": logs[-1] if logs else {},
            "evaluation": {name: value for name, value in metrics.items() if name.startswith("eval_")},
            "hardware": f"{args.world_size} x {device}" if args.world_size > 1 else device,
            "versions": {"smt_hf": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        }


def changed_fields(options) -> dict:
    """The fields of an options dataclass that differ from its defaults; local files and folders appear by name only."""
    reference = (
        type(options)(output_dir=options.output_dir) if isinstance(options, TrainingArguments) else type(options)()
    )
    changed = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name.startswith("_") or option.name in _LEFT_OUT or value == getattr(reference, option.name, None):
            continue
        value = public_name(value)
        try:
            json.dumps(value)
        except TypeError:
            value = str(value)
        changed[option.name] = getattr(value, "value", value)
    return changed


def public_name(value):
    """The name alone of a local file or folder; any other value unchanged."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if text.startswith("~") or os.path.isabs(text) or os.path.exists(text) or text.startswith((".", "file:")):
            return Path(text).name
    return value


def describe_data(dataset) -> dict:
    """The size of a dataset of token windows; empty for other datasets."""
    cache = getattr(dataset, "cache", None)
    if cache is None:
        return {}
    return {
        "tokens": cache.num_tokens,
        "documents": cache.num_documents,
        "bytes": cache.num_bytes,
        "window_length": dataset.window_length,
    }


# The fields that every stage of a record has, and those that it may have.
_NEEDED = {
    "command": str,
    "recipe": dict,
    "steps": int,
    "windows_per_step": int,
    "seconds": int | float,
    "hardware": str,
}
_OPTIONAL = {"data": dict, "losses": dict, "evaluation": dict, "versions": dict, "resumed": list}
_DATA = {"tokens": int, "documents": int, "bytes": int, "window_length": int}


def check_stage(stage) -> None:
    """Checks that a stage of a record has what its readers rely on; it may come from anyone.

    Raises:
        ValueError: naming what is missing or of another type.
    """
    if not isinstance(stage, dict):
        raise ValueError(f"a stage is {stage!r:.40}, not a mapping")
    parts: list[tuple[dict, dict]] = [
        (stage, _NEEDED),
        (stage, {name: kind for name, kind in _OPTIONAL.items() if name in stage}),
    ]
    if stage.get("data"):
        parts.append((stage["data"], _DATA))
    for values, kinds in parts:
        for name, kind in kinds.items():
            if not isinstance(values, dict) or not isinstance(values.get(name), kind):
                raise ValueError(f"a stage has no {name}, or one of the wrong type")
    if stage.get("data") and min(stage["data"][name] for name in _DATA) < 1:
        raise ValueError("a stage was trained on nothing")


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
        for stage in stages if isinstance(stages, list) else [stages]:
            check_stage(stage)
        return stages
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file} is not a training record ({one_line(error)}): delete it, or restore it from the run"
        ) from error
