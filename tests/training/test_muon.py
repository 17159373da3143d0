"""Muon on a CPU against torch's, and against the iteration written out in float64."""

import copy

import pytest
import torch

from smt_hf.training.optimizers import Muon, orthogonalized

OPTIONS = {"lr": 0.01, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
COEFFICIENTS = (3.4445, -4.775, 2.0315)


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (12, 12)])
def test_steps_are_those_of_torch_but_for_its_rounding(shape):
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape))
    theirs = copy.deepcopy(ours)
    optimizers = Muon([ours], **OPTIONS), torch.optim.Muon([theirs], **OPTIONS)
    start = ours.detach().clone()
    for _ in range(4):
        gradient = torch.randn(shape)
        for matrix, optimizer in zip((ours, theirs), optimizers, strict=True):
            matrix.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert moved > 0.05 and (ours - theirs).norm() < 0.02 * moved  # bfloat16 has two to three digits
    buffers = [
        optimizer.state[matrix]["momentum_buffer"]
        for optimizer, matrix in zip(optimizers, (ours, theirs), strict=True)
    ]
    assert buffers[0].equal(buffers[1])
    optimizers[1].load_state_dict(optimizers[0].state_dict())  # checkpoints are torch's


@pytest.mark.parametrize("shape", [(8, 24), (24, 8)])
def test_the_iteration_acts_on_singular_values_alone(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(5):
        values = COEFFICIENTS[0] * values + COEFFICIENTS[1] * values**3 + COEFFICIENTS[2] * values**5
    torch.testing.assert_close(orthogonalized(matrix, COEFFICIENTS, 5, 1e-7), left * values @ right)
    assert (values > 0.6).all() and (values < 1.3).all()
