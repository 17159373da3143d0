"""What is compiled computes what is not, as one graph and without compiling again.

`aot_eager` traces forward and backward pass as `torch.compile` does for a GPU, and runs them with torch's own kernels.
"""

import pytest
import torch

from smt_hf.losses import cross_entropy, dynamics
from tests.conftest import tiny_model

LENGTH, SEGMENTS, SEGMENT = 12, 3, 4


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)


def compare(function, inputs, parameters):
    """Values and gradients of a function, compiled and not."""
    results = []
    for run in (function, compiled(function)):
        outputs = run(*inputs)
        loss = sum(output.square().sum() for output in outputs)
        results.append((outputs, torch.autograd.grad(loss, parameters, allow_unused=True)))
    (eager, eager_gradients), (traced, traced_gradients) = results
    for output, other in zip(eager, traced, strict=True):
        torch.testing.assert_close(other, output, rtol=1e-12, atol=1e-12)
    for gradient, other in zip(eager_gradients, traced_gradients, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["transformer", "mlp", "elman", "gru", "lstm"])
def test_the_students_segment(cell):
    """J steps of the recurrence, and the logits after each, in one graph."""
    student = cell_student(cell)
    ids = torch.randint(20, (3, SEGMENT), generator=torch.Generator().manual_seed(0))
    memory = torch.randn(3, student.config.num_memory_tokens, 32, dtype=torch.float64)

    def segment(ids, memory):
        states, last = student.model.unroll(student.model.embed_tokens(ids), memory)
        return student.readout(states), last

    compare(segment, (ids, memory), list(student.parameters()))


def cell_student(cell):
    joint = tiny_model(num_memory_tokens=4)
    config = joint.config.student_config
    config.cell_type = cell
    torch.manual_seed(0)
    return type(joint.student)(config).to(torch.float64)


def test_the_teachers_encoder(joint, tokens):
    positions = torch.tensor([-1, 2, 5, 9])

    def encode(ids, positions):
        output = joint.teacher(ids, positions, return_dict=True)
        return output.memory, output.last_hidden_state

    compare(encode, (tokens, positions), list(joint.teacher.parameters()))


def whole_loss(joint, ids, positions, starts, targets):
    """Encoder, segments and readouts with SMT's terms, of a plan whose shapes stay the same."""
    teacher, student = joint.teacher, joint.student
    memory = teacher(ids, positions, return_dict=True).memory
    before, after = memory[:, :-1], memory[:, 1:]
    columns = starts[:, None] + torch.arange(SEGMENT)
    states, last = student.model.unroll(
        student.model.embed_tokens(ids[:, columns].flatten(0, 1)), before.flatten(0, 1)
    )
    last = last.unflatten(0, (len(ids), SEGMENTS))
    terms = [
        dynamics(last, after, torch.zeros(len(ids), SEGMENTS)),
        cross_entropy(student.readout(states).unflatten(0, (len(ids), SEGMENTS)), targets[:, columns]),
        cross_entropy(teacher.readout(memory), targets[:, positions]),
    ]
    return sum(term.mean for term in terms)


def test_a_whole_loss_compiles_once_in_fifty_steps(joint):
    """Other tokens and other positions in every step, the same graph."""
    parameters = [each for each in joint.parameters() if each.requires_grad]
    loss = compiled(lambda *inputs: whole_loss(joint, *inputs))
    positions = torch.arange(-1, LENGTH, SEGMENT)
    for number in range(50):
        drawn = torch.Generator().manual_seed(number)
        ids = torch.randint(20, (2, LENGTH + SEGMENT), generator=drawn)
        shift = int(torch.randint(SEGMENT, (1,), generator=drawn))
        inputs = ids, positions + shift, positions[:-1] + 1 + shift, ids.roll(-1, dims=1)
        value = loss(*inputs)
        if number in (0, 49):
            expected = whole_loss(joint, *inputs)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
            gradients = torch.autograd.grad(value, parameters, allow_unused=True)
            others = torch.autograd.grad(expected, parameters, allow_unused=True)
            for gradient, other in zip(gradients, others, strict=True):
                if other is not None:
                    torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-9)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
