"""What the command says of itself: the overview, and `--help` of every command."""

import argparse
import importlib
import subprocess
import sys

import pytest

import smt_hf
from smt_hf.cli.main import main
from smt_hf.cli.parsing import OptionsParser
from smt_hf.utils.bounds import BOUNDS
from smt_hf_command import COMMANDS, FIRST, MORE
from smt_hf_command import main as smt_hf_main


def parser_of(command):
    return OptionsParser(importlib.import_module(f"smt_hf.cli.{command}").COMMAND)


def test_the_overview(capsys):
    assert smt_hf_main([]) == 2
    shown = capsys.readouterr().out
    assert smt_hf_main(["--help"]) == 0 and capsys.readouterr().out == shown
    assert list(COMMANDS) == [*FIRST, *MORE] and len(FIRST) == 5
    places = [shown.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places) and shown.index("more commands:") < places[5]
    assert max(map(len, shown.splitlines())) <= 80


def test_what_needs_no_model_needs_no_torch():
    calls = "; ".join(f"c.main({words})" for words in (["--version"], [], ["--help"], ["generat"], ["fly"]))
    words = f"import sys, smt_hf_command as c; {calls}; assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[0] == smt_hf.__version__


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    usage, body = text.split("\n", 1)
    assert usage.startswith(f"usage: smt-hf {command} ") and "\nexample:\n  " in body
    if columns < 80:  # what is to be copied is not broken
        body = body[: body.index("\nexample:")]
    assert len(usage) <= 80 and max(map(len, body.splitlines())) <= columns


@pytest.mark.parametrize("command", COMMANDS)
def test_a_group_of_flags_stands_once(command):
    titles = [group.title for group in parser_of(command)._action_groups if group._group_actions]
    assert len(titles) == len(set(titles)), titles


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_everything_of_a_flag(command):
    """What it is, its bounds, its choices, and its default or that it must be given."""
    parser = parser_of(command)
    for action in parser._actions:
        if action.dest in ("help", "config") or action.help == argparse.SUPPRESS:
            continue
        text, _, notes = action.help.rpartition(" (")
        assert text and not text.startswith("None"), action.dest
        assert ("required" in notes) == (action.dest in parser.command.required), action.dest
        assert "required" in notes or "default: " in notes
        if action.dest in BOUNDS:
            assert str(BOUNDS[action.dest]) in notes
        for choice in action.choices or ():
            assert str(choice) in notes


def test_how_a_flag_is_shown(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    for command, shown in (
        ("generate", "[PROMPT]"),
        ("generate", "  MODEL, --model MODEL  "),
        ("generate", "(0 or at least 0.001; default: none)."),
        ("generate", "Stop after this many tokens (at least 1; default: 300)."),
        ("serve", "--dtype NAME "),
        ("serve", "(one of auto, float32,"),
        ("dmt", "default: 1 2 4 8 16)."),
        ("compare", "  CONFIG, --config CONFIG  "),
        ("push", "usage: smt-hf push MODEL REPO_ID [--config FILE.yaml] [--FIELD VALUE ...]"),
    ):
        assert main([command, "--help"]) == 0
        assert shown in capsys.readouterr().out, shown
