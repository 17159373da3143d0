"""Classes of the caller's own, named in a recipe or a flag."""

import sys

import pytest

from smt_hf.errors import InputError
from smt_hf.utils.imports import load_object


def test_a_module_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "own_part.py").write_text("class Part: pass\n")
    (tmp_path / "broken_part.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert load_object("own_part:Part") is sys.modules["own_part"].Part
    with pytest.raises(InputError, match="'own_part:Whole': the module 'own_part' has no 'Whole'"):
        load_object("own_part:Whole")
    with pytest.raises(InputError, match="the module 'broken_part' cannot be imported \\(division by zero\\)"):
        load_object("broken_part:Part")


@pytest.mark.parametrize("name", ["own_part", ":Part", "own_part:", ".part:Part", "no_such_part:Part"])
def test_names_that_name_nothing(name):
    with pytest.raises(InputError, match=f"'{name}'|'{name.partition(':')[0]}'"):
        load_object(name)
