"""That a GPU computes what a CPU computes, skipped where there is none; and that the checks of this run."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from gpu_checks import CHECKS  # noqa: E402

pytestmark = pytest.mark.timeout(600)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CHECKS)
def test_gpu_equals_cpu(name):
    CHECKS[name]("cuda")


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_hold_for_a_cpu_against_itself(name):
    CHECKS[name]("cpu")
