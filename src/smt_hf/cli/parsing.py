"""Parses a recipe and flags into options dataclasses."""

import argparse
import inspect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import get_args, get_type_hints

from huggingface_hub.errors import StrictDataclassError
from transformers import HfArgumentParser, TrainingArguments

from ..data import TextOptions
from ..errors import InputError, one_line
from ..training.supported import SHARDING, check_supported
from ..utils.bounds import check_bounds
from ..utils.hub_reach import go_offline_if_unreachable
from ..utils.renamed import hint_for
from ..utils.typed import check_types
from .help_text import HelpFormatter, describe
from .recipe_file import read_recipe

# The inherited fields that --help shows; the others work too.
SHOWN = set(
    "output_dir max_steps num_train_epochs per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm seed bf16 "
    "use_cpu optim logging_steps eval_strategy eval_steps save_strategy save_steps save_total_limit "
    "activation_checkpointing dataloader_num_workers report_to run_name push_to_hub hub_model_id".split()
)
GROUPS = "arguments options model data comparison method training run".split()  # in the order of --help
INHERITED = {each.name for each in fields(TrainingArguments)}
# Fields that may name something on the Hub, and the built-in names among their values.
ON_HUB = {"model", "teacher", "backbone", "tokenizer", "dataset", "eval_dataset"}
BUILT_IN = {"byte", "digits"}
# Fields of TrainingArguments that only scripts read, and what to use instead.
INSTEAD = {
    "do_train": "the command trains",
    "do_eval": "pass --eval_dataset",
    "do_predict": "see smt-hf generate and smt-hf evaluate",
    "resume_from_checkpoint": "pass --resume, which finds the newest whole checkpoint",
    "enable_jit_checkpoint": "the command saves a checkpoint when a signal stops it",
}


@dataclass(frozen=True)
class Command:
    """The definition of a command: the single source of its flags, its recipe's fields and its help.

    Args:
        name: the word after `smt-hf`.
        kinds: options dataclasses, whose fields are flags and recipe fields; a name may appear in only one of them.
        description: what the command does.
        example: working command lines, for the end of `--help`.
        positionals: fields that may be given without their flags, in this order.
        required: the fields that must be given, and what to pass.
    """

    name: str
    kinds: Sequence[type]
    description: str
    example: str
    positionals: Sequence[str] = ()
    required: dict[str, str] = field(default_factory=dict)

    @property
    def usage(self) -> str:
        """The usage line without the word "usage"."""
        words = [name.upper() if name in self.required else f"[{name.upper()}]" for name in self.positionals]
        recipe = [] if "config" in self.positionals else ["[--config FILE.yaml]"]
        return " ".join(["smt-hf", self.name, *words, *recipe, "[--FIELD VALUE ...]"])


