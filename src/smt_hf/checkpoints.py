"""Loading models, with a clear message when a path holds something else."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import cached_file, logging

from .errors import InputError, one_line
from .models import SmtForPreTraining, SmtRnnForCausalLM, SmtTeacherModel, check_fit
from .models.backbone_smt import check_backbone
from .models.configuration_smt_shared import check_special_ids
from .models.pretrained_smt import weight_faults
from .utils.folder_lock import LOCK
from .utils.hub_reach import nowhere

KINDS = {
    "smt": "a teacher and student checkpoint (SmtForPreTraining)",
    "smt_teacher": "a teacher (SmtTeacherModel)",
    "smt_rnn": "a student (SmtRnnForCausalLM)",
}
MODELS = {"smt": SmtForPreTraining, "smt_teacher": SmtTeacherModel, "smt_rnn": SmtRnnForCausalLM}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def load_joint(path: str, **kwargs) -> SmtForPreTraining:
    """Teacher and student from the folder or Hub id of an SMT run.

    Raises:
        InputError: if there is no checkpoint, or it is of another kind or damaged, see [`load`].
    """
    return load(path, "smt", **kwargs)


def load_teacher(path: str, **kwargs) -> SmtTeacherModel:
    """The teacher from its own checkpoint or an SMT run's; raises as [`load_joint`] does."""
    model = load(path, "smt_teacher", "smt", **kwargs)
    return model if isinstance(model, SmtTeacherModel) else model.teacher


def load_student(path: str, **kwargs) -> SmtRnnForCausalLM:
    """The student from its own checkpoint or an SMT run's; raises as [`load_joint`] does."""
    model = load(path, "smt_rnn", "smt", **kwargs)
    return model if isinstance(model, SmtRnnForCausalLM) else model.export_student()


