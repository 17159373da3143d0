"""What more processes would bring: the points at which data, tensor and pipeline parallelism stop helping."""

from .hardware import Hardware

LATENCY = 1.5e-5  # seconds of the shortest exchange between devices of a node
WAYS = 8  # devices that a model would be divided among


def limits(
    config, arguments, hardware: Hardware, processes: int, work: tuple[float, float], gradient_bytes: int
) -> dict:
    """What limits each kind of parallelism, with the most helpful kind last.

    Args:
        config: the models' configuration.
        arguments: the trainer's arguments.
        hardware: the device of every process.
        processes: number of processes in the training.
        work: seconds that device and host are busy with one batch of a process.
        gradient_bytes: bytes that data parallelism exchanges in a step.

    Returns:
        A sentence for each kind, ordered by the share of the time that would be useful, lowest first.
    """
    device, host = work
    found = [_data(arguments, hardware, processes, device, host, gradient_bytes)]
    found.append(_tensor(config, arguments, hardware, device, host))
    found.append(_pipeline(config, arguments))
    return {name: sentence for _, name, sentence in sorted(found)}


def _data(arguments, hardware: Hardware, processes: int, device: float, host: float, gradient_bytes: int):
    """More processes with the same total rows per step: each has fewer rows, until it has to wait."""
    rows = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * processes
    exchange = 2 * gradient_bytes / hardware.link
    ends = {
        rows: "every process has one row",
        processes * device / max(host, 1e-12): "the host takes longer to start kernels than the device to run them",
        processes * 2 / 3 * device / max(exchange, 1e-12): "exchanging gradients takes longer than a backward pass",
    }
    most = min(ends)
    useful = min(1.0, most / (processes * WAYS))
    if most <= processes:
        return useful, "data", f"fewer rows per process would not make a step shorter: {ends[most]}"
    return useful, "data", f"shortens a step up to {most:,.0f} processes with as many rows in total: then {ends[most]}"


def _tensor(config, arguments, hardware: Hardware, device: float, host: float):
    """Every layer divided among devices: two exchanges forward and two backward for each layer and step of the recurrence."""
    student = getattr(config, "student_config", config)
    chain = _chain(arguments) * student.num_updater_layers + student.num_readout_layers
    chain += getattr(getattr(config, "teacher_config", None), "num_encoder_layers", 0)
    exchanges = 4 * chain * LATENCY
    useful = (device / WAYS) / (max(device / WAYS, host) + exchanges)
    return (
        useful,
        "tensor",
        (
            f"divided among {WAYS} devices, {useful:.0%} of a step would be useful: {4 * chain:,} exchanges, one after another, "
            f"take at least {exchanges:.2g} s"
        ),
    )


def _pipeline(config, arguments):
    """Layers on different devices: all but one wait while the first batch passes through."""
    batches = arguments.gradient_accumulation_steps
    useful = batches / (batches + WAYS - 1)
    return (
        useful,
        "pipeline",
        (
            f"over {WAYS} devices, {useful:.0%} of a step would be useful with {batches} accumulated batch(es); a recurrence of "
            f"{_chain(arguments):,} steps goes through its layers once a step, so its stages take turns"
        ),
    )


def _chain(arguments) -> int:
    """The number of student steps that must follow one another."""
    if hasattr(arguments, "bptt_horizon"):
        return arguments.bptt_horizon if arguments.carry_memory else arguments.context_length
    if getattr(arguments, "rollout", None) == "sequential":
        return arguments.rollout_length
    if getattr(arguments, "rollout", None) == "sweeps":
        return (max(arguments.num_sweeps) + 1) * arguments.segment_length
    return arguments.segment_length
