"""The ways to start the command."""

import subprocess
import sys


def test_as_a_module(tmp_path):
    """Its words and its exit code."""
    command = [sys.executable, "-m", "smt_hf", "fly"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2 and "unknown command 'fly'" in result.stderr
