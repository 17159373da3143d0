"""The table of estimates beside measurements is the one that the stored rows make."""

import json
import sys

from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import check_estimate  # noqa: E402


def test_table_follows_from_the_json():
    results = json.loads((ROOT / "docs" / "results" / "estimate.json").read_text(encoding="utf-8"))
    assert check_estimate.table(results) in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert [(row["sizes"], row["method"], row["cell"]) for row in results] == check_estimate.rows()