def load_backbone(path: str) -> PreTrainedModel:
    """Loads a causal language model to build a teacher on. Code stored with it is never run.

    Raises:
        InputError: if it cannot be loaded, is not a causal language model of transformers that keeps documents apart, or is one of
            this library's own models.
    """
    place = os.path.expanduser(path)
    try:
        with without_warnings():
            if (kind := (read_json(place, "config.json", optional=True) or {}).get("model_type")) in list(KINDS):
                raise InputError(
                    f"{path[:300]!r} is {KINDS[kind]}: pass a Transformer language model, such as one trained with smt-hf lm"
                )
            model = AutoModelForCausalLM.from_pretrained(place, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        missing = isinstance(error, OSError) and not os.path.exists(place)
        reason = nowhere(path, error) if missing else f"{path[:300]!r} cannot be loaded ({one_line(error)[:300]})"
        raise InputError(
            f"{reason}: pass the folder or Hub id of a causal language model, such as one trained with smt-hf lm"
        ) from error
    check_finite(model, path)
    try:
        check_backbone(model)
    except ValueError as error:
        raise InputError(f"{path[:300]!r}: {one_line(error)[:300]}") from error
    return model.eval()


def load(path: str, *wanted: str, **kwargs) -> PreTrainedModel:
    """Loads a complete model from a folder or the Hub, or fails. Code stored with it is never run.

    Args:
        path: the folder or Hub id.
        wanted: the accepted kinds, from [`KINDS`].
        kwargs: passed to `from_pretrained`.

    Raises:
        InputError: if there is no checkpoint, or one of another kind; if one of its files is missing or damaged; if its
            weights do not match its configuration or are not all finite.
    """
    kind = check_kind(path, *wanted)
    with reading(path, *wanted):
        place = os.path.expanduser(path)
        if os.path.isdir(place):
            weight_files(Path(place))
        read_json(place, "generation_config.json", optional=True)  # the library takes a damaged one as missing
        with without_warnings():  # the checks below report the same
            model, info = MODELS[kind].from_pretrained(
                place, strict=False, ignore_mismatched_sizes=True, output_loading_info=True, **kwargs
            )
        faults = weight_faults(model, info)
        if faults:
            raise InputError(
                f"{path!r} does not contain the weights that its config.json describes ({faults}): pass a folder "
                "written by save_pretrained or a finished run"
            )
        check_finite(model, path)
        if model.can_generate():
            check_special_ids(model.generation_config, model.config.vocab_size)
            model.generation_config.validate()
    return model


def check_kind(path: str, *wanted: str) -> str:
    """The kind of the checkpoint in a folder or on the Hub.

    Raises:
        InputError: if there is no checkpoint, its kind is not among `wanted`, or its configuration cannot work.
    """
    with reading(path, *wanted):
        place = os.path.expanduser(path)
        try:
            config = read_json(place, "config.json")
        except OSError as error:
            if os.path.exists(place):
                raise
            raise InputError(f"{nowhere(path, error)}: pass the folder or Hub id of {kinds(wanted)}") from error
        if config is None:
            raise InputError(f"{path!r} has no config.json: pass the folder of {kinds(wanted)}")
        kind = config.get("model_type")
        if kind not in wanted:
            found = KINDS[kind] if kind in list(KINDS) else f"a model of type {kind!r}"
            raise InputError(f"{path!r} is {found}: pass {kinds(wanted)}")
        MODELS[kind].config_class.from_pretrained(place)
    return kind


def kinds(names: tuple[str, ...]) -> str:
    """The names of some kinds of checkpoints, for messages."""
    return " or ".join(KINDS[name] for name in names)


@contextmanager
def reading(path: str, *wanted: str) -> Iterator[None]:
    """Turns any error of the library about a checkpoint into a one-line message.

    Raises:
        InputError: naming the checkpoint, the reason, and what to pass instead.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files raise errors of every kind
        reason = one_line(error)[:300]
        if not isinstance(error, OSError | ValueError | RuntimeError | StrictDataclassError):
            reason = f"{type(error).__name__}: {reason}"
        raise InputError(
            f"{path[:300]!r} is not a readable checkpoint ({reason}): pass the folder or Hub id of {kinds(wanted)}"
        ) from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps transformers from warning."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def read_json(place: str, name: str, optional: bool = False) -> dict | None:
    """Reads a JSON file of a checkpoint; `None` if a folder does not have it.

    Raises:
        OSError: if it cannot be fetched from the Hub, unless the file is optional.
        InputError: if the file holds anything other than a JSON object.
    """
    if os.path.exists(place) and not os.path.isfile(os.path.join(place, name)):
        return None
    file = cached_file(place, name, _raise_exceptions_for_missing_entries=not optional)
    if file is None:
        return None
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} of {place!r} is not JSON ({one_line(error)}): save it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{name} of {place!r} is not a JSON object: save it again")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder: a single file, or the files listed in an index.

    Raises:
        InputError: if files are missing or the index is damaged.
    """
    for name in WEIGHTS:
        index = f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if (folder / index).is_file():
            shards = read_json(str(folder), index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
                raise InputError(f"{index} of {str(folder)!r} has no weight_map from weights to files: save it again")
            files = [folder / shard for shard in sorted(set(shards.values()))]
            break
    else:
        files = [folder / WEIGHTS[0]]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{str(folder)!r} has no {missing[0]}: pass a folder written by save_pretrained or a finished run"
        )
    return files


def check_finite(model: PreTrainedModel, path: str) -> None:
    """Checks that all weights are finite.

    Raises:
        InputError: naming the first tensor that is not.
    """
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{path!r} contains NaN or infinity in {name}, read as {tensor.dtype}: pass a checkpoint from before its "
                "training diverged, or another dtype"
            )


def check_pair(teacher, student) -> None:
    """Checks that a student belongs to a teacher.

    Raises:
        InputError: naming every size that differs.
    """
    try:
        check_fit(teacher.config, student.config)
    except ValueError as error:
        raise InputError(str(error)) from error


def check_vocabulary(model, tokenizer) -> None:
    """Checks that a model has an embedding for every token of its tokenizer.

    Raises:
        InputError: naming both sizes.
    """
    vocab_size = model.config.vocab_size
    if len(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} tokens but the model's vocab_size is {vocab_size}: use the tokenizer "
            "that the model was trained with"
        )


def check_output_dir(output_dir: str, overwrite: bool = False) -> None:
    """Checks that a run overwrites nothing.

    Raises:
        InputError: if the folder has files in it and `overwrite` is not set.
    """
    folder = Path(output_dir)
    if folder.is_file():
        raise InputError(f"output_dir={output_dir!r} is a file: pass a folder")
    if not overwrite and folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(
            f"output_dir={output_dir!r} is not empty: choose another, or pass --resume to continue it or "
            "--overwrite to start over"
        )
