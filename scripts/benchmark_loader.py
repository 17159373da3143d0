"""Measures how fast a streamed corpus is read, encoded and packed, compared with what a training step consumes; and the memory used.

    python scripts/benchmark_loader.py --text tinystories_train.txt --tokenizers byte stories260K

The text is first split into shards. Every measurement uses one core and is in CPU seconds, over `--tokens` tokens; the memory of the
process is read after every tenth of them. The step is that of the recipe, the median of a few, on one thread. `--num_proc` builds the
token cache of the text, repeated `--copies` times, with that many processes (wall seconds).
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch

from smt_hf.cli import bptt, smt
from smt_hf.cli.parsing import parse
from smt_hf.data import TextStream, build_token_cache, iter_text_file, load_tokenizer
from smt_hf.data.stream_loader import StreamBatches

SHARDS = 8
RECIPES = {"smt": smt, "bptt": bptt}


def shards_of(text: str, folder: Path) -> Path:
    """Splits the documents of a text file into several files."""
    documents = list(iter_text_file(text))
    for shard in range(SHARDS):
        (folder / f"part-{shard}.txt").write_text("<|endoftext|>".join(documents[shard::SHARDS]), encoding="utf-8")
    return folder


def resident() -> float:
    """MB of memory that this process currently holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS")


def read(batches: StreamBatches, num_tokens: int, name: str) -> float:
    """Reads `num_tokens` tokens, prints the speed and the memory held meanwhile, and returns tokens per CPU second."""
    taken, marks, begun = 0, [], time.process_time()
    for batch in batches:
        taken += batch["input_ids"].numel()
        if taken >= num_tokens * (len(marks) + 1) / 10:
            marks.append(resident())
        if taken >= num_tokens:
            break
    speed = taken / (time.process_time() - begun)
    held = " ".join(f"{mark:.0f}" for mark in marks)
    print(f"{name}: {speed / 1e6:.2f} million tokens a CPU second; MB held: {held}", flush=True)
    return speed


def step_speed(command: str, recipe: str, text: str) -> float:
    """Tokens per second that a recipe's training steps consume on one thread."""
    module, folder = RECIPES[command], tempfile.mkdtemp()
    words = [
        "--config",
        recipe,
        "--dataset",
        text,
        "--output_dir",
        folder,
        "--max_train_seconds",
        "1000",
        "--num_readers",
        "1",
    ]
    options, arguments = parse(
        module.COMMAND, [*words, "--streaming", "true", "--max_steps", "10", "--eval_strategy", "no"]
    )
    options.eval_split = None
    trainer = module.build(options, arguments)
    trainer.create_optimizer_and_scheduler(10)
    trainer.model.train()
    seconds, tokens = [], 0
    batches = iter(trainer.get_train_dataloader())
    for _ in range(6):
        samples, counts = trainer.get_batch_samples(batches, 1, arguments.device)
        begun = time.process_time()
        trainer.current_gradient_accumulation_steps = 1
        trainer.training_step(trainer.model, samples[0], counts)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        seconds.append(time.process_time() - begun)
        tokens = samples[0]["input_ids"].numel()
    return tokens / statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizers", nargs="+", default=["byte"])
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument(
        "--recipes",
        nargs="*",
        default=["smt:configs/tinystories_cpu/smt.yaml", "bptt:configs/tinystories_cpu/bptt.yaml"],
    )
    parser.add_argument("--num_proc", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--copies", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        source, speeds = shards_of(options.text, Path(folder)), []
        for name in options.tokenizers:
            tokenizer = load_tokenizer(name)
            speeds.append(
                read(StreamBatches(TextStream(source, tokenizer, 320), 128), options.tokens, f"{name}, windows of 320")
            )
            running = TextStream(source, tokenizer, 320).as_running_text(16)
            read(StreamBatches(running, 128), options.tokens, f"{name}, 128 running rows of 16")
        for recipe in options.recipes:
            command, _, file = recipe.partition(":")
            speed = step_speed(command, file, options.text)
            print(
                f"{file}: a step takes {speed:,.0f} tokens per second; the slowest loader gives {min(speeds) / speed:,.0f} times as many"
            )
        for name, number in itertools.product(options.tokenizers, options.num_proc):
            tokenizer, documents = load_tokenizer(name), list(iter_text_file(options.text)) * options.copies
            begun = time.monotonic()
            cache = build_token_cache(documents, tokenizer, Path(folder) / "cache", num_proc=number)
            seconds = time.monotonic() - begun
            print(
                f"{name}, cache by {number} process(es): {cache.num_bytes / seconds / 1e6:.1f} MB per second",
                flush=True,
            )


if __name__ == "__main__":
    main()
