"""That a GPU computes what a CPU computes, skipped where there is none; and that the checks of this run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from gpu_checks import CHECKS  # noqa: E402

pytestmark = pytest.mark.timeout(600)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CHECKS)
def test_gpu_equals_cpu(name):
    CHECKS[name]("cuda")


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_hold_for_a_cpu_against_itself(name):
    found = CHECKS[name]("cpu")
    if "skipped" in found:
        pytest.skip(found["skipped"])


def test_every_method_is_timed(tmp_path):
    command = [sys.executable, str(SCRIPTS / "prove_gpu.py"), "--device", "cpu", "--output", str(tmp_path)]
    subprocess.run([*command, "--sections", "steps", "--seconds", "0.5", "--minutes", "3"], check=True, timeout=300)
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert len(steps) >= 7 and all("error" not in found for found in steps.values()), steps
