"""Times prompts read by the student alone, and by its teacher followed by n sweeps of the student, and measures the loss in quality.

After n sweeps over segments of J tokens, the student itself has read the last n J tokens. For each prompt length, validation text
is read each way in turn, for several rounds; then the student predicts the following tokens from each memory. The standard error is
that of the difference from the student alone.

    python scripts/benchmark_prefill.py runs/dmt --teacher runs/smt --dataset tinystories_valid.txt
"""

import argparse
import statistics
import time

import torch

from smt_hf.checkpoints import check_pair, load_student, load_teacher
from smt_hf.data import cached_tokens, evenly_spaced_windows, load_tokenizer
from smt_hf.inference import Engine, Request, SamplingParams, TeacherReader
from smt_hf.rollout import next_token_losses, rollout

READ = SamplingParams(max_new_tokens=0)


@torch.no_grad()
def losses_after(student, memory: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Mean loss `(B,)` in nats of the following tokens `(B, S)`, with the student continuing from `memory`."""
    before, _ = rollout(student, following, memory=memory)
    return next_token_losses(student.readout, before, following).mean(dim=1)


def read(engine: Engine, prompts: torch.Tensor) -> torch.Tensor:
    """The memories `(B, K, D)` after prompts `(B, T)`."""
    requests = [
        Request(prompt, READ, keep_memory=True, use_teacher=engine.teacher is not None) for prompt in prompts.tolist()
    ]
    return torch.stack([answer.memory for (answer,) in engine.generate(requests)])


def compare(engines: dict[str, Engine], student, windows: torch.Tensor, length: int, rounds: int) -> list[str]:
    """One table row for each way to read prompts of one length."""
    prompts, following = windows[:, :length], windows[:, length:]
    times = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            since = time.perf_counter()
            read(engine, prompts[:1])
            times[name].append(time.perf_counter() - since)
    alone, rows = None, []
    for name, engine in engines.items():
        losses = losses_after(student, read(engine, prompts), following)
        alone = losses if alone is None else alone
        lost, gain = losses - alone, statistics.median(a / b for a, b in zip(times["alone"], times[name], strict=True))
        rows.append(
            f"| {length} | {name} | {1e3 * statistics.median(times[name]):.1f} | {gain:.1f} | {losses.mean():.3f} "
            f"| {lost.mean():+.3f} ± {lost.std() / len(lost) ** 0.5:.3f} |"
        )
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a student")
    parser.add_argument("--teacher", required=True, help="folder or Hub id of its SMT run or teacher")
    parser.add_argument("--dataset", required=True, help="text to read: a file, a folder or a Hub id")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[128, 512, 2048], help="lengths of the prompts, in tokens"
    )
    parser.add_argument("--sweeps", type=int, nargs="+", default=[0, 1, 2, 4, 8], help="n")
    parser.add_argument("--segment_length", type=int, default=16, help="J")
    parser.add_argument("--context_length", type=int, default=128, help="the most tokens that the teacher is given")
    parser.add_argument("--following", type=int, default=64, help="tokens to predict after the prompt")
    parser.add_argument("--num_windows", type=int, default=128, help="windows over which the loss is averaged")
    parser.add_argument("--rounds", type=int, default=7, help="timings of each way; the median is shown")
    parser.add_argument("--num_threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--cache_dir", help="where token caches are kept")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    student, teacher = load_student(options.model).eval(), load_teacher(options.teacher).eval()
    check_pair(teacher, student)
    cache = cached_tokens(options.dataset, load_tokenizer(options.model), options.cache_dir)
    engines = {"alone": Engine(student)}
    for n in options.sweeps:
        reader = TeacherReader(teacher, n * options.segment_length, options.context_length)
        engines[f"teacher, n = {n}"] = Engine(student, teacher=reader)
    print(f"| tokens | read by | ms | times as fast | loss of the next {options.following} | lost |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for length in options.lengths:
        windows = evenly_spaced_windows(cache, length + options.following, options.num_windows)["input_ids"]
        print("\n".join(compare(engines, student, windows, length, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
