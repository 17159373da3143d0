"""Generates a very long text with a student and with a GPT-2 of the same size, and plots memory and time per token.

Each model runs in its own process, on one thread, with random weights (the cost does not depend on them). It calls `generate()` in
turns of `--turn` tokens: the student continues from its `SmtMemory`, GPT-2 from its key-value cache. After every turn, the resident
memory of the process and the CPU seconds of the turn are recorded.

    python scripts/long_generation.py --num_tokens 100000 --output_dir runs/long_generation
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from figures import plot_turns
from transformers import GPT2Config, GPT2LMHeadModel

from smt_hf import SmtMemory, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.models.cache_smt_rnn import CACHE_NAME

VOCAB_SIZE, WIDTH, MEMORY_TOKENS, HEADS = 258, 64, 4, 4
NAMES = {"student": "student (fixed-size memory)", "gpt2": "GPT-2 (key-value cache)"}


def build_student():
    """A student with one updater layer and one readout layer."""
    config = SmtRnnConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        num_memory_tokens=MEMORY_TOKENS,
        num_attention_heads=HEADS,
        num_updater_layers=1,
        num_readout_layers=1,
    )
    return SmtRnnForCausalLM(config).eval()


def build_gpt2(num_tokens: int):
    """A GPT-2 of the same width and number of layers, with a position table that is long enough."""
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=WIDTH,
        n_head=HEADS,
        n_layer=2,
        n_positions=num_tokens + 1,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def num_parameters(model) -> int:
    """The number of parameters, without GPT-2's position table, which grows with the length that it is built for."""
    return sum(value.numel() for name, value in model.named_parameters() if "wpe" not in name)


def measure(name: str, num_tokens: int, turn: int) -> None:
    """Generates, and prints one JSON line per turn: tokens so far, resident bytes, CPU seconds per token."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_student() if name == "student" else build_gpt2(num_tokens)
    print(json.dumps({"parameters": num_parameters(model)}), flush=True)
    options = {"do_sample": True, "return_dict_in_generate": True, "pad_token_id": 0, "eos_token_id": None}
    sequence, past, process = torch.zeros(1, 1, dtype=torch.long), {}, psutil.Process()
    for total in range(turn, num_tokens + 1, turn):
        since = time.process_time()
        output = model.generate(sequence, **past, max_new_tokens=turn, **options)
        seconds = time.process_time() - since
        if name == "student":  # the memory is all that is left of the text
            sequence = output.sequences[:, -1:]
            past = {"memory": SmtMemory.from_cache(model, output[CACHE_NAME])}
        else:
            sequence, past = output.sequences, {CACHE_NAME: output[CACHE_NAME]}
        row = {"tokens": total, "bytes": process.memory_info().rss, "seconds": seconds / turn}
        print(json.dumps(row), flush=True)


def summary(results: dict) -> str:
    """The summary in the README: growth of memory and time from the first tenth of the turns to the last."""
    lines = []
    for name, label in NAMES.items():
        rows = results[name]["turns"]
        tenth = max(1, len(rows) // 10)
        first, last = rows[1 : tenth + 1] or rows[:1], rows[-tenth:]
        values = []
        for key, unit, scale in (("bytes", "MB", 1e6), ("seconds", "ms/token", 1e-3)):
            before, after = (statistics.median(row[key] for row in part) / scale for part in (first, last))
            values.append(f"{before:8.2f} -> {after:8.2f} {unit} ({after / before - 1:+.1%})")
        lines.append(f"{label:28} {results[name]['parameters']:>8,} parameters  " + "  ".join(values))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_tokens", type=int, default=100_000)
    parser.add_argument("--turn", type=int, default=1_000)
    parser.add_argument("--output_dir", default="runs/long_generation")
    parser.add_argument("--measure", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.num_tokens, options.turn)
        return
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in NAMES:
        command = [sys.executable, __file__, "--measure", name, "--num_tokens", str(options.num_tokens)]
        run = subprocess.Popen([*command, "--turn", str(options.turn)], stdout=subprocess.PIPE, text=True)
        results[name] = json.loads(run.stdout.readline()) | {"turns": []}
        for line in run.stdout:
            row = json.loads(line)
            results[name]["turns"].append(row)
            if row["tokens"] % (10 * options.turn) == 0:
                print(
                    f"{name}: {row['tokens']:,} tokens, {row['bytes'] / 1e6:.1f} MB, {row['seconds'] * 1e3:.2f} ms",
                    flush=True,
                )
        if run.wait() != 0:
            sys.exit(f"the run of {name} failed")
    rows = [{"model": name} | turn for name in NAMES for turn in results[name]["turns"]]
    with open(folder / "long_generation.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_turns(rows, folder / "long_generation.png")
    print(summary(results))


if __name__ == "__main__":
    main()
