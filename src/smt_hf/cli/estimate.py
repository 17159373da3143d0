"""`smt-hf estimate`: what a training will need, before you start it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from transformers import AutoConfig

from ..errors import InputError
from ..estimation import HARDWARE, Estimate, estimate, measure_cpu
from ..models import SmtConfig, SmtImageProcessor, SmtRnnConfig
from . import bptt, dmt, finetune, smt
from .options import sizes
from .parsing import Command, make_all, parse
from .recipe_file import RecipeLoader, read_recipe

METHODS = {"smt": smt, "dmt": dmt, "bptt": bptt, "finetune": finetune}


@dataclass
class EstimateOptions:
    """The training to estimate, and the hardware to run it on."""

    recipe: str | None = field(default=None, metadata={"help": "Recipe of the training: a YAML file."})
    method: str | None = field(
        default=None,
        metadata={"help": f"Command that the recipe is for: {', '.join(METHODS)}; by default, the name of its file."},
    )
    model: str | None = field(
        default=None,
        metadata={
            "help": "Where to find model sizes that the recipe does not give: a recipe, or the folder or Hub id of an SMT run; by "
            "default, smt.yaml beside the recipe."
        },
    )
    backbone: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of the language model that the teacher is built on; by default, the recipe's."
        },
    )
    hardware: str = field(
        default="h100",
        metadata={"help": f"Device of each process: {', '.join(HARDWARE)}, or cpu to measure this machine."},
    )
    processes: int = field(default=1, metadata={"help": "Number of devices, each with its own process."})
    processes_per_node: int = field(default=8, metadata={"help": "Number of devices per node."})
    price: float | None = field(default=None, metadata={"help": "Price of one device per hour, in any currency."})
    set: list[str] = field(
        default_factory=list,
        metadata={"help": "Fields of the recipe to change, such as hidden_size=2048 max_steps=1000."},
    )
    json: bool = field(default=False, metadata={"help": "Print JSON."})
    num_threads: int | None = field(default=None, metadata={"help": "CPU threads, for --hardware cpu."})


COMMAND = Command(
    name="estimate",
    kinds=[EstimateOptions],
    description="""Estimate the memory, FLOPs, time and cost of a training before you start it. One step of the real trainer runs on
