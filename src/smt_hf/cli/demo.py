"""`smt-hf demo`: the whole method in minutes, on built-in stories."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..checkpoints import check_output_dir, load_student
from ..data import load_tokenizer
from ..demo.stories import write_stories
from ..utils.folder_lock import hold_folder
from ..utils.packaged import packaged_folder
from . import dmt, evaluate, smt
from .generate import GenerateOptions, write
from .parsing import Command, parse

PROMPTS = ("Once upon a time, there was a", "One sunny day, Lily", "Tom found a red")


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
    description="""Train a teacher and a recurrent student together on built-in children's stories (SMT), correct the student
on its own states (DMT), measure it, and let it write three stories alone. Two CPU cores need a few minutes.""",
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
    print(f"Writing {options.num_stories} stories ...")
    write_stories(train, num_stories=options.num_stories, seed=0)
    write_stories(valid, num_stories=500, seed=1)

    smt_run, dmt_run = str(folder / "smt"), str(folder / "dmt")
    recipes = packaged_folder("configs") / "demo"
    data = ["--dataset", train, "--eval_dataset", valid, "--cache_dir", str(folder / "cache"), "--overwrite"]
    print(f"\nSMT: teacher and student together, {options.smt_seconds:.0f} seconds ...")
    smt.main(
        ["--config", str(recipes / "smt.yaml"), "--output_dir", smt_run, *data]
        + ["--max_train_seconds", str(options.smt_seconds)]
    )
    print(f"\nDMT: the student corrected on its own states, {options.dmt_seconds:.0f} seconds ...")
    dmt.main(
        [smt_run, "--config", str(recipes / "dmt.yaml"), "--output_dir", dmt_run, *data]
        + ["--max_train_seconds", str(options.dmt_seconds)]
    )

    measure = ["--teacher", smt_run, "--dataset", valid, "--cache_dir", str(folder / "cache")]
    print("\nStories that were not trained on, 256 steps, the student on its own states:")
    for stage, student in (("SMT", smt_run), ("DMT", dmt_run)):
        print(f"\nafter {stage}")
        evaluate.main([student, *measure, "--output_dir", str(Path(student) / "evaluation")])

    print("\nThree stories by the student alone, from its initial memory:")
    student, tokenizer = load_student(dmt_run).eval(), load_tokenizer(dmt_run)
    torch.manual_seed(0)
    for prompt in PROMPTS:
        print()
        write(student, tokenizer, [prompt], GenerateOptions(max_new_tokens=500, temperature=0.5))
    print(f"\nThe student is in {dmt_run}; continue with:")
    print(f'  smt-hf generate {dmt_run} "Once upon a time"')
