"""Times one step of a student and the logits after it, on one thread: torch eager, the engine's torch, ONNX Runtime.

All ways take turns in every round. The fastest repetition of a round counts; the table shows the median over the rounds in CPU
milliseconds, with its ratio to eager in brackets. int8 stores the weights in 8 bits and computes in float32.

    python scripts/benchmark_step.py --model runs/demo/dmt
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from smt_hf.checkpoints import load_student
from smt_hf.data import load_tokenizer
from smt_hf.demo.stories import generate_stories
from smt_hf.inference import Backend, TorchBackend
from smt_hf.inference.export import export_onnx
from smt_hf.inference.graphs import Step, float_copy
from smt_hf.inference.onnx_backend import OnnxBackend


def step_of(backend: Backend):
    """The step of a backend, from `(B, K, D)` and `(B,)` to `(B, K, D)` and `(B, V)`."""

    def step(memory, input_ids):
        memory = backend.update(memory, input_ids)
        return memory, backend.readout(memory)

    return step


def exported(model: str, dtype: str, folder: Path) -> OnnxBackend:
    """Exports a model and prints how the export compares with it."""
    text = "\n".join(generate_stories(8))
    print(dtype, export_onnx(load_student(model), load_tokenizer(model), folder / dtype, text, dtype))
    return OnnxBackend(folder / dtype, num_threads=1)


def fastest(step, memory, input_ids, repetitions: int) -> float:
    """CPU milliseconds."""
    seconds = []
    for _ in range(repetitions):
        since = time.process_time()
        step(memory, input_ids)
        seconds.append(time.process_time() - since)
    return 1e3 * min(seconds)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 32, 256])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    eager = Step(float_copy(load_student(options.model)))
    config = eager.student.config
    with tempfile.TemporaryDirectory() as folder:
        backends = [exported(options.model, dtype, Path(folder)) for dtype in ("float32", "int8")]
    ways = [eager, *map(step_of, [TorchBackend(eager.student), *backends])]
    print(f"\n{'rows':>6}{'torch':>10}{'engine, torch':>18}{'onnx float32':>18}{'onnx int8':>18}")
    for rows in options.batch_sizes:
        inputs = torch.randn(rows, config.num_memory_tokens, config.hidden_size), torch.randint(256, (rows,))
        times = [[fastest(way, *inputs, options.repetitions) for way in ways] for _ in range(options.rounds)]
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        ratios = [f"{median:.3f} ({median / medians[0]:.2f})" for median in medians[1:]]
        print(f"{rows:>6}{medians[0]:>10.3f}{ratios[0]:>18}{ratios[1]:>18}{ratios[2]:>18}", flush=True)


if __name__ == "__main__":
    main()
