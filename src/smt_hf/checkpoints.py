"""Loading what a command is given, with a clear word when it is something else."""

from pathlib import Path

from transformers import AutoConfig

from .errors import InputError
from .folder_lock import LOCK
from .models import SmtForPreTraining, SmtRnnForCausalLM, SmtTeacherModel, check_fit

KINDS = {
    "smt": "a teacher and student checkpoint (SmtForPreTraining)",
    "smt_teacher": "a teacher (SmtTeacherModel)",
    "smt_rnn": "a student (SmtRnnForCausalLM)",
}


def load_joint(path: str, **kwargs) -> SmtForPreTraining:
    """Teacher and student from the folder or Hub id of an SMT run.

    Raises:
        InputError: if there is no checkpoint, or one of another kind.
    """
    check_kind(path, "smt")
    return SmtForPreTraining.from_pretrained(path, **kwargs)


def load_teacher(path: str, **kwargs) -> SmtTeacherModel:
    """The teacher from its own checkpoint or an SMT run's; raises as [`load_joint`] does."""
    if check_kind(path, "smt_teacher", "smt") == "smt":
        return load_joint(path, **kwargs).teacher
    return SmtTeacherModel.from_pretrained(path, **kwargs)


def load_student(path: str, **kwargs) -> SmtRnnForCausalLM:
    """The student from its own checkpoint or an SMT run's; raises as [`load_joint`] does."""
    if check_kind(path, "smt_rnn", "smt") == "smt":
        return load_joint(path, **kwargs).export_student()
    return SmtRnnForCausalLM.from_pretrained(path, **kwargs)


def check_kind(path: str, *wanted: str) -> str:
    """The kind of the checkpoint in a folder or on the Hub.

    Raises:
        InputError: if there is no checkpoint, or one of a kind that is not among `wanted`.
    """
    expected = " or ".join(KINDS[kind] for kind in wanted)
    folder = Path(path).expanduser()
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{path!r} holds no config.json: give the folder of {expected}")
    try:
        kind = AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path!r} is no checkpoint that can be read ({str(error).splitlines()[0]}): give the folder or Hub id of "
            f"{expected}"
        ) from error
    if kind not in wanted:
        raise InputError(f"{path!r} is {KINDS.get(kind, f'a model of type {kind!r}')}: give {expected}")
    return kind


def check_pair(teacher, student) -> None:
    """Checks that a student belongs to a teacher.

    Raises:
        InputError: naming each size in which the two differ.
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
        raise InputError(f"output_dir={output_dir!r} is a file: give a folder")
    if not overwrite and folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
        raise InputError(
            f"output_dir={output_dir!r} is not empty: choose another, or pass --resume to go on with it or "
            "--overwrite to start over"
        )
