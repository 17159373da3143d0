"""Synthetic tasks that show what a recurrent network can learn (named as by Kumar & Isola), and how to score them."""

import dataclasses

from ..errors import InputError
from .base import Task
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
    """Return the task of that name with these options.

    Raises:
        InputError: an unknown task or option, or options that cannot work.
    """
    if name not in TASKS:
        raise InputError(f"the task {name!r} is unknown: choose one of {', '.join(TASKS)}")
    known = [field.name for field in dataclasses.fields(TASKS[name])]
    for option in options:
        if option not in known:
            raise InputError(f"the task {name!r} has no option {option!r}: choose among {', '.join(known)}")
    return TASKS[name](**options)


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
    "load_task",
    "row_accuracy",
    "task_accuracy",
    "to_datasets",
]
