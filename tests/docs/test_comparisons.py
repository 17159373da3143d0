"""The tables of comparisons on datasets are those that the stored measurements make."""

import pytest

from smt_hf.comparison.corpus_report import read_rows, tables
from tests.docs.pages import PAGES, ROOT

RECIPES = tuple(file.stem for file in (ROOT / "configs" / "compare").glob("*.yaml"))
FILES = [file for file in sorted((ROOT / "docs" / "results").glob("*.csv")) if file.stem.startswith(RECIPES)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_tables_follow_from_the_csv(file):
    (page,) = [
        page.read_text(encoding="utf-8") for page in PAGES if f"]({file.name})" in page.read_text(encoding="utf-8")
    ]
    for part in tables(read_rows(file)).split("\n\n"):
        assert part.strip() in page
