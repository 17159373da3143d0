"""FSDP2 as Accelerate prepares a model for it, in one process on a CPU."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

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


def prepare(model, **options):
    """As accelerate does. It takes no FSDP on a CPU itself: only what the function reads of it."""
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, **options)
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device("cpu"),
        mixed_precision="no",
        is_main_process=True,
    )
    return fsdp2_prepare_model(accelerator, model)


@pytest.mark.parametrize("efficient", [False, True])
@pytest.mark.parametrize("kind", ["joint", "bidirectional", "student"])
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_a_step_is_the_same(process_group, tokens, kind, efficient):
    models = []
    for _ in range(2):
        model = tiny_model("bidirectional" if kind == "bidirectional" else "causal", torch.float32)
        models.append((model.export_student() if kind == "student" else model).train())
    plain, model = models
    model = prepare(
        model,
        auto_wrap_policy="transformer_based_wrap",
        reshard_after_forward=True,
        cpu_ram_efficient_loading=efficient,
    )
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


class Messages(TorchDispatchMode):
    """The messages between processes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.fixture
def two_processes():
    """The first of two, whose messages reach nobody."""
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["joint", "student"])
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module")
def test_a_recurrence_gathers_its_weights_once(two_processes, tokens, kind):
    """As configs/accelerate/fsdp2.yaml has it: not once a step of the recurrence."""
    model = tiny_model(dtype=torch.float32)
    model = prepare((model.export_student() if kind == "student" else model).train(), reshard_after_forward=False)
    counts = []
    for length in (2, 8):
        with Messages() as messages:
            if kind == "joint":
                output = model(tokens, torch.tensor([0]), torch.tensor([length - 1]), 4, segment_length=length)
                loss = output.predicted_memory.square().mean()
            else:
                loss = model(tokens[:, :length], labels=tokens[:, :length]).loss
            loss.backward()
        counts.append(len(messages.names))
    assert counts[0] == counts[1] and 0 < counts[0] <= 6  # embedding, head and all else, each gathered and summed
