"""Times `generate()` for one and for many prompts, in CPU milliseconds per token, against the library's own loop of forward passes.

The loop, in which every step is a forward pass of the model, is what `GenerationMixin` runs for any model. All ways take turns in
every round. The table shows medians over the rounds, and the ratio of each way to the loop in the same round.

    python scripts/benchmark_generate.py --model runs/demo/dmt
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from transformers import StoppingCriteriaList

from smt_hf.checkpoints import load_student
from smt_hf.data import load_tokenizer
from smt_hf.inference import SamplingParams, write_many
from smt_hf.models import generation_smt_rnn

PROMPT = "Once upon a time, there was a little girl who"
WAYS = {"likeliest tokens": {"do_sample": False}, "sampled": {"do_sample": True, "temperature": 0.8, "top_k": 0}}


@contextmanager
def the_librarys_loop() -> Iterator[None]:
    """Disables the lean loop and the short check for the end of a single row."""

    def of_one_row(rows, input_ids):
        return StoppingCriteriaList.__call__(rows, input_ids, None)

    with (
        mock.patch.object(generation_smt_rnn, "is_lean", lambda student: False),
        mock.patch.object(generation_smt_rnn.FinishedRows, "_of_one_row", of_one_row),
    ):
        yield


def cpu_seconds(call: Callable[[], object]) -> float:
    """The CPU time of a call."""
    since = time.process_time()
    call()
    return time.process_time() - since


def one_prompt(student, ids: torch.Tensor, num_tokens: int, rounds: int) -> None:
    """Prints the table for single prompts."""
    print("| tokens | ms per token | the library's loop | ratio |\n| --- | ---: | ---: | ---: |")
    for name, options in WAYS.items():

        def write(options=options):
            options = {**options, "max_new_tokens": num_tokens, "min_new_tokens": num_tokens}
            student.generate(ids, attention_mask=torch.ones_like(ids), **options)

        pairs = []
        for _ in range(rounds):
            ours = cpu_seconds(write)
            with the_librarys_loop():
                pairs.append((ours, cpu_seconds(write)))
        ours, loops = (1e3 * statistics.median(column) / num_tokens for column in zip(*pairs, strict=True))
        print(f"| {name} | {ours:.2f} | {loops:.2f} | {statistics.median(b / a for a, b in pairs):.1f} |", flush=True)


def many_prompts(student, tokenizer, num_prompts: int, num_tokens: int, rounds: int) -> None:
    """Prints the time for many prompts, together and one by one."""
    prompts = [f"{PROMPT} {number}" for number in range(num_prompts)]
    params = SamplingParams(
        num_tokens, temperature=0.8, seed=0, logit_bias={student.generation_config.eos_token_id: -100}
    )
    options = {**WAYS["sampled"], "max_new_tokens": num_tokens, "min_new_tokens": num_tokens}

    def one_by_one():
        for prompt in prompts:
            inputs = tokenizer(prompt, return_tensors="pt")
            student.generate(**inputs, **options)

    times = []
    for _ in range(rounds):
        together, alone = cpu_seconds(lambda: write_many(student, tokenizer, prompts, params)), cpu_seconds(one_by_one)
        with the_librarys_loop():
            times.append((together, alone, cpu_seconds(one_by_one)))
    together, alone, loops = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"\n{num_prompts} prompts, {num_tokens} tokens each: {together:.2f} s together, {alone:.1f} s by generate() one by one "
        f"({statistics.median(b / a for a, b, _ in times):.0f} times as long), {loops:.1f} s by the library's loop "
        f"({statistics.median(c / a for a, _, c in times):.0f} times)."
    )


def main() -> None:
    """Runs both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--num_tokens", type=int, default=300)
    parser.add_argument("--num_prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    student, tokenizer = load_student(options.model).eval().requires_grad_(False), load_tokenizer(options.model)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    one_prompt(student, ids, options.num_tokens, options.rounds)
    many_prompts(student, tokenizer, options.num_prompts, 100, max(1, options.rounds // 3))


if __name__ == "__main__":
    main()
