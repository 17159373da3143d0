"""Checks of the data that a trainer is given: rows, batches, and the end of a text that has none."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.data import DataLoader
from transformers.trainer_utils import has_length

from ..data import TextStream
from ..errors import InputError


def check_rows(name: str, dataset) -> None:
    """Checks that a data set with a known length is not empty.

    Raises:
        InputError: naming the argument.
    """
    if dataset is not None and has_length(dataset) and len(dataset) == 0:
        raise InputError(f"{name} has no rows: pass data with at least one, or check what it was made from")


def check_loader(name: str, loader: DataLoader) -> DataLoader:
    """Returns the loader after checking that it gives at least one batch, if its length is known.

    Raises:
        InputError: naming the argument.
    """
    if has_length(loader) and len(loader) == 0:
        check_rows(name, loader.dataset)
        raise InputError(
            f"dataloader_drop_last drops the only batch of {name}, which has fewer rows than a full batch: lower the batch "
            "size, or leave dataloader_drop_last out"
        )
    return loader


@contextmanager
def some_batch(name: str) -> Iterator[None]:
    """Tells in one line that a data set of unknown length gave nothing, where accelerate's loader would speak of its batches.

    Raises:
        InputError: naming the argument.
    """
    try:
        yield
    except ValueError as error:
        if "does not contain any data" not in str(error):
            raise
        raise InputError(
            f"{name} yielded no rows: check what it reads, and that it can be read again every epoch"
        ) from error


def check_endless(dataset, args) -> None:
    """Checks the arguments that a training on an endless text needs.

    Raises:
        InputError: naming the argument.
    """
    if not isinstance(dataset, TextStream):
        return
    if args.max_steps <= 0:
        raise InputError("a streamed text has no last window: pass max_steps or max_train_seconds")
    for name in ("split_batches", "dispatch_batches"):
        if getattr(args.accelerator_config, name):
            raise InputError(
                f"accelerator_config: {name} is not supported with a streamed text: each process reads its own share"
            )
