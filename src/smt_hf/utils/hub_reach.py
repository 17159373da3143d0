"""Detects early why something cannot be found on the Hub, and explains it in one line."""

import functools
from collections.abc import Iterator

from huggingface_hub import constants, get_session, is_offline_mode
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from ..errors import one_line


@functools.cache
def go_offline_if_unreachable() -> None:
    """Puts `huggingface_hub` into offline mode if the Hub does not answer. Runs once per process.

    Otherwise it would try every file six times, 24 seconds each, before reporting a misspelt name or using a cached file.
    """
    if is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # anything that keeps a request from being answered
        constants.HF_HUB_OFFLINE = True


def nowhere(name: str, error: Exception) -> str:
    """Says that there is no folder of this name and, if it may be a name on the Hub, why the Hub did not help."""
    missing = f"there is no folder {name[:300]!r} here"
    try:
        validate_repo_id(name)
    except HFValidationError:
        return missing
    reasons = list(_reasons(error))
    if any(isinstance(each, LocalEntryNotFoundError) for each in reasons):
        return f"{missing}, and the Hub cannot be reached to look for a model of that name"
    if any(isinstance(each, RepositoryNotFoundError) for each in reasons):
        return f"{missing}, and the Hub has no model of that name that you can read"
    return f"{missing}, and the Hub says: {one_line(error)[:300]}"


def _reasons(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
