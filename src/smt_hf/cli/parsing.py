"""From a recipe and flags to argument dataclasses."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields

from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, TrainingArguments

from ..errors import InputError, one_line
from ..training.supported import SHARDING, check_supported
from ..utils.bounds import bounds_of, check_bounds
from ..utils.typed import check_types, did_you_mean
from .recipe_file import read_recipe

# The inherited fields that a user meets in --help; the others work too.
SHOWN = (
    "output_dir max_steps num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm seed bf16 "
    "use_cpu optim logging_steps eval_strategy eval_steps save_strategy save_steps save_total_limit "
    "gradient_checkpointing dataloader_num_workers report_to run_name push_to_hub hub_model_id"
).split()
# Fields of TrainingArguments that scripts read, and what a command has instead.
INSTEAD = {
    "do_train": "the command trains",
    "do_eval": "give --eval_dataset",
    "do_predict": "see smt-hf generate and smt-hf evaluate",
    "resume_from_checkpoint": "give --resume, which finds the newest whole checkpoint",
    "enable_jit_checkpoint": "the command saves a checkpoint when a signal stops it",
}


class OptionsParser(HfArgumentParser):
    """A parser whose refusals are [`InputError`]s."""

    def error(self, message: str):
        wrong = re.fullmatch(r"argument (?:\S+/)*--(\S+): invalid (\w+) value: (.*)", message)
        if wrong:
            kind = {"int": "a whole number", "float": "a number", "string_to_bool": "true or false"}
            name, wanted, value = wrong.groups()
            raise InputError(f"{name.replace('-', '_')}={value} must be {kind.get(wanted, 'of type ' + wanted)}")
        raise InputError(re.sub(r"^argument (--[^/:]+)\S*:", r"\1:", message))


def parse(dataclass_types: Sequence[type], argv: Sequence[str], command: str, description: str, example: str) -> tuple:
    """Parses `--config FILE.yaml` and the flags that override it.

    Args:
        dataclass_types: the argument dataclasses; a name may stand in one of them only.
        argv: the words after the command.
        command: its name, for the usage line.
        description: what it does.
        example: command lines that work, for the end of `--help`.

    Returns:
        One instance of each dataclass.

    Raises:
        InputError: for a recipe that is missing or no mapping, an unknown field or flag, a value of another type, outside its
            bounds, or one that cannot work.
    """
    parser = make_parser(dataclass_types, command, description, example)
    values = {}
    recipe = recipe_of(argv)
    if recipe is not None:
        values = read_recipe(recipe)
        known = {action.dest for action in parser._actions} - {"help", "config"}
        for name in values:
            if name not in known:
                hint = did_you_mean(name, known) or f"see smt-hf {command} --help"
                raise InputError(f"{recipe}: unknown field {name!r}: {hint}")
    if not {"-h", "--help"} & set(argv):  # what is not given is left to the dataclasses
        for action in parser._actions:
            action.required = action.required and action.dest not in values
            action.default = values.get(action.dest, argparse.SUPPRESS)
    namespace, unknown = parser.parse_known_args(list(argv))
    if unknown:
        refuse_unknown(unknown, parser, command)
    given = vars(namespace)
    for name, reason in {**INSTEAD, **SHARDING}.items():
        if given.get(name):
            raise InputError(f"{name} cannot be honoured: {reason}")
    parsed = []
    for kind in dataclass_types:
        own = check_types(kind, {field.name: given[field.name] for field in fields(kind) if field.name in given})
        check_bounds(own)
        try:
            parsed.append(kind(**own))
            if issubclass(kind, TrainingArguments):
                check_supported(parsed[-1])
        except InputError:
            raise
        except (ValueError, TypeError, ImportError, StrictDataclassError) as error:
            raise InputError(one_line(error)) from error
    return tuple(parsed)


def make_parser(dataclass_types, command: str, description: str, example: str) -> OptionsParser:
    """The parser of a command, see [`parse`]; its help has the bounds of every number."""
    trains = any(issubclass(kind, TrainingArguments) for kind in dataclass_types)
    more = "\n\nEvery field of transformers.TrainingArguments that is not shown here works as a flag too."
    parser = OptionsParser(
        dataclass_types,
        prog=f"smt-hf {command}",
        usage=f"smt-hf {command} [--config FILE.yaml] [--FIELD VALUE ...]",
        description=description,
        epilog=example + more if trains else example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="Recipe to start from; flags override its fields.")
    inherited = {field.name for field in fields(TrainingArguments)} - set(SHOWN)
    own = {name for kind in dataclass_types if issubclass(kind, TrainingArguments) for name in kind.__dict__}
    for action in parser._actions:
        if action.dest in inherited - own:
            action.help = argparse.SUPPRESS
            continue
        bounds = bounds_of(action.dest)
        if action.help and "%" in action.help:
            action.help = action.help.replace("%", "%%").replace("%%(default)s", "%(default)s")
        if action.help and bounds:
            action.help = f"{action.help.rstrip('.')} ({bounds})."
    return parser


def recipe_of(argv: Sequence[str]) -> str | None:
    """The file given with --config."""
    config = OptionsParser([], add_help=False, allow_abbrev=False)
    config.add_argument("--config")
    return config.parse_known_args(list(argv))[0].config


def refuse_unknown(words: list[str], parser: OptionsParser, command: str) -> None:
    """Raises an [`InputError`] for words that belong to no flag."""
    flags = [option for action in parser._actions for option in action.option_strings]
    word = next((word for word in words if word.startswith("--")), words[0])
    if word.startswith("--"):
        hint = did_you_mean(word.partition("=")[0], flags) or f"see smt-hf {command} --help"
        raise InputError(f"unknown flag {word!r}: {hint}")
    raise InputError(f"{word!r} belongs to no flag: write --FIELD VALUE, and put quotes around a value with spaces")
