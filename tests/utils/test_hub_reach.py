"""A Hub that does not answer is given up after one try."""

import pytest
from huggingface_hub import constants

from smt_hf.utils import hub_reach


class Session:
    def __init__(self, error: Exception | None):
        self.error, self.asked = error, 0

    def head(self, url, timeout):
        self.asked += 1
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, ConnectionError("Name or service not known"), TimeoutError()])
def test_it_is_asked_once(error, monkeypatch):
    session = Session(error)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_reach, "get_session", lambda: session)
    hub_reach.go_offline_if_unreachable.cache_clear()
    for _ in range(2):
        hub_reach.go_offline_if_unreachable()
    assert session.asked == 1
    assert constants.HF_HUB_OFFLINE == (error is not None)
    hub_reach.go_offline_if_unreachable.cache_clear()


def test_offline_mode_asks_nothing(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_reach, "get_session", lambda: pytest.fail("asked"))
    hub_reach.go_offline_if_unreachable.cache_clear()
    hub_reach.go_offline_if_unreachable()
    hub_reach.go_offline_if_unreachable.cache_clear()
