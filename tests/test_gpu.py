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


def prove(folder, *options):
    """The results and the page of a run."""
    command = [sys.executable, str(SCRIPTS / "prove_gpu.py"), "--device", "cpu", "--output", str(folder), *options]
    subprocess.run(command, check=True, timeout=300)
    return json.loads((folder / "gpu.json").read_text()), (folder / "gpu.md").read_text()


def test_every_method_is_timed(tmp_path):
    results, _ = prove(tmp_path, "--sections", "steps", "--seconds", "0.5", "--minutes", "3")
    steps = results["steps"]
    assert len(steps) >= 7 and all("error" not in found for found in steps.values()), steps


def test_the_race_is_run_to_a_loss_that_every_arm_comes_to(tmp_path):
    chosen = ("--sections", "environment", "race", "--arms", "smt", "bptt_truncated", "--race_seconds", "6")
    results, page = prove(tmp_path, *chosen)
    ends = {arm: found["curve"][-1] for arm, found in results["race"].items()}
    reached = max(min(point["loss"] for point in found["curve"]) for found in results["race"].values())
    assert set(ends) == {"smt", "bptt_truncated"} and all(end["seconds"] >= 6 for end in ends.values())
    assert f"seconds to {reached:.3f}" in page and page.startswith("# On one CPU")


def test_what_the_minutes_leave_no_time_for_is_named(tmp_path):
    results, page = prove(tmp_path, "--minutes", "0.2", "--sections", "race", "flops")
    assert "Left out: race (no time left), flops (no time left)." in page and results["sections"]["race"]["skipped"]
