"""Backends, which compute the engine's steps."""

from typing import Protocol

import torch

from ..models.lean_smt_rnn import LeanStep, is_lean


class Backend(Protocol):
    """A student as the engine sees it: memories in, memories and logits out. Only one thread uses it.

    Attributes:
        initial_memory: `(K, D)`, the memory before any token, with the device and dtype that all memories have.
        vocab_size: V.
    """

    initial_memory: torch.Tensor
    vocab_size: int

    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The memories `(B, K, D)` after each has read one more token, `(B,)` int64; B is at least 1."""
        ...

    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """The logits of the next token, float32 `(B, V)` on the CPU, from the memories `(B, K, D)` alone."""
        ...


# With this many rows or more, a CPU spends its time on arithmetic instead of calls, and folded matrices are larger than the modules'.
PLAIN_ROWS = 96


class TorchBackend:
    """The student itself, as a [`LeanStep`] where that gives the same result. Uses the weights as they are now.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode on its device.
    """

    def __init__(self, student):
        self._plain = student
        self._step = LeanStep(student) if is_lean(student) else student
        self.initial_memory = student.initial_memory.detach().clone()
        self.vocab_size = student.config.vocab_size

    @torch.inference_mode()
    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """See [`Backend.update`]."""
        return self._for(memory).update(memory, input_ids.to(memory.device))

    @torch.inference_mode()
    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """See [`Backend.readout`]."""
        return self._for(memory).readout(memory).to("cpu", torch.float32)

    def _for(self, memory: torch.Tensor):
        return self._plain if len(memory) >= PLAIN_ROWS and memory.device.type == "cpu" else self._step


class CudaGraphBackend(TorchBackend):
    """The student on a GPU. Each step is replayed from a CUDA graph: one launch instead of hundreds.

    The graph of a bucket of rows is captured when it is first needed; fewer rows are padded to the bucket. More rows than the
    largest bucket take plain steps.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode on a GPU.
        buckets: numbers of rows, in ascending order.
    """

    def __init__(self, student, buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)):
        super().__init__(student)
        self.buckets = buckets
        self._graphs: dict[tuple[str, int], tuple[torch.cuda.CUDAGraph, tuple[torch.Tensor, ...], torch.Tensor]] = {}

    @torch.inference_mode()
    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """See [`Backend.update`]."""
        return self._replay("update", memory, input_ids.to(memory.device, non_blocking=True))

    @torch.inference_mode()
    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """See [`Backend.readout`]."""
        return self._replay("readout", memory).to("cpu", torch.float32)

    def _replay(self, name: str, *inputs: torch.Tensor) -> torch.Tensor:
        rows, step = len(inputs[0]), getattr(self._step, name)
        bucket = next((bucket for bucket in self.buckets if bucket >= rows), None)
        if bucket is None:
            return step(*inputs)
        if (name, bucket) not in self._graphs:
            self._graphs[name, bucket] = self._capture(step, bucket, inputs)
        graph, places, output = self._graphs[name, bucket]
        for place, value in zip(places, inputs, strict=True):
            place[:rows].copy_(value)
        graph.replay()
        return output[:rows].clone()

    def _capture(self, step, bucket: int, inputs: tuple[torch.Tensor, ...]):
        places = tuple(value.new_zeros(bucket, *value.shape[1:]) for value in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # the first calls initialize the libraries
            for _ in range(3):
                step(*places)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = step(*places)
        return graph, places, output


def backend_for(student) -> Backend:
    """The backend for a student on its device: CUDA graphs on a CUDA device, plain torch elsewhere."""
    return CudaGraphBackend(student) if student.device.type == "cuda" else TorchBackend(student)
