"""That a GPU computes what a CPU computes; skipped where there is none."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from gpu_checks import CHECKS  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.mark.parametrize("name", CHECKS)
def test_gpu_equals_cpu(name):
    CHECKS[name]("cuda")
