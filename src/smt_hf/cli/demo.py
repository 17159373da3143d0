"""`smt-hf demo`: the whole method in minutes, on built-in stories."""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers.utils import logging

from ..checkpoints import check_output_dir, load_student
from ..data import load_tokenizer
from ..demo.stories import write_stories
from ..utils.folder_lock import hold_folder
from ..utils.packaged import packaged_folder
from . import dmt, evaluate, smt
from .generate import GenerateOptions, write
from .parsing import Command, parse

PROMPTS = ("Once upon a time, there was a", "One sunny day, Lily", "Tom found a red")
INTRODUCTION = """{num_stories:,} short stories about children, a lost toy or a stuck kite, are in {train}.
A recurrent student will learn to write such stories byte by byte, in two stages:

1. SMT: a Transformer teacher learns to compress what it has read into a memory of fixed size; the student learns to
   update such a memory with the next byte. All steps are trained at once, without going through time ({smt:.0f} seconds).
2. DMT: the student runs on its own memories and learns to follow the teacher from there ({dmt:.0f} seconds)."""
TABLE = """
The loss on stories that were not trained on, while the student runs on its own memories for 256 bytes (lower is better).
Cold start: from the student's initial memory. Warm start: from the teacher's memory of the 128 bytes before. The columns
on the right are the loss by position; drift is how far the student's memory is from the teacher's."""
FEW_STEPS = 150  # with fewer, what the student writes is hardly English
FEW = "note: there was time for {steps} steps only, too few for English words: raise --smt_seconds and --dmt_seconds"
NEXT = """
The student is in {student}. Continue with:

  smt-hf generate {student} "Once upon a time"
  smt-hf app {student}   # in the browser, with a view of the memory"""


@dataclass
class DemoOptions:
    """Where the demo writes, and how long it takes."""

    output_dir: str = field(default="runs/demo", metadata={"help": "Folder of everything that the demo writes."})
    smt_seconds: float = field(default=170, metadata={"help": "Seconds of SMT."})
    dmt_seconds: float = field(default=90, metadata={"help": "Seconds of DMT."})
    num_stories: int = field(default=20000, metadata={"help": "Stories to train on."})
    overwrite: bool = field(default=False, metadata={"help": "Start over in an output_dir that is in use."})


COMMAND = Command(
    name="demo",
    kinds=[DemoOptions],
    description="""Train a teacher and a recurrent student on built-in children's stories (SMT), correct the student on its own
states (DMT), measure it, and let it write three stories. Takes about six minutes on two CPU cores.""",
    example="""example:
  smt-hf demo --output_dir runs/demo""",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    folder = Path(options.output_dir)
    check_output_dir(options.output_dir, options.overwrite)
    hold_folder(folder)
    train, valid = str(folder / "stories_train.txt"), str(folder / "stories_valid.txt")
    write_stories(train, num_stories=options.num_stories, seed=0)
    write_stories(valid, num_stories=500, seed=1)
    seconds = {"smt": options.smt_seconds, "dmt": options.dmt_seconds}
    print(INTRODUCTION.format(num_stories=options.num_stories, train=train, **seconds))
    with no_loading_bars():
        train_and_measure(folder, train, valid, seconds)
        tell_stories(str(folder / "dmt"))
    print(NEXT.format(student=folder / "dmt"))


def train_and_measure(folder: Path, train: str, valid: str, seconds: dict[str, float]) -> None:
    """Trains into `smt` and `dmt` in the folder, for so many seconds each, and evaluates both."""
    runs = {stage: str(folder / stage) for stage in seconds}
    recipes, cache = packaged_folder("configs") / "demo", ["--cache_dir", str(folder / "cache")]
    for name, command in (("smt", smt), ("dmt", dmt)):
        print(f"\n== {name.upper()} ==", flush=True)
        argv = [runs["smt"]] if name == "dmt" else []
        argv += ["--config", str(recipes / f"{name}.yaml"), "--output_dir", runs[name], "--overwrite"]
        argv += ["--dataset", train, "--eval_dataset", valid, *cache, "--max_train_seconds", str(seconds[name])]
        trainer = command.main(argv)
        if name == "smt" and trainer.state.global_step < FEW_STEPS:
            print(FEW.format(steps=trainer.state.global_step), file=sys.stderr)
    print(TABLE)
    for name, run in runs.items():
        print(f"\nafter {name.upper()}")
        argv = [run, "--teacher", runs["smt"], "--dataset", valid, *cache]
        evaluate.main([*argv, "--output_dir", str(Path(run) / "evaluation")])


def tell_stories(run: str) -> None:
    """Prints how a student continues the prompts."""
    print("\nThree stories by the student alone. It was given:", *(f'"{prompt}"' for prompt in PROMPTS), sep="\n  ")
    student, tokenizer = load_student(run).eval(), load_tokenizer(run)
    torch.manual_seed(0)
    for prompt in PROMPTS:
        print()
        write(student, tokenizer, [prompt], GenerateOptions(max_new_tokens=500, temperature=0.5))


@contextlib.contextmanager
def no_loading_bars():
    """Leaves the bars of the training alone to be seen, without those of loading and saving a small model."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