tensors that have shapes but no data, whatever the size of the model; a roofline model turns its work into time. For the
assumptions, see docs/scaling.md.""",
    example=r"""example:
  smt-hf estimate configs/tinystories/smt.yaml \
      --hardware h100 --processes 8 --price 3
  smt-hf estimate configs/tinystories/smt.yaml \
      --set hidden_size=1024 num_encoder_layers=24""",
    positionals=["recipe"],
    required={"recipe": "a YAML file of a training"},
)


def main(argv: Sequence[str]) -> Estimate:
    """Runs the command and returns the estimate."""
    (options,) = parse(COMMAND, argv)
    if options.num_threads is not None:
        if options.hardware != "cpu":
            raise InputError(f"num_threads={options.num_threads} is for hardware=cpu: leave it out")
        torch.set_num_threads(options.num_threads)
    if options.hardware not in (*HARDWARE, "cpu"):
        raise InputError(f"hardware={options.hardware!r} is unknown: choose one of {', '.join(HARDWARE)}, cpu")
    method = options.method or Path(options.recipe).stem
    if method not in METHODS:
        raise InputError(
            f"{options.recipe!r} is not named after a command: pass --method, one of {', '.join(METHODS)}"
        )
    values = {**read_recipe(options.recipe), **changes(options.set)}
    if method == "smt" and options.backbone is not None:
        values["backbone"] = options.backbone
    given, arguments = training(method, values)
    config = config_of(method, options, given, values)
    hardware = measure_cpu() if options.hardware == "cpu" else HARDWARE[options.hardware]
    found = estimate(config, arguments, hardware, options.processes, options.processes_per_node, options.price)
    print(json.dumps(found.as_dict(), indent=1) if options.json else shown(found))
    return found


def changes(words: Sequence[str]) -> dict:
    """Parses `--set` into fields and their values.

    Raises:
        InputError: for a word that is not of the form field=value.
    """
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"set: {word!r} is not a change: write field=value")
        values[name] = yaml.load(value, RecipeLoader)
    return values


def training(method: str, values: dict) -> tuple:
    """The options and trainer arguments that a command would make on a machine with that hardware."""
    without = {
        "output_dir": "unused",
        "report_to": "none",
        "eval_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
    }
    return make_all(METHODS[method].COMMAND, {**values, **without})


def config_of(method: str, options: EstimateOptions, given, values: dict):
    """The configuration of the models.

    Args:
        method: the command.
        options: options of the estimate.
        given: options of the command.
        values: the fields that `given` was made from.

    Raises:
        InputError: if no sizes are given, or they cannot be read.
    """
    beside = Path(options.recipe).with_name("smt.yaml")
    continues = method == "bptt" and beside.is_file() and not set(sizes(SmtRnnConfig)) & set(values)
    if method in ("smt", "bptt") and options.model is None and not continues:
        return joint_config(given) if method == "smt" else given.student_config(Vocabulary(given))
    place = options.model or str(beside)
    if not place.endswith((".yaml", ".yml")):
        config = AutoConfig.from_pretrained(place)
    elif Path(place).is_file():
        more = {} if options.backbone is None else {"backbone": options.backbone}
        config = joint_config(training("smt", {**read_recipe(place), **more})[0])
    else:
        raise InputError(f"{options.recipe!r} gives no model sizes, and there is no {place!r}: pass --model")
    if method in ("bptt", "finetune") and isinstance(config, SmtConfig):
        return config.student_config
    return config


def joint_config(given) -> SmtConfig:
    """The configuration of teacher and student; that of a backbone is read from its folder or the Hub."""
    return given.config(Vocabulary(given), AutoConfig.from_pretrained(given.backbone) if given.backbone else None)


class Vocabulary:
    """Stands in for the tokenizer or image processor that the options name, with its number of tokens only.

    No data is read, so the tokens of image classes, whose number depends on them, are left out.
    """

    pad_token_id = bos_token_id = eos_token_id = None

    def __init__(self, options):
        if options.image_size is not None:
            self.size = len(SmtImageProcessor(size=options.image_size, num_levels=options.num_levels))
        elif options.tokenizer == "byte":
            self.size = 258
        else:
            from ..data import load_tokenizer

            self.size = len(load_tokenizer(options.tokenizer))

    def __len__(self) -> int:
        return self.size


def shown(found: Estimate) -> str:
    """Formats an estimate as text."""
    lines = [f"{found.method.upper()} on {found.processes} x {found.hardware}"]

    def add(name: str, value: str) -> None:
        lines.append(f"  {name:38}{value:>14}")

    for name, number in found.parameters.items():
        add(f"parameters, {name}", f"{number:,}")
    lines.append("memory of a process, GB")
    for name, held in found.memory.items():
        add(name, f"{held / 1e9:.3f}")
    add("in all", f"{sum(found.memory.values()) / 1e9:.3f}")
    if not found.fits:
        lines.append(
            f"  more than the {found.capacity / 1e9:.0f} GB of a device: lower per_device_train_batch_size and raise "
            "gradient_accumulation_steps, or set checkpoint_steps"
        )
    lines.append("a step")
    add("tokens", f"{found.tokens:,}")
    add("FLOPs per token", f"{found.flops / found.tokens:,.0f}")
    add("sequential FLOPs per token", f"{found.sequential_flops / found.tokens:,.0f}")
    add("GB moved by a process", f"{found.bytes_moved / 1e9:,.1f}")
    add("kernels of a process", f"{found.kernels:,.0f}")
    for name, seconds in found.seconds.items():
        add(f"s, {name}", f"{seconds:.4f}")
    add("s in all", f"{found.seconds_per_step:.4f}")
    add("tokens per second", f"{found.tokens / found.seconds_per_step:,.0f}")
    if found.hours is not None:
        lines.append("the training")
        add("steps", f"{found.steps:,}")
        add("tokens", f"{found.steps * found.tokens:,}")
        add("hours", f"{found.hours:,.1f}")
    if found.cost is not None:
        add("cost", f"{found.cost:,.0f}")
    lines.append("parallelism, the nearest limit first")
    lines += [f"  {name}: {sentence}" for name, sentence in found.parallel.items()]
    return "\n".join(lines)
