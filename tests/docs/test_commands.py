"""Every command line in README and pages is one that the parsers take."""

import importlib
import shlex

import pytest

from smt_hf.cli.parsing import parse
from tests.docs.pages import ELSEWHERE, PAGES, ROOT, blocks, name


def command_lines(text: str) -> list[list[str]]:
    """The words after `smt-hf` of every command line in a block."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.replace("$cell", "transformer"), comments=True)
        if words[:1] == ["smt-hf"]:
            found.append(words[1:])
        elif "smt_hf" in words:  # torchrun -m smt_hf, accelerate launch -m smt_hf
            found.append(words[words.index("smt_hf") + 1 :])
    return found


LINES = [
    (page, words)
    for page in PAGES
    if name(page) not in ELSEWHERE
    for block in blocks(page, "bash")
    for words in command_lines(block)
]


def test_there_are_command_lines():
    assert len(LINES) > 30


@pytest.mark.parametrize("page, words", LINES, ids=[f"{name(page)}: {' '.join(words)}" for page, words in LINES])
def test_a_command_line_parses(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)  # where the recipes are
    more = (
        ["--use_cpu", "true"] if "configs/tinystories/" in " ".join(words) and words[0] != "estimate" else []
    )  # bf16 is checked against the machine
    if words == ["--version"]:
        return
    command = importlib.import_module(f"smt_hf.cli.{words[0]}").COMMAND
    assert parse(command, words[1:] + more)