class OptionsParser(HfArgumentParser):
    """The parser of a command, which raises [`InputError`]s; its flags are grouped by the classes that define them."""

    def __init__(self, command: Command):
        self.command = command
        self.groups, self.types = {}, {}
        super().__init__(
            [],
            prog=f"smt-hf {command.name}",
            usage=command.usage,
            description=command.description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        config = {
            "metavar": "FILE.yaml",
            "help": "YAML recipe to start from; flags override its fields, and --FIELD null unsets one.",
        }
        if "config" in command.positionals:
            config["metavar"] = "CONFIG"
        self._group("arguments" if "config" in command.positionals else None).add_argument("--config", **config)
        self.epilog = command.example
        for kind in command.kinds:
            self._add_dataclass_arguments(kind)
            if issubclass(kind, TrainingArguments):
                self.epilog += "\n\nEvery other field of transformers.TrainingArguments works as a flag too."
        self._action_groups.sort(key=lambda group: GROUPS.index(group.title) if group.title in GROUPS else -1)

    def _add_dataclass_arguments(self, kind: type) -> None:
        hints = get_type_hints(kind)
        self.types |= hints
        names = [each.name for each in fields(kind)]
        first = [name for name in self.command.positionals if name in names]
        for each in sorted(
            fields(kind), key=lambda each: first.index(each.name) if each.name in first else len(first)
        ):
            if each.init:
                each.type = hints[each.name]
                self._parse_dataclass_field(self._group(self._title(kind, each.name)), each)
        hidden = set(names) & INHERITED - SHOWN - {*inspect.get_annotations(kind)}
        for action in self._actions:
            if action.dest in hidden and issubclass(kind, TrainingArguments):
                action.help = argparse.SUPPRESS
            elif isinstance(action, argparse._StoreFalseAction):  # --no_FIELD, the same as --FIELD false
                action.help = argparse.SUPPRESS
            elif action.dest in names:
                describe(action, action.dest in self.command.required, action.dest in first)

    def _title(self, kind: type, name: str) -> str | None:
        """The group of a field."""
        if name in self.command.positionals:
            return "arguments"
        owner = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
        if issubclass(kind, TrainingArguments):
            return "method" if owner is kind and name not in INHERITED else "training"
        return vars(owner).get("_argument_group_name")

    def _group(self, title: str | None):
        if title is None:
            return self
        if title not in self.groups:
            self.groups[title] = self.add_argument_group(title)
        return self.groups[title]

    def _get_values(self, action, arg_strings):
        if arg_strings == ["null"] and type(None) in get_args(self.types.get(action.dest)):
            return None  # unsets what a recipe says about this field
        return super()._get_values(action, arg_strings)

    def error(self, message: str):
        flag, _, problem = message.removeprefix("argument ").partition(": ")
        name = flag.split("/")[0].lstrip("-")
        if wrong := re.fullmatch(r"invalid (\w+) value: (.*)", problem):
            kind, value = {"int": "a whole number", "float": "a number"}.get(wrong[1], f"of type {wrong[1]}"), wrong[2]
        elif wrong := re.fullmatch(r"invalid choice: (.*) \(choose from (.*)\)", problem):
            kind, value = f"one of {wrong[2]}".replace("'", ""), wrong[1]
        elif wrong := re.fullmatch(r"Truthy value expected: got (.*) but expected .*", problem):
            kind, value = "true or false", repr(wrong[1])
        else:
            raise InputError(f"--{name}: {problem}" if message.startswith("argument --") else message)
        raise InputError(f"{name}={value} must be {kind}")


def parse(command: Command, argv: Sequence[str]) -> tuple:
    """Parses the words after a command: its positional fields, `--config FILE.yaml`, and flags that override the recipe.

    If they name something on the Hub and the Hub does not answer, the process continues offline.

    Args:
        command: the command.
        argv: the words after it; those after `--` are not flags.

    Returns:
        One instance of each of `command.kinds`.

    Raises:
        InputError: for a recipe that is missing or not a mapping, an unknown field or flag, a value that has the wrong type, is
            out of bounds or cannot work, a missing required field, and flags of a new model together with `model`.
    """
    parser = OptionsParser(command)
    words, rest = list(argv), []
    if "--" in words:
        words, rest = words[: words.index("--")], words[words.index("--") + 1 :]
    for action in parser._actions:  # the dataclasses fill in the fields that are not given
        action.required, action.default = False, argparse.SUPPRESS
    namespace, unknown = parser.parse_known_args(words)
    known = {action.dest for action in parser._actions} - {"help", "config"}
    refuse_unknown_flags(unknown, known, command)
    given = vars(namespace)
    take_positionals(command, [*unknown, *rest], given)
    refuse_new_model_flags(parser, given)
    of_recipe = frozenset()
    if (recipe := given.pop("config", None)) is not None:
        values = read_recipe(recipe)
        of_recipe = frozenset(set(values) - set(given))
        for name in values:
            if name not in known:
                hint = hint_for(name, known) or f"see smt-hf {command.name} --help"
                raise InputError(f"{recipe}: unknown field {name!r}: {hint}")
        given = {**values, **given}
    for name, reason in {**INSTEAD, **SHARDING}.items():
        if given.get(name):
            raise InputError(f"{name} is not supported: {reason}")
    for name, what in command.required.items():
        if given.get(name) is None:
            how = f"smt-hf {command.name} {name.upper()}" if name in command.positionals else f"--{name}"
            raise InputError(f"{name} is missing: pass {what} ({how})")
    options = tuple(make_options(kind, given) for kind in command.kinds)
    for each in options:
        if isinstance(each, TextOptions):
            each.of_recipe = of_recipe
    if names_something_on_the_hub(given):
        go_offline_if_unreachable()
    return options


def make_all(command: Command, given: dict) -> tuple:
    """Makes the options of a command from values by name, as in a recipe; required ones may be missing. Raises as [`parse`] does."""
    known = {each.name for kind in command.kinds for each in fields(kind)}
    for name in given:
        if name not in known:
            hint = hint_for(name, known) or f"see smt-hf {command.name} --help"
            raise InputError(f"unknown field {name!r}: {hint}")
    return tuple(make_options(kind, given) for kind in command.kinds)


def names_something_on_the_hub(given: dict) -> bool:
    """Whether a field names something that is neither built in nor a local file or folder."""
    named = {name for name in map(given.get, ON_HUB) if isinstance(name, str)} - BUILT_IN
    return not all(os.path.exists(os.path.expanduser(name)) for name in named)


def take_positionals(command: Command, words: list[str], given: dict) -> None:
    """Adds the words that belong to no flag to `given`, as the positional fields that they stand for.

    Raises:
        InputError: if there are more words than such fields, or a field is given twice.
    """
    if len(words) > len(command.positionals):
        word = words[len(command.positionals)]
        raise InputError(
            f"{word!r} does not belong to any flag: write --FIELD VALUE, and put quotes around a value with spaces"
        )
    for name, word in zip(command.positionals, words, strict=False):
        if name in given:
            raise InputError(f"{name} is given twice, as {word!r} and as --{name} {given[name]!r}: leave one out")
        given[name] = word


def refuse_unknown_flags(words: list[str], known: set[str], command: Command) -> None:
    """Raises an [`InputError`] for the first word that looks like a flag."""
    for word in words:
        if re.match(r"--?[^\W\d]\S*\Z", word):
            name = word.partition("=")[0].lstrip("-").replace("-", "_")
            hint = hint_for(name, [*known, "config"], "--") or f"see smt-hf {command.name} --help"
            raise InputError(f"unknown flag {word!r}: {hint}")


def refuse_new_model_flags(parser: OptionsParser, given: dict) -> None:
    """Raises an [`InputError`] if `model` is given together with flags that describe a new model.

    A recipe may have such fields: it works for new and saved models.
    """
    model = given.get("model")
    if model is None or parser.types["model"] != str | None or "model" not in parser.groups:
        return  # a comparison's `model` is a mapping
    of_new_model = [action.dest for action in parser.groups["model"]._group_actions]
    if found := ", ".join(f"{name}={given[name]}" for name in of_new_model if name in given):
        raise InputError(f"{found}: this is for a new model, but model={model!r} has its own: leave one out")


def make_options(kind: type, given: dict):
    """Makes an options dataclass from the given values of its fields; raises as [`parse`] does."""
    own = check_types(kind, {each.name: given[each.name] for each in fields(kind) if each.name in given})
    check_bounds(own)
    try:
        options = kind(**own)
        if issubclass(kind, TrainingArguments):
            check_supported(options)
        return options
    except InputError:
        raise
    except (ValueError, TypeError, ImportError, StrictDataclassError) as error:
        # from an enumeration of transformers, which does not say which field has the value
        wrong = re.match(r"(.+) is not a valid \w+, please select one of \[(.*)\]", str(error))
        names = [name for name, value in own.items() if wrong and value == wrong[1]]
        if names:
            raise InputError(f"{names[0]}={wrong[1]!r} must be one of {wrong[2].replace(chr(39), '')}") from error
        raise InputError(one_line(error)) from error
