"""What computes the engine's steps: which way is taken for how many rows, and that each gives what the student gives."""

import pytest
import torch

from smt_hf.inference import CudaGraphBackend, Engine, Request, SamplingParams, TorchBackend, backend_for, backends

from .conftest import alone, small_student

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Replayed:
    """A graph as the backend sees it, on any device: `replay` computes what was captured, from the same places to the same place."""

    def __init__(self, step, places):
        self.step, self.places, self.output, self.count = step, places, step(*places), 0

    def replay(self):
        self.count += 1
        self.output.copy_(self.step(*self.places))


@pytest.fixture
def graphs(monkeypatch):
    """Stand-ins for CUDA's graphs, in the order of their capture."""
    captured = []

    def capture(self, step, bucket, inputs):
        with torch.inference_mode():
            graph = Replayed(step, tuple(value.new_zeros(bucket, *value.shape[1:]) for value in inputs))
        captured.append((bucket, graph))
        return graph, graph.places, graph.output

    monkeypatch.setattr(CudaGraphBackend, "_capture", capture)
    return captured


def rows_of(student, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = count, *student.initial_memory.shape
    memory = torch.randn(shape, generator=generator, dtype=student.dtype)
    return memory.to(student.device), torch.randint(258, (count,), generator=generator)


def check_same(backend, student, count, seed=0, tolerance=1e-6):
    memory, ids = rows_of(student, count, seed)
    expected = student.update(memory, ids.to(student.device))
    moved = backend.update(memory, ids)
    torch.testing.assert_close(moved, expected, rtol=0, atol=tolerance)
    logits = backend.readout(moved)
    assert logits.device.type == "cpu" and logits.dtype == torch.float32
    torch.testing.assert_close(logits, student.readout(expected).float().cpu(), rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("cell_type", ["transformer", "gru"])
def test_a_few_rows_take_lean_steps_and_many_plain_ones(cell_type, monkeypatch):
    student = small_student(cell_type).requires_grad_(False)
    backend = TorchBackend(student)
    assert backend._for(torch.zeros(backends.PLAIN_ROWS - 1, 1, 1)) is not student
    assert backend._for(torch.zeros(backends.PLAIN_ROWS, 1, 1)) is student
    for count in (1, 3, backends.PLAIN_ROWS):
        check_same(backend, student, count)
    assert type(backend_for(student)) is TorchBackend


def test_rows_are_filled_up_to_a_graph_and_each_graph_is_captured_once(graphs):
    student = small_student().requires_grad_(False)
    backend = CudaGraphBackend(student, buckets=(2, 4))
    for seed, count in enumerate((1, 2, 3, 4, 1, 4)):
        check_same(backend, student, count, seed)
    assert [bucket for bucket, _ in graphs] == [2, 2, 4, 4]  # an update and a readout of each
    assert [graph.count for _, graph in graphs] == [3, 3, 3, 3]


def test_more_rows_than_the_largest_graph_take_plain_steps(graphs):
    student = small_student().requires_grad_(False)
    check_same(CudaGraphBackend(student, buckets=(2, 4)), student, 5)
    assert not graphs


def test_what_a_graph_gave_is_kept_when_it_is_replayed(graphs):
    student = small_student().requires_grad_(False)
    backend = CudaGraphBackend(student, buckets=(4,))
    (memory, ids), (other, _) = rows_of(student, 3), rows_of(student, 3, seed=1)
    first = backend.update(memory, ids)
    kept = first.clone()
    backend.update(other, ids)
    assert torch.equal(first, kept)


def test_the_engine_writes_with_graphs_what_generate_writes(writer, graphs):
    engine = Engine(CudaGraphBackend(writer, buckets=(1, 2, 4)))
    prompts = [list(text.encode()) for text in ("Once upon a time", "Tom", "a" * 70)]
    answers = engine.generate([Request(prompt, SamplingParams(12, temperature=0)) for prompt in prompts])
    assert [answer.ids for (answer,) in answers] == [alone(writer, prompt, max_new_tokens=12) for prompt in prompts]
    assert {bucket for bucket, _ in graphs} >= {1, 4}


@GPU
@pytest.mark.gpu
@pytest.mark.parametrize("cell_type", ["transformer", "gru", "lstm"])
def test_cuda_graphs_give_what_the_student_gives(cell_type):
    student = small_student(cell_type).requires_grad_(False).to("cuda")
    backend = backend_for(student)
    assert type(backend) is CudaGraphBackend
    for seed, count in enumerate((1, 2, 3, 33, 256, 257, 3)):
        check_same(backend, student, count, seed, tolerance=1e-4)
    assert {bucket for _, bucket in backend._graphs} == {1, 2, 4, 64, 256}


@GPU
@pytest.mark.gpu
def test_the_engine_on_a_gpu_writes_what_it_writes_on_a_cpu():
    student = small_student().double().requires_grad_(False)
    prompts = [list(text.encode()) for text in ("Once upon a time", "Tom", "a" * 70)]
    requests = [Request(prompt, SamplingParams(30, temperature=0.8, seed=1)) for prompt in prompts]
    here = [answer.ids for (answer,) in Engine(backend_for(student)).generate(requests)]
    there = [answer.ids for (answer,) in Engine(backend_for(student.to("cuda"))).generate(requests)]
    assert here == there
