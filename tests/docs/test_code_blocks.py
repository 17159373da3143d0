"""The Python of README and pages runs as it stands, the blocks of a page one after another."""

import ast
import json

import pytest

from tests.docs.pages import ELSEWHERE, PAGES, ROOT, blocks, name

NEEDED = ("peft", "trl", "evaluate", "smt_hf.inference.export")  # or what these need
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def run(parts: list[str], file: str) -> None:
    namespace = {"__name__": file}
    for number, part in enumerate(parts):
        exec(compile(part, f"{file}, block {number + 1}", "exec"), namespace)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python") and name(page) not in ELSEWHERE], ids=name
)
def test_a_page_runs(page, in_workshop):
    parts = blocks(page, "python")
    for part in parts:
        for node in ast.walk(ast.parse(part)):
            if isinstance(node, ast.ImportFrom) and node.module in NEEDED:
                pytest.importorskip(node.module)
    run(parts, name(page))


def test_the_notebook_runs(in_workshop):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[0].startswith("%pip install")
    run(code[1:], NOTEBOOK.name)


def test_the_notebook_holds_no_output():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert not any(cell.get("outputs") for cell in notebook["cells"])
