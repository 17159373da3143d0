"""`smt-hf demo --pixels`: the whole method in minutes, on handwritten digits."""

from pathlib import Path

from ..data import load_processor, open_images
from ..images import image_grid
from ..utils.packaged import packaged_folder
from . import bptt, dmt, evaluate, smt
from .generate import GenerateOptions, draw_images

NUM_IMAGES = 300  # to measure on; there are no more for validation
COMMANDS = {"smt": smt, "dmt": dmt, "bptt": bptt}
INTRODUCTION = """1,797 digits of 8 x 8 pixels, written by hand, come with scikit-learn; every sixth is kept for validation. A recurrent
student will learn to draw such digits pixel by pixel, in {number} stages:
"""
GOALS = {
    "smt": "a Transformer teacher learns to compress the pixels so far into a memory of fixed size; the student learns to "
    "update\n   such a memory with the next pixel. All pixels are trained at once, without going through time",
    "dmt": "the student runs on its own memories and learns to follow the teacher from there",
    "bptt": "the student alone, by back-propagation through all 64 pixels of an image, which so few steps allow",
}
TABLE = """
The loss on digits that were not trained on, and what a classifier thinks of the student's own digits (label: the share that
it takes for the digit that was asked for), beside real ones:
"""
NEXT = """
The student is in {student}. Continue with:

  smt-hf generate {student} --images 20 --label 3 --output threes.png
  smt-hf app {student}   # in the browser, with a view of the memory"""


def draw_digits(folder: Path, seconds: dict[str, float | None]) -> None:
    """Trains on digits, one stage after another, then evaluates the student and lets it draw.

    Args:
        folder: where everything is written.
        seconds: training time of each stage; that of its recipe if `None`.
    """
    recipes = packaged_folder("configs") / "digits"
    stages = [stage for stage in COMMANDS if (recipes / f"{stage}.yaml").is_file()]
    open_images("digits")  # reports what is missing before anything is trained
    print(INTRODUCTION.format(number=len(stages)))
    for number, stage in enumerate(stages, 1):
        print(f"{number}. {stage.upper()}: {GOALS[stage]}.")
    cache, run = ["--cache_dir", str(folder / "cache")], None
    for stage in stages:
        print(f"\n== {stage.upper()} ==", flush=True)
        argv = [*([run] if run else []), "--config", str(recipes / f"{stage}.yaml"), *cache, "--overwrite"]
        if seconds.get(stage) is not None:
            argv += ["--max_train_seconds", str(seconds[stage])]
        run = str(folder / stage)
        COMMANDS[stage].main([*argv, "--output_dir", run])
    print(TABLE)
    measure = [
        "--dataset",
        "digits",
        "--split",
        "validation",
        "--reference_split",
        "train",
        "--num_windows",
        str(NUM_IMAGES),
    ]
    evaluate.main([run, *measure, *cache, "--teacher", str(folder / "smt"), "--output_dir", f"{run}/evaluation"])
    grid = folder / "digits.png"
    images = draw_images(load_processor(run), GenerateOptions(model=run, images=80, seed=0))
    image_grid(images, columns=10).save(grid)
    print(f"\nEighty digits that the student drew, a column for each of 0 to 9, are in {grid}.")
    print(NEXT.format(student=run))
