"""Options that several commands share: the sizes of a new model, and how a training treats its output folder."""

import inspect
import re
from dataclasses import dataclass, field, fields, make_dataclass

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel

from ..checkpoints import load_backbone
from ..data import ProcessingOptions, load_processing
from ..errors import InputError, one_line
from ..models import SmtConfig, SmtForPreTraining, SmtRnnConfig, SmtTeacherConfig
from ..utils.imports import load_object

# Fields of a configuration that the tokenizer or the training sets.
DECIDED = set(
    "vocab_size pad_token_id bos_token_id eos_token_id use_cache tie_word_embeddings backbone_config".split()
)


def own_classes(config: type) -> list[type]:
    """A configuration class and the classes of this package that it inherits from, the most general first."""
    return [each for each in reversed(config.__mro__) if issubclass(each, PreTrainedConfig)][1:]


def sizes(config: type) -> list[str]:
    """The fields of a configuration class that a user chooses for a new model."""
    names = [name for each in own_classes(config) for name in inspect.get_annotations(each)]
    return [name for name in dict.fromkeys(names) if name not in DECIDED]


def as_options(config: type, names: list[str]) -> list[tuple]:
    """Fields of a configuration class as fields of an options dataclass, with the text of its Args section as help."""
    types, texts = {}, {}
    for each in own_classes(config):
        types |= inspect.get_annotations(each)
        texts |= argument_texts(each)
    defaults = {each.name: each.default for each in fields(config)}
    return [
        (
            name,
            float if types[name] == int | float else types[name],
            field(default=defaults[name], metadata={"help": texts.get(name)}),
        )
        for name in names
    ]


def argument_texts(kind: type) -> dict[str, str]:
    """The descriptions in the Args section of a class's docstring, by argument name."""
    section = (inspect.getdoc(kind) or "").partition("Args:\n")[2]
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(r"^ {4}(\w+)(?: \([^)]*\))?:\s*((?:.+|\n {8})*)", section, re.MULTILINE)
    return {name: " ".join(text.replace("`", "").split()) for name, text in entries}


GROUP = {"_argument_group_name": "model"}
StudentSizes = make_dataclass("StudentSizes", as_options(SmtRnnConfig, sizes(SmtRnnConfig)), namespace=GROUP)


@dataclass
class StudentOptions(ProcessingOptions, StudentSizes):
    """The sizes of a new student (the fields of [`SmtRnnConfig`]), and its tokenizer or image options."""

    _argument_group_name = "model"

    def student_config(self, tokenizer, backbone_config: PreTrainedConfig | None = None) -> SmtRnnConfig:
        """The configuration of a new student for this tokenizer, with the vocabulary size of a language model if one is given.

        Raises:
            InputError: if the sizes cannot work.
        """
        more = {} if backbone_config is None else {"vocab_size": backbone_config.get_text_config().vocab_size}
        return self._make(SmtRnnConfig, tokenizer, **more)

    def _make(self, config: type, tokenizer, **more):
        if ":" in self.cell_type:  # the user's own cell, which the configuration then finds
            load_object(self.cell_type)
        chosen = {name: getattr(self, name) for name in sizes(config) if hasattr(self, name)}
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        try:
            return config(**{**chosen, **ids, "vocab_size": len(tokenizer), **more})
        except (StrictDataclassError, ValueError) as error:
            raise InputError(one_line(error)) from error


# The teacher's decoder is the student's readout, so both have the same number of layers.
TEACHER_SIZES = [name for name in sizes(SmtTeacherConfig) if name not in {*sizes(SmtRnnConfig), "num_decoder_layers"}]
TeacherSizes = make_dataclass("TeacherSizes", as_options(SmtTeacherConfig, TEACHER_SIZES), namespace=GROUP)


@dataclass
class ModelOptions(TeacherSizes, StudentOptions):
    """The sizes of a new teacher and student: the student's fields, and those that only the teacher has."""

    _argument_group_name = "model"

    backbone: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a causal language model to build a new teacher on; the student uses its tokenizer."
        },
    )

    def config(self, tokenizer, backbone_config: PreTrainedConfig | None = None) -> SmtConfig:
        """The configuration of a new model for this tokenizer, its teacher built on a language model if one is given.

        Raises:
            InputError: if the sizes cannot work, or the language model has other tokens.
        """
        more = {} if backbone_config is None else {"vocab_size": backbone_config.get_text_config().vocab_size}
        own = {"num_decoder_layers": self.num_readout_layers, "backbone_config": backbone_config}
        teacher = self._make(SmtTeacherConfig, tokenizer, **own, **more)
        return SmtConfig(teacher_config=teacher, student_config=self.student_config(tokenizer, backbone_config))

    def new_model(self, tokenizer, language_model: PreTrainedModel | None, seed: int) -> SmtForPreTraining:
        """Makes a new teacher and student for this tokenizer, starting from a language model if one is given.

        Raises:
            InputError: as [`config`] does.
        """
        if language_model is None:
            return SmtForPreTraining(self.config(tokenizer))
        model = SmtForPreTraining(self.config(tokenizer, language_model.config))
        model.start_from_backbone(language_model, seed)
        return model


@dataclass
class RunOptions:
    """How a training treats its output folder, and how many threads it uses."""

    _argument_group_name = "run"

    overwrite: bool = field(default=False, metadata={"help": "Start over in an output_dir that holds an earlier run."})
    resume: bool = field(default=False, metadata={"help": "Continue from the last checkpoint in output_dir."})
    num_threads: int | None = field(
        default=None, metadata={"help": "CPU threads for torch; torch's choice by default."}
    )


def processing_for(options):
    """The tokenizer or image processor of the model to train: the one saved with it, or a new one for new weights.

    Args:
        options: options of a training command, with `model` and [`DataOptions`]; [`StudentOptions`] too if `model` may be `None`.

    Raises:
        InputError: if it cannot be loaded, or the options cannot work.
    """
    if options.model is not None:
        return load_processing(options.model)
    if (backbone := getattr(options, "backbone", None)) is not None:
        return load_processing(backbone)
    return options.new_processing(options.images)


def backbone_for(options) -> PreTrainedModel | None:
    """Loads the language model that the options of a training name; `None` if they name none.

    Raises:
        InputError: if it cannot be loaded, or if a new model's options ask for other tokens than its own (checked before loading).
    """
    if (backbone := getattr(options, "backbone", None)) is None:
        return None
    if options.model is not None:
        return load_backbone(backbone)
    if options.tokenizer not in ("byte", backbone):
        raise InputError(
            f"tokenizer={options.tokenizer!r} is not that of backbone={backbone!r}, whose predictions the teacher is built on: "
            "leave tokenizer out to use the backbone's"
        )
    if given := options.of_images():
        raise InputError(
            f"{', '.join(given)}: backbone={backbone!r} determines whether the model reads text or images, and which: leave this out"
        )
    return load_backbone(backbone)
