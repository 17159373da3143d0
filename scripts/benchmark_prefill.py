"""Prefill by the student, step by step, against prefill by its teacher, in one pass: seconds, and what is lost.

For each prompt length a batch of validation text is read both ways, in turn, several rounds; then the student predicts the
tokens that follow from either memory.

    python scripts/benchmark_prefill.py runs/dmt --teacher runs/smt --dataset tinystories_valid.txt
"""

import argparse
import statistics
import time

import torch

from smt_hf.checkpoints import check_pair, load_student, load_teacher
from smt_hf.data import cached_tokens, evenly_spaced_windows, load_tokenizer
from smt_hf.rollout import next_token_losses, rollout


@torch.no_grad()
def loss_after(student, memory, following: torch.Tensor) -> float:
    """Mean loss in nats of the tokens `(B, S)` that follow, the student going on from `memory`."""
    before, _ = rollout(student, following, memory=memory.states)
    return next_token_losses(student.readout, before, following).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a student")
    parser.add_argument("--teacher", required=True, help="folder or Hub id of its SMT run or teacher")
    parser.add_argument("--dataset", required=True, help="text to read: a file, a folder or a Hub id")
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=[16, 32, 64, 128, 256, 512], help="of the prompts, in tokens"
    )
    parser.add_argument("--following", type=int, default=64, help="tokens to predict after the prompt")
    parser.add_argument("--num_windows", type=int, default=128, help="whose loss is averaged")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each way, whose median is shown")
    parser.add_argument("--num_threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--cache_dir", help="where token caches are kept")
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    student, teacher = load_student(options.model).eval(), load_teacher(options.teacher).eval()
    check_pair(teacher, student)
    cache = cached_tokens(options.dataset, load_tokenizer(options.model), options.cache_dir)

    print(
        f"{'prompt':>7}{'step by step':>14}{'in one pass':>13}{'gain':>7}   loss of the next {options.following} tokens"
    )
    print(f"{'tokens':>7}{'ms':>14}{'ms':>13}{'':>7}{'step by step':>15}{'in one pass':>13}{'lost':>8}")
    for length in options.lengths:
        windows = evenly_spaced_windows(cache, length + options.following, options.num_windows)["input_ids"]
        prompts, following = windows[:, :length], windows[:, length:]
        seconds = {None: [], teacher: []}
        for _ in range(options.rounds):
            for reader in seconds:
                since = time.perf_counter()
                student.read(prompts[:1], teacher=reader)
                seconds[reader].append(time.perf_counter() - since)
        steps, one_pass = (statistics.median(values) * 1e3 for values in seconds.values())
        gain = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
        losses = [loss_after(student, student.read(prompts, teacher=reader), following) for reader in seconds]
        print(
            f"{length:7}{steps:14.1f}{one_pass:13.1f}{gain:6.1f}x{losses[0]:15.3f}{losses[1]:13.3f}{losses[1] - losses[0]:+8.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
