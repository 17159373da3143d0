"""What a machine can do: the numbers of a roofline model."""

import os
import time
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Hardware:
    """One device, and its connections to others.

    Attributes:
        name: the name to show.
        wide_flops, narrow_flops: FLOPs per second of matrix products in float32 and in 16 bits.
        bandwidth: bytes per second to and from its memory.
        moves: measured seconds by bytes moved, smallest first, if a kernel's time is not proportional to them: a CPU has caches,
            and takes new pages for large results.
        memory: bytes of memory.
        kernel_seconds: seconds that the host needs to start one kernel.
        overlaps: whether kernels run while the host starts the next ones.
        graph_bytes: bytes of the same memory that the graph of one kernel takes until its backward pass.
        link, network: bytes per second that a device can send to others in its node, and to other nodes.
    """

    name: str
    wide_flops: float
    narrow_flops: float
    bandwidth: float
    memory: float
    kernel_seconds: float
    overlaps: bool = True
    moves: tuple[tuple[int, float], ...] = ()
    graph_bytes: int = 0
    link: float = 1e10
    network: float = 1e10

    def kernel_time(self, flops: int, moved: int, narrow: bool) -> float:
        """Seconds of one kernel: the time for its products or its memory, whichever is longer, without overheads."""
        return max(flops / (self.narrow_flops if narrow else self.wide_flops), self.moving_time(moved))

    def moving_time(self, moved: int) -> float:
        """Seconds in which a kernel reads and writes so many bytes; larger ones than were measured in proportion to the largest."""
        if not self.moves:
            return moved / self.bandwidth
        sizes, seconds = zip(*self.moves, strict=True)
        return max(1.0, moved / sizes[-1]) * float(np.interp(moved, (0, *sizes), (0.0, *seconds)))

    def step_time(self, kernels: dict[tuple[int, int, bool], int]) -> tuple[float, float]:
        """Seconds that the device and the host are busy with `kernels`, which are counted by (FLOPs, bytes, whether in 16 bits)."""
        device = sum(self.kernel_time(*kernel) * number for kernel, number in kernels.items())
        return device, self.kernel_seconds * sum(kernels.values())


# Shares of the data sheets' dense rates that large kernels reach, and the time that eager PyTorch takes to start one, forward and
# backward. The first was measured on an H200, the last follows from one row of that table in docs/gpu.md; the second is assumed.
PRODUCTS, MEMORY, KERNEL_SECONDS = 0.79, 0.85, 1.9e-5


def _gpu(name: str, narrow: float, wide: float, bandwidth: float, memory: float, link: float) -> Hardware:
    """A GPU from the TFLOP/s, TB/s, GB and GB/s of its data sheet; nodes are connected by 400 Gbit/s per device."""
    return Hardware(
        name,
        wide_flops=wide * 1e12 * PRODUCTS,
        narrow_flops=narrow * 1e12 * PRODUCTS,
        bandwidth=bandwidth * 1e12 * MEMORY,
        memory=memory * 1e9,
        kernel_seconds=KERNEL_SECONDS,
        link=link * 1e9 * MEMORY,
        network=50e9 * MEMORY,
    )


HARDWARE = {
    "a100": _gpu("NVIDIA A100 80 GB", 312, 19.5, 2.039, 80, 300),
    "h100": _gpu("NVIDIA H100 SXM", 989, 67, 3.35, 80, 450),
    "h200": _gpu("NVIDIA H200", 989, 67, 4.8, 141, 450),
    "b200": _gpu("NVIDIA B200", 2250, 80, 8.0, 180, 900),
    "l40s": _gpu("NVIDIA L40S", 362, 91.6, 0.864, 48, 32),
}


def measure_cpu() -> Hardware:
    """This machine's CPU with torch's current number of threads, measured in about two seconds."""
    matrix, largest = torch.randn(768, 768), torch.randn(1 << 24)
    product = fastest(lambda: matrix @ matrix, 8)
    in_place = fastest(lambda: largest.add_(1.0), 5)
    started = addition_time(torch.randn(4, 32))
    tables = [largest[: 1 << bits] for bits in range(10, 25, 2)]
    moves = tuple((2 * table.nbytes, max(0.0, addition_time(table) - started) / REACHED) for table in tables)
    rate = REACHED * 2 * 768**3 / product
    return Hardware(
        f"this CPU, {torch.get_num_threads()} thread(s)",
        wide_flops=rate,
        narrow_flops=rate,
        bandwidth=2 * largest.nbytes / in_place,
        moves=moves,
        memory=_memory(),
        kernel_seconds=BACKWARD * started,
        overlaps=False,
        graph_bytes=GRAPH_BYTES,
    )


# The share of the speed of a large product and of an addition that the kernels of layers reach: they are smaller, and exponentials
# take longer than additions. Fitted to the grid of scripts/check_estimate.py.
REACHED = 0.6

# Starting a kernel in a layer takes Python this many times as long as a bare addition: modules, and the graph.
BACKWARD = 3.0

# Approximate, measured over the grid of scripts/check_estimate.py; with a GPU they are in the host's memory.
GRAPH_BYTES = 700


def addition_time(table: torch.Tensor) -> float:
    """The least seconds in which a number is added to a table, as a new table."""
    number = max(1, (1 << 18) // table.numel())
    return fastest(lambda: [table + 1.0 for _ in range(number)], 5) / number


def fastest(run, repetitions: int) -> float:
    """The least CPU seconds of a call, divided by the threads that it uses."""
    seconds = []
    for _ in range(repetitions):
        begun = time.process_time()
        run()
        seconds.append(time.process_time() - begun)
    return min(seconds) / torch.get_num_threads()


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
