"""Turns a traced step into memory, time, cost, and the use of more processes."""

import copy
from dataclasses import asdict, dataclass, fields, replace

from .hardware import Hardware
from .parallel import limits
from .trace import StepTrace, carries_windows, tokens_read, trace_step

LONG_WINDOW = 64  # steps of BPTT; for longer windows, shorter ones are traced


@dataclass(frozen=True)
class Cost:
    """The cost of one batch of one process. All numbers are linear in sweeps, in windows that begin and, for BPTT, in window length."""

    flops: float
    sequential_flops: float
    kernels: float
    bytes_moved: float
    device_seconds: float
    host_seconds: float
    gradient_bytes: float
    activation_bytes: float

    def towards(self, other: "Cost", share: float) -> "Cost":
        """The cost that lies `share` of the way to another, or beyond it."""
        values = {
            each.name: getattr(self, each.name) * (1 - share) + getattr(other, each.name) * share
            for each in fields(self)
        }
        return Cost(**values)


@dataclass(frozen=True)
class Estimate:
    """The resources that a training needs.

    Attributes:
        method: "smt", "dmt" or "bptt".
        hardware: name of the device; there are `processes` of them.
        parameters: parameters of the model, and of a frozen teacher if there is one.
        memory: bytes of one process by part.
        capacity: bytes of memory of a device.
        tokens: tokens of all processes in a step.
        flops: FLOPs of all processes in a step.
        sequential_flops: FLOPs of the longest chain in a step.
        kernels, bytes_moved: those of one process in a step.
        seconds: seconds of a step by part.
        steps: steps of the training; `None` if a clock ends it.
        hours, cost: those of the training; `cost` only with a price.
        parallel: what limits the use of more processes, by kind of parallelism, nearest limit first.
    """

    method: str
    hardware: str
    processes: int
    parameters: dict[str, int]
    memory: dict[str, float]
    capacity: float
    tokens: int
    flops: float
    sequential_flops: float
    kernels: float
    bytes_moved: float
    seconds: dict[str, float]
    steps: int | None
    hours: float | None
    cost: float | None
    parallel: dict[str, str]

    @property
    def seconds_per_step(self) -> float:
        return sum(self.seconds.values())

    @property
    def fits(self) -> bool:
        """Whether a process fits into a device's memory."""
        return sum(self.memory.values()) <= self.capacity

    def as_dict(self) -> dict:
        """All values, JSON-ready."""
        more = {
            "seconds_per_step": self.seconds_per_step,
            "memory_total": sum(self.memory.values()),
            "fits": self.fits,
        }
        return {**asdict(self), **more}


def estimate(
    config, arguments, hardware: Hardware, processes: int = 1, processes_per_node: int = 8, price: float | None = None
) -> Estimate:
    """Estimates a training by tracing its step on the meta device.

    Args:
        config: an `SmtConfig`, or an `SmtRnnConfig` for BPTT.
        arguments: the trainer's arguments.
        hardware: an entry of `HARDWARE`, or the result of [`measure_cpu`].
        processes: number of devices; each takes `per_device_train_batch_size` rows.
        processes_per_node: number of devices that share a node.
        price: price of one device for an hour.
    """
    trace, cost = batch_cost(config, arguments, hardware)
    trained, batches = trace.num_parameters, arguments.gradient_accumulation_steps
    states = 8 * trained - 4 * trace.num_matrices  # AdamW keeps two numbers per weight, Muon one
    memory = {
        "weights": 4.0 * (trained + trace.num_frozen),
        "gradients": cost.gradient_bytes,
        "optimiser": float(states),
        "activations": cost.activation_bytes,
    }
    if hardware.graph_bytes:
        memory["graph"] = hardware.graph_bytes * cost.kernels
    if processes > 1:
        memory["buckets of DistributedDataParallel"] = 4.0 * trained
    work = (cost.device_seconds, cost.host_seconds)
    compute = batches * (max(work) if hardware.overlaps else sum(work))
    link = hardware.link if processes <= processes_per_node else hardware.network
    sent = 2 * (processes - 1) / processes * 4 * trained / link
    seconds = {
        "forward and backward": compute,
        "optimiser": (4 * trained + 2 * (4 * trained + states)) / hardware.bandwidth,
        "waiting for other processes": max(
            0.0, sent - 2 / 3 * compute / batches
        ),  # sent during the last backward pass
    }
    steps = arguments.max_steps if arguments.max_train_seconds is None and arguments.max_steps > 0 else None
    hours = None if steps is None else steps * sum(seconds.values()) / 3600
    parameters = {"trained": trained} | ({"frozen teacher": trace.num_frozen} if trace.num_frozen else {})
    rows = arguments.per_device_train_batch_size
    return Estimate(
        method=type(arguments).__name__.removesuffix("TrainingArguments").lower(),
        hardware=hardware.name,
        processes=processes,
        parameters=parameters,
        memory=memory,
        capacity=hardware.memory,
        tokens=tokens_read(arguments) * rows * batches * processes,
        flops=cost.flops * batches * processes,
        sequential_flops=cost.sequential_flops,
        kernels=cost.kernels * batches,
        bytes_moved=cost.bytes_moved * batches,
        seconds=seconds,
        steps=steps,
        hours=hours,
        cost=None if price is None or hours is None else hours * processes * price,
        parallel=limits(config, arguments, hardware, processes, work, 4 * trained),
    )


