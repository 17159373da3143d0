"""Compares the estimate of a step with the step itself, on this CPU, over a grid of methods and sizes.

    python scripts/check_estimate.py --json docs/results/estimate.json --output docs/images/estimate.png

Every row is measured in processes of its own, on one thread: FLOPs by torch's counter; memory as the most that the process held above
what it held before the model was made, weights and optimiser states included; in another process, whose memory is managed as usual,
CPU seconds as the median of three steps after the first. The FLOPs are those of the estimated step, drawn from the same seed.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from figures import plot_estimate
from training_setup import SIZES, corpus, make_model, make_trainer, windows

from smt_hf.comparison.flops import counted_flops
from smt_hf.comparison.tables import markdown
from smt_hf.estimation import estimate, measure_cpu
from smt_hf.estimation.trace import trace_step

BASE = replace(
    SIZES["small"],
    hidden_size=128,
    num_memory_tokens=4,
    num_attention_heads=4,
    context_length=128,
    horizon=32,
    batch_size=16,
)
GRID = {
    "base": BASE,
    "narrow": replace(BASE, hidden_size=64),
    "wide": replace(BASE, hidden_size=256, batch_size=8),
    "16 memory tokens": replace(BASE, num_memory_tokens=16, batch_size=8),
}
METHODS = {
    "SMT, J = 1": ("smt", {"num_transitions": 32}),
    "SMT, J = 16": ("smt", {"num_transitions": 128, "segment_length": 16, "student_weight": 1.0, "num_decoded": 2}),
    "DMT by sweeps": ("dmt", {"rollout_length": 64, "segment_length": 8, "num_sweeps": [2]}),
    "BPTT": ("bptt", {}),
    "BPTT, 16 steps recomputed": ("bptt", {"checkpoint_steps": 16}),
    "BPTT over 16, carried": ("bptt", {"bptt_horizon": 16, "carry_memory": True}),
}
CELLS = ("gru",)


def rows() -> list[tuple[str, str, str]]:
    """Sizes, method and cell of every row."""
    few = ("SMT, J = 16", "DMT by sweeps", "BPTT over 16, carried")
    grid = [(sizes, method, "transformer") for sizes in ("base", "narrow") for method in METHODS]
    grid += [(sizes, method, "transformer") for sizes in ("wide", "16 memory tokens") for method in few]
    return grid + [("base", method, cell) for cell in CELLS for method in few]


def fields(sizes, method: str) -> dict:
    kind, given = METHODS[method]
    given = {"context_length": sizes.context_length, "per_device_train_batch_size": sizes.batch_size, **given}
    return (
        given | ({"horizon": sizes.horizon} if kind == "smt" else {}) | ({} if kind == "bptt" else {"drift_steps": 0})
    )


def held(name: str) -> int:
    """Bytes of this process: VmRSS is the current number, VmHWM the highest since it was last cleared."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {name}")


def prepare(row: int):
    """A row's trainer, ready for a step, its batch, and the configuration to estimate; and the bytes held before they were made."""
    torch.set_num_threads(1)
    name, method, cell = rows()[row]
    sizes, kind = GRID[name], METHODS[method][0]
    warm_up(kind)
    give_back()
    before = held("VmRSS")
    layers = {"num_updater_layers": min(sizes.num_updater_layers, sizes.num_memory_tokens)}
    model = make_model(replace(sizes, **layers), cell_type=cell)
    trainer = make_trainer(kind, model, windows(corpus(None)), "cpu", tempfile.mkdtemp(), **fields(sizes, method))
    config = model.config.student_config if kind == "bptt" else model.config
    del model
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(sizes.batch_size)])
    trainer.create_optimizer_and_scheduler(10)
    trainer.model.train()
    return trainer, batch, config, before


def measure_memory(row: int) -> dict:
    """Bytes held in the first two steps of a row, and its FLOPs, predicted and measured."""
    trainer, batch, config, before = prepare(row)
    peak = 0
    for step in range(2):
        Path("/proc/self/clear_refs").write_text("5")
        run(trainer, batch, step)
        peak = max(peak, held("VmHWM"))
    flops = count(trainer, batch)
    trace = trace_step(config, trainer.args, on_cpu=True, draw=(0, 0))
    return {"kernels": trace.num_kernels, "flops": [trace.flops, flops], "bytes": peak - before}


