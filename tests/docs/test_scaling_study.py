"""The tables of the scaling study are those that the stored measurements make, and its power laws are right."""

import math
import sys

import pytest

from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import scaling_laws  # noqa: E402

RESULTS = ROOT / "docs" / "results"


def test_tables_follow_from_the_csv():
    page = (RESULTS / "scaling_study.md").read_text(encoding="utf-8")
    laws = scaling_laws.law_tables(scaling_laws.read(RESULTS / "scaling_tinystories.csv"))
    recall = scaling_laws.recall_table(scaling_laws.read(RESULTS / "scaling_recall.csv"))
    for table in (*laws.split("\n\n"), recall):
        assert table in page


def test_power_laws():
    x = [1.0, 2.0, 8.0]
    assert scaling_laws.power(x, [3 * each**-0.25 for each in x]) == pytest.approx((-0.25, 0.0), abs=1e-7)
    exponent, error = scaling_laws.power([1.0, math.e, math.e**2], [1.0, math.e, math.e])
    assert exponent == pytest.approx(0.5) and error == pytest.approx(math.sqrt((1 / 6) / 2))
    assert math.isnan(scaling_laws.power(x[:2], x[:2])[1])


def test_verdicts():
    assert "falls at every step (+10.0, +10.0" in scaling_laws.verdict([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]], 0.1)
    assert scaling_laws.verdict([[3.0], [3.1], [1.0]], 0.1).startswith("falls or stands still")
    assert scaling_laws.verdict([[3.0], [3.5]], 0.1).startswith("rises")
    assert "no seeds" in scaling_laws.verdict([[3.0], [2.0]], math.nan)


def test_recalled_symbols_are_those_beyond_guessing():
    row = {"string_length": 8.0, "accuracy": 1 / 8}
    assert scaling_laws.recalled(row) == 0 and scaling_laws.recalled({**row, "accuracy": 1.0}) == 8
