"""From a YAML file and flags to argument dataclasses."""

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml
from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, TrainingArguments

from ..errors import InputError, one_line

# The inherited fields that a user meets in --help; the others work too.
SHOWN = (
    "output_dir max_steps num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm seed bf16 "
    "use_cpu optim logging_steps eval_strategy eval_steps save_strategy save_steps save_total_limit "
    "gradient_checkpointing dataloader_num_workers report_to run_name push_to_hub hub_model_id"
).split()


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
        InputError: for a configuration that is missing, is no mapping, or names an unknown field; for a value that cannot
            work.
    """
    trains = any(issubclass(kind, TrainingArguments) for kind in dataclass_types)
    more = "\n\nEvery field of transformers.TrainingArguments that is not shown here works as a flag too."
    parser = HfArgumentParser(
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
        elif action.help and "%" in action.help:
            action.help = action.help.replace("%", "%%").replace("%%(default)s", "%(default)s")

    config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    config.add_argument("--config")
    recipe = config.parse_known_args(argv)[0].config
    if recipe is not None:
        values = read_recipe(recipe)
        known = {action.dest for action in parser._actions} - {"help", "config"}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"see smt-hf {command} --help"
                raise InputError(f"{recipe}: unknown field {name!r}: {hint}")
        for action in parser._actions:
            if action.dest in values:
                action.required = False
        parser.set_defaults(**values)
    try:
        *parsed, _ = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except (ValueError, TypeError, ImportError, StrictDataclassError) as error:
        raise InputError(one_line(error)) from error
    return tuple(parsed)


def read_recipe(path: str) -> dict:
    """The mapping in a YAML file.

    Raises:
        InputError: if the file is missing or holds something else.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no recipe {path!r}: mend the path given with --config")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path!r} is no YAML: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path!r} holds no fields: write lines such as 'learning_rate: 1.0e-3'")
    return values
