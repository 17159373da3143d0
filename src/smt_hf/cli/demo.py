"""`smt-hf demo`: the whole method in minutes, on built-in stories or on handwritten digits."""

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
from ..errors import InputError
from ..utils.folder_lock import hold_folder
from ..utils.packaged import packaged_folder
from . import dmt, evaluate, smt
from .demo_pixels import draw_digits
from .generate import GenerateOptions, write
from .parsing import Command, parse

NUM_STORIES, SMT_SECONDS, DMT_SECONDS = 20_000, 170, 90
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
FEW = "note: there was time for only {steps} steps, too few for English words: raise --smt_seconds and --dmt_seconds"
NEXT = """
The student is in {student}. Continue with:

  smt-hf generate {student} "Once upon a time"
  smt-hf app {student}   # in the browser, with a view of the memory"""


@dataclass
class DemoOptions:
    """Where the demo writes, and how long it takes."""

    output_dir: str = field(default="runs/demo", metadata={"help": "Folder for everything that the demo writes."})
    pixels: bool = field(
        default=False, metadata={"help": "Draw handwritten digits instead of writing stories; needs smt-hf[pixels]."}
    )
    smt_seconds: float | None = field(
        default=None,
        metadata={"help": "Seconds of SMT; by default 170 for stories, and as in configs/digits for digits."},
    )
    dmt_seconds: float | None = field(
        default=None,
        metadata={"help": "Seconds of DMT; by default 90 for stories, and as in configs/digits for digits."},
    )
    num_stories: int | None = field(default=None, metadata={"help": "Stories to train on; 20,000 by default."})
    overwrite: bool = field(default=False, metadata={"help": "Start over in an output_dir that is in use."})


COMMAND = Command(
    name="demo",
    kinds=[DemoOptions],
    description="""Train a teacher and a recurrent student on built-in children's stories (SMT), correct the student on its own
states (DMT), measure it, and let it write three stories. Takes about six minutes on one CPU core. With --pixels the student
draws digits instead, after four minutes.""",
    example="""example:
  smt-hf demo --output_dir runs/demo
  smt-hf demo --pixels --output_dir runs/digits""",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    folder = Path(options.output_dir)
    if options.pixels and options.num_stories is not None:
        raise InputError(f"num_stories={options.num_stories} cannot be used with pixels: leave one of them out")
    check_output_dir(options.output_dir, options.overwrite)
    hold_folder(folder)
    if options.pixels:
        with no_loading_bars():
            return draw_digits(folder, {"smt": options.smt_seconds, "dmt": options.dmt_seconds})
    num_stories = options.num_stories or NUM_STORIES
    train, valid = str(folder / "stories_train.txt"), str(folder / "stories_valid.txt")
    write_stories(train, num_stories=num_stories, seed=0)
    write_stories(valid, num_stories=500, seed=1)
    seconds = {"smt": options.smt_seconds or SMT_SECONDS, "dmt": options.dmt_seconds or DMT_SECONDS}
    print(INTRODUCTION.format(num_stories=num_stories, train=train, **seconds))
    with no_loading_bars():
        train_and_measure(folder, train, valid, seconds)
        tell_stories(str(folder / "dmt"))
    print(NEXT.format(student=folder / "dmt"))


def train_and_measure(folder: Path, train: str, valid: str, seconds: dict[str, float]) -> None:
    """Trains SMT and DMT into subfolders `smt` and `dmt`, for the given seconds each, and evaluates both."""
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
    """Hides the progress bars of loading and saving a small model; those of training stay."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
