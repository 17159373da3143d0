"""The recipes of images: each is read by its command, fits its images, and its student fits its teacher."""

import numpy as np
import pytest
import yaml
from PIL import Image

from smt_hf.cli import bptt, dmt, lm, smt
from smt_hf.cli.options import processing_for
from smt_hf.cli.parsing import parse
from smt_hf.utils.packaged import packaged_folder

COMMANDS = {"smt": smt, "dmt": dmt, "bptt": bptt, "lm": lm}
FOLDERS = ("digits", "mnist", "mnist_cpu", "quickdraw_cpu", "sketchy")
RECIPES = [file for folder in FOLDERS for file in sorted((packaged_folder("configs") / folder).glob("*.yaml"))]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_recipes_fit_their_images(file, tmp_path):
    for label in range(3):
        (tmp_path / str(label)).mkdir()
        for number in range(2):
            pixels = np.full((28, 28), 40 * label + number, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / str(label) / f"{number}.png")
    recipe = yaml.safe_load(file.read_text())
    argv = ["--config", str(file), "--bf16", "false", "--use_cpu", "true", "--output_dir", str(tmp_path / "run")]
    argv += ["--dataset", "digits" if file.parent.name == "digits" else str(tmp_path), "--holdout", "2"]
    command = COMMANDS[recipe_command(file)]
    options, arguments = parse(command.COMMAND, [*argv, *([str(tmp_path)] if "image_size" not in recipe else [])])
    if "image_size" in recipe:
        processor = processing_for(options)
        assert arguments.context_length in (256, processor.sequence_length)
        if command is lm:
            config = options.new_model(processor, arguments.window_length).config
        elif command is smt:
            config = options.config(processor).student_config
        else:
            config = options.student_config(processor)
        assert config.vocab_size == len(processor)
    else:  # continues what the recipe beside it began
        first = yaml.safe_load((file.parent / "smt.yaml").read_text())
        assert arguments.context_length == first["context_length"]
        for name in ("dataset", "eval_split", "holdout", "max_documents"):
            assert recipe.get(name) == first.get(name)


def recipe_command(file):
    """The command that the first line of a recipe's example names."""
    words = next(line for line in file.read_text().splitlines() if "--config" in line).split()
    return words[words.index("smt-hf" if "smt-hf" in words else "smt_hf") + 1]