def measure_time(row: int) -> dict:
    """CPU seconds of a step of a row, predicted and measured, and the predicted bytes."""
    trainer, batch, config, _ = prepare(row)
    seconds = []
    for step in range(4):
        begun = time.process_time()
        run(trainer, batch, step)
        seconds.append(time.process_time() - begun)
    found = estimate(config, trainer.args, measure_cpu())
    return {
        "bytes": sum(found.memory.values()),
        "seconds": [found.seconds_per_step, statistics.median(seconds[1:])],
    }


def give_back() -> None:
    """Returns freed memory to the system, so that what the process takes next is visible."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def warm_up(kind: str) -> None:
    """Runs a step of a tiny model, so that torch loads what it needs once."""
    tiny = SIZES["small"]
    more = {"rollout_length": 16, "segment_length": 4} if kind == "dmt" else {}
    more |= {"num_transitions": 8, "horizon": 8} if kind == "smt" else {}
    trainer = make_trainer(
        kind, make_model(tiny), windows(corpus(None)), "cpu", tempfile.mkdtemp(), context_length=32, **more
    )
    trainer.create_optimizer_and_scheduler(10)
    run(trainer, trainer.data_collator([trainer.train_dataset[number] for number in range(4)]), 0)


def run(trainer, batch, number: int) -> None:
    """One optimiser step."""
    if getattr(trainer, "carried", None) is not None:
        trainer.carried.rewind()
    step = trainer.make_step(batch, (0, number))
    trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
    trainer.optimizer.step()
    trainer.model.zero_grad()


def count(trainer, batch) -> int:
    """FLOPs of the forward and backward pass, as counted by torch."""
    if getattr(trainer, "carried", None) is not None:
        trainer.carried.rewind()
    with counted_flops() as counted:
        trainer.mean_loss(trainer.losses(trainer.model, trainer.make_step(batch, (0, 0)))[0]).backward()
    trainer.model.zero_grad()
    return counted.get_total_flops()


def outcome(words: list[str], environment: dict[str, str]) -> dict:
    """What a process prints in its last line."""
    shown = subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(shown.splitlines()[-1])


def table(results: list[dict]) -> str:
    """The rows as a table in Markdown."""
    compared = ["measured", "ratio"]
    head = ["sizes, rows", "method", "MB: predicted", *compared, "CPU s: predicted", *compared]
    lines = []
    for row in results:
        sizes = GRID[row["sizes"]]
        cell = "" if row["cell"] == "transformer" else f", `{row['cell']}`"
        place = f"D = {sizes.hidden_size}, K = {sizes.num_memory_tokens}{cell}, {row['batch']}"
        numbers = []
        for (predicted, measured), digits in ((row["bytes"], 0), (row["seconds"], 2)):
            unit = 1 if digits else 1e6
            numbers += [
                f"{predicted / unit:.{digits}f}",
                f"{measured / unit:.{digits}f}",
                f"{predicted / measured:.2f}",
            ]
        lines.append([place, row["method"], *numbers])
    return markdown(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", type=int, help="measure only this row, in this process: its memory")
    parser.add_argument("--timed", action="store_true", help="or its time")
    parser.add_argument("--json", help="file for all rows; rows already in it are not measured again")
    parser.add_argument("--output", help="file of the plot")
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps((measure_time if options.timed else measure_memory)(options.row)))
        return
    file = Path(options.json or tempfile.mkstemp()[1])
    results = json.loads(file.read_text()) if file.is_file() and file.stat().st_size else []
    # large blocks return to the system at once, so that the memory held is the memory used
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    for row in range(len(results), len(rows())):
        words = [sys.executable, __file__, "--row", str(row)]
        held_back = outcome(words, environment)
        timed = outcome([*words, "--timed"], {**os.environ, "OMP_NUM_THREADS": "1"})
        sizes, method, cell = rows()[row]
        place = {"sizes": sizes, "method": method, "cell": cell, "batch": GRID[sizes].batch_size}
        results.append(place | held_back | timed | {"bytes": [timed["bytes"], held_back["bytes"]]})
        ratios = {
            name: round(results[-1][name][0] / results[-1][name][1], 3) for name in ("flops", "bytes", "seconds")
        }
        print(results[-1]["sizes"], results[-1]["method"], results[-1]["cell"], ratios, flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    for name in ("flops", "bytes", "seconds"):
        ratios = sorted(row[name][0] / row[name][1] for row in results)
        print(
            f"{name}: predicted / measured from {ratios[0]:.3f} to {ratios[-1]:.3f}, median {statistics.median(ratios):.3f}"
        )
    if options.output:
        plot_estimate(results, options.output)


if __name__ == "__main__":
    main()
