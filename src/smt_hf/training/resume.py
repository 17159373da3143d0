"""Resuming from checkpoints: only complete ones, and only with the settings that they were saved with."""

import json
import logging
import re
from dataclasses import fields
from pathlib import Path

import torch
import xxhash

from ..errors import InputError
from ..utils.differences import differences
from ..utils.digests import file_digest

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "trainer_state.json"  # the file that the Trainer writes last

# Arguments that do not change what is learned.
NEUTRAL = set(
    "output_dir accept_changes use_cpu full_determinism local_rank debug disable_tqdm report_to run_name project trackio_space_id "
    "trackio_bucket_id trackio_static_space_id log_level log_level_replica log_on_each_node logging_strategy logging_steps "
    "logging_first_step logging_nan_inf_filter include_num_input_tokens_seen skip_memory_metrics eval_strategy eval_steps eval_delay "
    "eval_on_start per_device_eval_batch_size prediction_loss_only bf16_full_eval fp16_full_eval eval_rollout_steps "
    "eval_rollout_batches drift_steps collapse_variance collapse_rank save_strategy save_steps save_total_limit save_only_model "
    "save_on_each_node enable_jit_checkpoint load_best_model_at_end metric_for_best_model greater_is_better push_to_hub hub_token "
    "hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision resume_from_checkpoint do_train do_eval do_predict "
    "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
    "dataloader_multiprocessing_context ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph "
    "ddp_backend ddp_timeout torch_empty_cache_steps use_cache checkpoint_steps activation_checkpointing "
    "activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs auto_find_batch_size".split()
)
# Arguments that a resumed run may always change: to train for longer, or to continue after a loss that was not finite.
ASKED = ("learning_rate", "max_grad_norm", "max_steps", "num_train_epochs", "max_train_seconds")
# How the rows of an optimiser step are distributed; only their total number matters.
DEALT = ("per_device_train_batch_size", "gradient_accumulation_steps", "processes")
_NOISE = ("transformers_version", "dtype", "_name_or_path", "auto_map", "architectures", "use_cache")


def settings_of(trainer) -> dict:
    """The settings that determine the result of a training, as JSON values."""
    args = trainer.args
    settings = {
        "method": type(trainer).__name__.removesuffix("Trainer").lower(),
        **{field.name: getattr(args, field.name) for field in fields(args) if field.name not in NEUTRAL},
        "model": _sizes(trainer.accelerator.unwrap_model(trainer.model).config.to_dict()),
        "data": data_identity(trainer.train_dataset),
        "processes": args.world_size,
        **trainer.further_settings(),
    }
    return json.loads(json.dumps(settings, default=_plain))


def rows_per_step(settings: dict) -> int:
    """Number of rows of an optimiser step, over all processes and accumulated batches."""
    product = 1
    for name in DEALT:
        product *= settings[name]
    return product


