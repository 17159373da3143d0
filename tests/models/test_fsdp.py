"""FSDP2 as Accelerate prepares a model for it, in one process on a CPU."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.tensor import DTensor

from tests.conftest import tiny_model


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def losses(model, tokens):
    if not hasattr(model, "teacher"):
        return model(tokens, labels=tokens).loss
    output = model(tokens, torch.tensor([0, 4]), torch.tensor([3]), 4, segment_length=2, read_student=True)
    parts = [output.predicted_memory - output.target_memory, output.student_logits, output.decoding_logits]
    return sum(part.square().mean() for part in [*parts, output.readout_logits])


@pytest.mark.parametrize("efficient", [False, True])
@pytest.mark.parametrize("kind", ["joint", "bidirectional", "student"])
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_a_step_is_the_same(process_group, tokens, kind, efficient):
    models = []
    for _ in range(2):
        model = tiny_model("bidirectional" if kind == "bidirectional" else "causal", torch.float32)
        models.append((model.export_student() if kind == "student" else model).train())
    plain, model = models
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=efficient,
    )
    # Accelerate itself takes no FSDP on a CPU: only what the function reads of it
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device("cpu"),
        mixed_precision="no",
        is_main_process=True,
    )
    model = fsdp2_prepare_model(accelerator, model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.01) for each in (plain, model)]
    for _ in range(2):
        for each, optimizer in zip((plain, model), optimizers, strict=True):
            loss = losses(each, tokens)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    state = model.state_dict()
    assert state.keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name].full_tensor(), value, rtol=1e-4, atol=1e-5)
