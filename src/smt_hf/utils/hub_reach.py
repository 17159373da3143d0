"""Noticing early that the Hub is out of reach."""

import functools

from huggingface_hub import constants, get_session, is_offline_mode


@functools.cache
def go_offline_if_unreachable() -> None:
    """Puts `huggingface_hub` in its offline mode if the Hub does not answer, once a process.

    Else it tries every file six times, 24 seconds each, before a name that is misspelt is told, or a cached file used.
    """
    if is_offline_mode():
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # whatever keeps a request from its answer
        constants.HF_HUB_OFFLINE = True
