"""Kills trainings at random moments, resumes each, and counts those that end bit-identical to an undisturbed run.

    python scripts/kill_and_resume.py --kills 200

SMT, DMT and BPTT with carried memory are killed with SIGKILL anywhere between start and end; BPTT is also killed while it saves its
final model. A resumed run must end with exactly the weights and logged losses of a run that was not killed.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from smt_hf.cli import bptt, dmt, smt  # noqa: F401  imported once, for all runs
from smt_hf.cli.main import main as smt_hf
from smt_hf.demo.stories import write_stories
from smt_hf.errors import InputError
from smt_hf.training.resume import checkpoint_to_resume

STEPS = 12
SIZES = "--hidden_size 32 --num_memory_tokens 2 --num_readout_layers 1 --num_updater_layers 1 --num_attention_heads 2"
COMMON = (
    f"--max_steps {STEPS} --save_steps 2 --save_total_limit 2 --per_device_train_batch_size 4 --logging_steps 1 --use_cpu true "
    "--learning_rate 3e-3 --report_to none --disable_tqdm true --num_threads 1 --context_length 24"
)
KINDS = {
    "SMT": f"smt {SIZES} {COMMON} --num_encoder_layers 1 --horizon 8 --num_transitions 16 --segment_length 4 --num_decoded 2",
    "DMT": f"dmt {COMMON} --rollout_length 16 --num_sweeps 0 1 2 --segment_length 4",
    "BPTT, carried memory": f"bptt {SIZES} {COMMON} --bptt_horizon 8 --carry_memory true",
    "BPTT, final save": f"bptt {SIZES} {COMMON} --muon true",
}
NOTHING_KEPT = "before the first whole checkpoint"
PROCESSES = multiprocessing.get_context("fork")


def run(words: list[str], log: Path) -> None:
    """Runs a command in this process, with its output in a file."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.exit(smt_hf(words))


def start(words: list[str], log: Path):
    """Runs a command in its own process."""
    process = PROCESSES.Process(target=run, args=(words, log))
    process.start()
    return process


def finish(words: list[str], log: Path) -> None:
    """Runs a command to its end.

    Raises:
        RuntimeError: if it fails.
    """
    process = start(words, log)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"exit code {process.exitcode}: {log.read_text()[-2000:]}")


def outcome(folder: Path) -> tuple:
    """What a run must end with: its weights, and every loss that it logged."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    record = json.loads((folder / "training.json").read_text())[-1]
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(), losses, record["steps"]


def kill(kind: str, words: list[str], folder: Path, log: Path, seconds: float, rng: random.Random) -> str | None:
    """Starts a run and kills it. Returns where it was killed, or `None` if it had already ended."""
    process = start(words, log)
    if kind.endswith("final save"):
        last = folder / f"checkpoint-{STEPS}" / "trainer_state.json"
        while not last.exists() and process.is_alive():
            time.sleep(0.001)
        process.join(rng.uniform(0, 0.25))
    else:
        process.join(rng.uniform(0, 1.1 * seconds))
    alive = process.is_alive()
    process.kill()
    process.join()
    if not alive:
        return None
    try:
        return f"after {checkpoint_to_resume(True, str(folder))[0].name}"
    except InputError:
        return NOTHING_KEPT


def main() -> int:
    """Runs the script. The exit code is 1 if a resumed run ended differently."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many runs to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default: 0)")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    work = Path(tempfile.mkdtemp(prefix="kill_and_resume-"))
    write_stories(work / "train.txt", num_stories=60, seed=0)
    data = ["--dataset", str(work / "train.txt"), "--cache_dir", str(work / "cache")]

    commands, expected, seconds = {}, {}, {}
    for kind, text in KINDS.items():
        begin = ["--model", str(work / "whole SMT")] if kind == "DMT" else []
        commands[kind] = [*text.split(), *data, *begin]
        for _ in range(2):  # the first one builds the token cache
            begun, folder = time.monotonic(), work / f"whole {kind}"
            finish([*commands[kind], "--output_dir", str(folder), "--overwrite"], work / "log")
            seconds[kind] = time.monotonic() - begun
        expected[kind] = outcome(folder)
        print(f"{kind}: {seconds[kind]:.1f} s uninterrupted", flush=True)

    exact, killed, where = Counter(), Counter(), Counter()
    while killed.total() < arguments.kills:
        kind = list(KINDS)[killed.total() % len(KINDS)]
        folder, log = work / "killed", work / "log"
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)
        words = [*commands[kind], "--output_dir", str(folder)]
        place = kill(kind, words, folder, log, seconds[kind], rng)
        if place is None:
            continue
        finish([*words, "--overwrite" if place == NOTHING_KEPT else "--resume"], log)
        killed[kind] += 1
        where[place] += 1
        exact[kind] += outcome(folder) == expected[kind]
        if exact.total() < killed.total():
            print(f"{kind}, killed {place}: {outcome(folder)} instead of {expected[kind]}\n{log.read_text()[-2000:]}")
            break
    for kind in KINDS:
        print(f"{kind}: {killed[kind]} killed, {exact[kind]} resumed bit for bit")
    print("; ".join(f"{count} {place}" for place, count in sorted(where.items())))
    print(f"{exact.total()} of {killed.total()} exact")
    shutil.rmtree(work)
    return int(exact.total() < arguments.kills)


if __name__ == "__main__":
    sys.exit(main())