def batch_cost(config, arguments, hardware: Hardware) -> tuple[StepTrace, Cost]:
    """The cost of one batch of one process, averaged over what a step draws; and a trace of such a step.

    Sweeps are traced for the fewest and the most. BPTT windows longer than `LONG_WINDOW` are traced at two shorter lengths. Rows
    that read windows over several steps are traced with the fewest and the most that begin a window in a step.
    """
    if carries_windows(arguments):
        begin = arguments.per_device_train_batch_size * arguments.segment_length / arguments.context_length
        low = traced_cost(config, arguments, hardware, int(begin))
        high = low if begin == int(begin) else traced_cost(config, arguments, hardware, int(begin) + 1)
        mean = low[1].towards(high[1], begin - int(begin))
        return high[0], replace(mean, activation_bytes=high[1].activation_bytes)
    if getattr(arguments, "rollout", None) == "sweeps" and len(set(arguments.num_sweeps)) > 1:
        most = arguments.rollout_length // arguments.segment_length - 1
        sweeps = [min(number, most) for number in arguments.num_sweeps]
        low, high, wanted = min(sweeps), max(sweeps), sum(sweeps) / len(sweeps)
        traced = [traced_cost(config, changed(arguments, num_sweeps=[number]), hardware) for number in (low, high)]
        share = (wanted - low) / max(high - low, 1)
        # memory is that of the most; what is held of sweeps does not add up
        mean = traced[0][1].towards(traced[1][1], share)
        return traced[1][0], replace(mean, activation_bytes=max(each.activation_bytes for _, each in traced))
    unit = window_unit(arguments)
    if unit and arguments.context_length > LONG_WINDOW and 4 * unit <= arguments.context_length:
        lengths = (unit * max(2, 16 // unit), unit * max(3, 32 // unit))
        traced = [traced_cost(config, changed(arguments, context_length=length), hardware) for length in lengths]
        share = (arguments.context_length - lengths[0]) / (lengths[1] - lengths[0])
        return traced[1][0], traced[0][1].towards(traced[1][1], share)
    return traced_cost(config, arguments, hardware)


def window_unit(arguments) -> int | None:
    """The number of steps in the unit that a BPTT window repeats; `None` for other trainings."""
    if not hasattr(arguments, "bptt_horizon") or arguments.carry_memory:
        return None
    sizes = [size for size in (arguments.bptt_horizon, arguments.checkpoint_steps) if size]
    unit = max(sizes, default=1)
    return unit if all(unit % size == 0 and arguments.context_length % unit == 0 for size in sizes) else None


def traced_cost(config, arguments, hardware: Hardware, new_windows: int = 0) -> tuple[StepTrace, Cost]:
    trace = trace_step(config, arguments, on_cpu=not hardware.overlaps, new_windows=new_windows)
    device, host = hardware.step_time(trace.kernels)
    return trace, Cost(
        flops=trace.flops / trace.num_batches,
        sequential_flops=trace.sequential_flops,
        kernels=trace.num_kernels,
        bytes_moved=trace.bytes_moved,
        device_seconds=device,
        host_seconds=host,
        gradient_bytes=trace.gradient_bytes,
        activation_bytes=trace.activation_bytes,
    )


def changed(arguments, **values):
    """A copy of a trainer's arguments with changed values, which are not checked again."""
    arguments = copy.copy(arguments)
    for name, value in values.items():
        setattr(arguments, name, value)
    return arguments
