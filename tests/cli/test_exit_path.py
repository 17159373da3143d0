"""Every way out of a command: one line and an exit code."""

import errno
import os
import signal
import subprocess
import sys
import types

import pytest

import smt_hf_command
from smt_hf.cli import main as main_module
from smt_hf.cli.main import main
from smt_hf.errors import InputError, Interrupted


@pytest.fixture
def ends_with(monkeypatch, capsys):
    """The exit code and the standard error of a command that raises something."""

    def run(error, *argv):
        def command(argv):
            raise error

        monkeypatch.setitem(sys.modules, "smt_hf.cli.push", types.SimpleNamespace(main=command))
        monkeypatch.setattr(
            main_module.importlib, "import_module", lambda name, package: sys.modules[f"{package}{name}"]
        )
        return main(["push", *argv]), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "error, code, words",
    [
        (InputError("port=0\ncannot work"), 2, "error: port=0 cannot work"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            2,
            "'/x/y': No space left on device: free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "'/x': Permission denied: choose a place"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), 2, "check the path"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), 2, "there is a file where a folder should be"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2, "use a shorter path"),
        (OSError("the library's\nown words"), 2, "error: the library's own words"),
        (RuntimeError("[enforce fail] file write failed"), 2, "free some space"),
        (Exception("I/O error: No space left on device (os error 28)"), 2, "free some space"),
        (MemoryError(), 2, "there is not enough memory (allocation failed): lower the sizes"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "there is not enough memory"),
        (ModuleNotFoundError("No module named 'peft'", name="peft"), 2, "pip install 'smt-hf[peft]'"),
        (ValueError("two\nlines"), 2, "error: two lines"),
        (KeyError("x"), 2, "unexpected KeyError: 'x' (--debug shows where)"),
        (FloatingPointError("the loss became nan at step 3"), 1, "stopped: the loss became nan at step 3"),
        (KeyboardInterrupt(), 130, "smt-hf push: interrupted"),
        (Interrupted(signal.SIGTERM, "interrupted at step 3"), 143, "smt-hf push: interrupted at step 3"),
    ],
)
def test_errors(ends_with, error, code, words):
    found, said = ends_with(error)
    assert found == code and words in said
    assert said.startswith("smt-hf push: ") and said.count("\n") == 1


def test_debug_shows_where(ends_with):
    with pytest.raises(InputError):
        ends_with(InputError("x"), "--debug")
    assert main_module.wants_debug(["--a", "--debug", "--b"]) == (True, ["--a", "--b"])
    words = ["--debug", "underflow_overflow", "--b"]
    assert main_module.wants_debug(words) == (False, words)


def test_help_is_no_error(ends_with):
    assert ends_with(SystemExit(0)) == (0, "")


def test_unknown_commands_and_flags(capsys):
    assert smt_hf_command.main(["genrate"]) == 2
    assert "did you mean 'generate'?" in capsys.readouterr().err
    for words, hint in (
        (["--temprature", "1"], "unknown flag '--temprature': did you mean '--temperature'?"),
        (["--temprature=1"], "did you mean '--temperature'?"),
        (["--zzz", "1"], "unknown flag '--zzz': see smt-hf generate --help"),
        (["stray"], "model is given twice, as 'stray' and as --model 'x'"),
        (["a", "b", "stray"], "'stray' does not belong to any flag"),
        (["--max_new_tokens", "many"], "max_new_tokens='many' must be a whole number"),
        (["--max_new_tokens"], "--max_new_tokens: expected one argument"),
        (["--top_p", "2"], "top_p=2.0 must be above 0 and at most 1"),
    ):
        assert main(["generate", "--model", "x", *words]) == 2
        said = capsys.readouterr().err
        assert hint in said and said.count("\n") == 1, said


def test_a_signal_before_a_training(ends_with, monkeypatch):
    def command(argv):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(main_module.importlib, "import_module", lambda *_: types.SimpleNamespace(main=command))
    before = signal.getsignal(signal.SIGTERM)
    assert main(["push"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before


WRITES = """
import sys, types
from smt_hf.cli import main
main.importlib.import_module = lambda *_: types.SimpleNamespace(main=lambda argv: print("x" * 100_000))
sys.exit(main.main(["push"]))
"""


def test_a_closed_pipe_is_silence():
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen([sys.executable, "-c", WRITES], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 141 and said == b""


def test_a_stream_that_is_not_utf8_loses_no_text(tmp_path):
    file = (tmp_path / "out").open("w", encoding="ascii")
    main_module.keep_text(file)
    file.write("d\u00e9j\u00e0 \ufffd")
    file.close()
    assert (tmp_path / "out").read_text() == "d\\xe9j\\xe0 \\ufffd"
