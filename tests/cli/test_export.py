"""`smt-hf export`: what it writes and says, and what it refuses."""

import pytest

from smt_hf.cli import export
from smt_hf.cli.main import main

pytest.importorskip("onnxruntime")

from smt_hf.checkpoints import load_student
from smt_hf.inference.onnx_backend import OnnxBackend


def test_a_run_is_exported(smt_run, stories, tmp_path, capsys):
    """The student of an SMT run, compared on a text of the user's."""
    argv = ["export", str(smt_run), "--output_dir", str(tmp_path / "onnx"), "--dtype", "float16"]
    assert main([*argv, "--text_file", str(stories / "valid.txt")]) == 0
    said = capsys.readouterr().out
    assert "compared on 512 tokens: logits differ by at most " in said and str(tmp_path / "onnx") in said
    backend = OnnxBackend(tmp_path / "onnx")
    backend.check_student(load_student(str(smt_run)))
    assert backend.manifest["dtype"] == "float16"
    assert main(argv) == 2
    assert "is not empty: choose another, or pass --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "output_dir"),
        (["--output_dir", "x", "--dtype", "int4"], "dtype='int4' must be one of float32, float16, int8"),
        (["--output_dir", "x", "--max_difference", "0"], "max_difference=0.0 must be"),
        (["--output_dir", "x", "--text_file", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_flags_that_cannot_work(flags, words, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nowhere", *flags]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_packages(monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert main(["export", "runs/dmt", "--output_dir", "x"]) == 2
    assert "exporting needs onnx, onnxscript, onnxruntime: pip install 'smt-hf[onnx]'" in capsys.readouterr().err
