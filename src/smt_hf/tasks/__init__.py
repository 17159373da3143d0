"""Synthetic tasks that show what a recurrent network can learn (with the names of Kumar & Isola), and their scores."""

import dataclasses

from ..errors import InputError
from ..utils.imports import load_object
from .base import Task, check_integer
from .counters import ModularCounter, Parity
from .dataset import TaskDataset, to_datasets
from .keys_values import KeysValues
from .metrics import row_accuracy, task_accuracy
from .modular_arithmetic import ModularArithmetic
from .retrieval import Retrieval
from .stack import Stack
from .string_copy import StringCopy

TASKS = {
    "retrieval": Retrieval,
    "string_copy": StringCopy,
    "stack": Stack,
    "parity": Parity,
    "modular_counter": ModularCounter,
    "keys_values": KeysValues,
    "modular_arithmetic": ModularArithmetic,
}


def load_task(name: str, **options) -> Task:
    """Returns the task of this name with these options.

    Args:
        name: a name in `TASKS`, or `"module:Class"` for your own [`Task`].
        **options: the fields of the task.

    Raises:
        InputError: for an unknown task or option, or options that cannot work.
    """
    kind = load_object(name) if ":" in name else TASKS.get(name)
    if kind is None:
        raise InputError(
            f"the task {name!r} is unknown: choose one of {', '.join(TASKS)}, or 'module:Class' for a task of your own"
        )
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"the task {name!r} is not a task: name a subclass of smt_hf.tasks.Task")
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            raise InputError(f"the task {name!r} has no option {option!r}: choose among {', '.join(known)}")
    return kind(**options)


__all__ = [
    "TASKS",
    "KeysValues",
    "ModularArithmetic",
    "ModularCounter",
    "Parity",
    "Retrieval",
    "Stack",
    "StringCopy",
    "Task",
    "TaskDataset",
    "check_integer",
    "load_task",
    "row_accuracy",
    "task_accuracy",
    "to_datasets",
]
