"""The files and blocks of docs/extending.md work as they stand."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.checkpoints import load_student
from smt_hf.cli.main import import_modules, main
from smt_hf.errors import InputError
from smt_hf.models import Cell
from smt_hf.tasks import load_task

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: title=\"(.*?)\")?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files of the page, which the process works in."""
    for _, title, text in BLOCKS:
        if title:
            (tmp_path / title).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("leaky", "first_token"):
        sys.modules.pop(name, None)


def test_files_are_short():
    assert max(text.count("\n") for _, title, text in BLOCKS if title) < 40


def test_python_blocks(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    names = {}
    for kind, title, text in BLOCKS:
        if kind == "python" and not title:
            exec(text, names)
    student, cell = names["student"], sys.modules["leaky"].LeakyCell
    assert isinstance(student.model.cell, cell) and issubclass(cell, Cell)
    assert names["trainer"].state.global_step == 5
    assert names["speed"].shape == (32,) and names["speed"].isfinite().all()
    student.save_pretrained("saved")
    for loaded, trained in zip(
        SmtRnnForCausalLM.from_pretrained("saved").parameters(), student.parameters(), strict=True
    ):
        assert loaded.equal(trained)


def test_the_comparison(folder, capsys, monkeypatch):
    monkeypatch.setattr("smt_hf.comparison.flops.NUM_DRAWS", 1)  # several draws take longer than such trainings
    (command,) = [text for kind, _, text in BLOCKS if kind == "bash"]
    assert main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr().out
    assert "leaky:LeakyCell" in shown and "SMT → DMT" in shown
    student = "runs/first_token/leaky.LeakyCell/length-8/seed-0/dmt"
    del sys.modules["leaky"]
    with pytest.raises(InputError, match="`import leaky` first"):
        load_student(student)
    assert import_modules(["--import", "leaky", "--top_p", "1"]) == ["--top_p", "1"]
    assert type(load_student(student).model.cell).__name__ == "LeakyCell"


def test_configurations_import_nothing(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(StrictDataclassError, match="`import leaky` first"):
        SmtRnnConfig(cell_type="leaky:LeakyCell")
    assert load_task("first_token:FirstToken", length=4).vocab_size == 8  # the caller's own word does
    with pytest.raises(StrictDataclassError, match="not a cell: name a subclass"):
        SmtRnnConfig(cell_type="first_token:FirstToken")