def data_identity(dataset) -> dict:
    """Identifies a training data set: by its own `identity`, or by its kind, its length and a few of its rows."""
    if dataset is None:
        return {}
    if hasattr(dataset, "identity"):
        return dataset.identity()
    identity = {"kind": type(dataset).__name__}
    if hasattr(dataset, "_fingerprint"):  # from the datasets library
        return {**identity, "fingerprint": dataset._fingerprint}
    if not hasattr(dataset, "__len__"):
        return identity
    length = len(dataset)
    rows = xxhash.xxh3_128()
    for index in sorted({0, length // 2, length - 1}) if length else ():
        rows.update(repr(_listed(dataset[index])).encode())
    return {**identity, "rows": length, "sample": rows.hexdigest()}


def _listed(row):
    if isinstance(row, dict):
        return {name: _listed(value) for name, value in row.items()}
    return row.tolist() if hasattr(row, "tolist") else row


def weights_identity(model) -> str:
    """A digest of a model's weights, to tell frozen teachers apart."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _sizes(config: dict) -> dict:
    return {
        name: _sizes(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in _NOISE
    }


def _plain(value):
    return getattr(value, "value", None) or (value.to_dict() if hasattr(value, "to_dict") else str(value))


# ---- complete checkpoints -------------------------------------------------------------------------------------------


def numbered_checkpoints(folder: str | Path) -> list[Path]:
    """The folders `checkpoint-N` in an output folder, newest first, without `checkpoint-best` and the like."""
    found = [path for path in Path(folder).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(filter(Path.is_dir, found), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def write_manifest(folder: str | Path, settings: dict, changes: list[dict]) -> None:
    """Writes the manifest of a checkpoint: its files with digests, and its settings. `trainer_state.json` is written later.

    Args:
        folder: folder of the checkpoint, with all its files except `trainer_state.json`.
        settings: from [`settings_of`].
        changes: settings that were changed when the run was resumed, see [`check_settings`].
    """
    folder = Path(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (MANIFEST, STATE)]
    manifest = {
        "files": {path.relative_to(folder).as_posix(): file_digest(path) for path in files},
        "settings": settings,
        "changes": changes,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict:
    """Reads and verifies the manifest of a checkpoint.

    Raises:
        InputError: naming the checkpoint, if it is incomplete or damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, _ = manifest["files"].items(), manifest["settings"]["method"]
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        if not (isinstance(state["global_step"], int) and isinstance(state["log_history"], list)):
            raise ValueError(f"{STATE} is damaged")
        for name, digest in files:
            if not (folder / name).is_file():
                raise ValueError(f"{name} is missing")
            if file_digest(folder / name) != digest:
                raise ValueError(f"{name} is damaged")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and not (folder / MANIFEST).is_file():
            reason = "it is incomplete, or was saved without what resuming needs (save_only_model)"
        else:
            reason = str(error) if isinstance(error, ValueError) else "its manifest is damaged"
        raise InputError(f"the checkpoint {str(folder)!r} cannot be resumed from: {reason}") from error
    return manifest


def checkpoint_to_resume(resume_from_checkpoint: str | bool, output_dir: str) -> tuple[Path, dict]:
    """The checkpoint to resume from, and its manifest.

    Args:
        resume_from_checkpoint: the folder of a checkpoint, or `True` for the newest complete one in `output_dir`. A warning
            names newer ones that are damaged.
        output_dir: output folder of the run.

    Raises:
        InputError: if there is none, or the given one is damaged.
    """
    if resume_from_checkpoint is not True:
        folder = Path(resume_from_checkpoint).expanduser()
        return folder, read_manifest(folder)
    refusals = []
    for folder in numbered_checkpoints(output_dir):
        try:
            manifest = read_manifest(folder)
        except InputError as error:
            refusals.append(str(error))
            continue
        for refusal in refusals:
            logger.warning("%s; continuing from %s", refusal, folder.name)
        return folder, manifest
    if refusals:
        raise InputError(
            f"{refusals[0]}; output_dir={output_dir!r} contains no complete checkpoint: start over with overwrite"
        )
    raise InputError(f"output_dir={output_dir!r} contains no checkpoint to resume from: leave out resume")


# ---- the settings of a resumed run ----------------------------------------------------------------------------------


def check_settings(folder: Path, saved: dict, now: dict, accepted: list[str]) -> dict[str, list]:
    """Checks that a run resumes with the settings that it started with.

    Args:
        folder: folder of the checkpoint, for messages.
        saved: the settings in the checkpoint.
        now: the settings of the resumed run.
        accepted: names of settings that may differ.

    Returns:
        The settings that differ, by name: the value in the checkpoint and the new one.

    Raises:
        InputError: naming the settings that differ but must not.
    """
    if saved["method"] != now["method"]:
        raise InputError(
            f"the checkpoint {str(folder)!r} comes from a training by {saved['method'].upper()}, not by {now['method'].upper()}: "
            "continue with the command that started it, or pass another output_dir"
        )
    found = differences(saved, now)
    same_rows = rows_per_step(saved) == rows_per_step(now)
    wrong, changes = {}, {}
    for name, values in found.items():
        allowed = name in ASKED or (name in DEALT and same_rows) or name.partition(".")[0] in accepted
        (changes if allowed and not name.startswith("model.") else wrong)[name] = list(values)
    if wrong:
        listed = "; ".join(f"{name}={old!r} then, {new!r} now" for name, (old, new) in list(wrong.items())[:4])
        names = sorted({name.partition(".")[0] for name in wrong} - {"model"})
        accept = f", or accept_changes {' '.join(names)} to continue with the new ones" if names else ""
        raise InputError(
            f"{folder.name} was trained with other settings ({listed}): pass those of the checkpoint{accept}"
        )
    return changes
