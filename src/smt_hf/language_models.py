"""New Transformer language models, on which teachers are built."""

import re

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .errors import InputError, one_line
from .models.backbone_smt import check_backbone, make_backbone


def new_language_model(kind: str, dropout: float = 0.0, **values) -> PreTrainedModel:
    """Return a causal language model with new weights, tried on a few tokens, see [`check_backbone`].

    Args:
        kind: of its configuration, as transformers names it, such as `"llama"`, `"qwen3"` or `"gpt2"`.
        dropout: of every field of the configuration that is a probability of dropout and not among `values`. GPT-2's own, 0.1, makes
            training five times slower on a CPU.
        **values: fields of the configuration.

    Raises:
        InputError: for a kind that transformers does not know, values that cannot work, or a model that sees later tokens or other
            documents.
    """
    make_config = config_class(kind)
    try:
        config = make_config(**values)
        for name in dropout_fields(config):
            if name not in values:
                setattr(config, name, dropout)
        model = make_backbone(config)
        check_backbone(model)
    except Exception as error:  # of any kind, from the configurations and models of the library
        raise InputError(f"a {kind} of these sizes cannot be made: {one_line(error)}") from error
    return model


def config_class(kind: str) -> type[PreTrainedConfig]:
    """Return the class of the configurations of a kind of causal language model.

    Raises:
        InputError: for a kind that transformers does not know.
    """
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(f"model_type={kind!r} is no causal language model of transformers: choose such as 'llama'")
    return CONFIG_MAPPING[kind]


def dropout_fields(config: PreTrainedConfig) -> list[str]:
    """The fields of a configuration that are probabilities of dropout, such as GPT-2's `resid_pdrop`."""
    return [
        name
        for name, value in config.to_dict().items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and re.search(r"(pdrop|dropout(_p|_prob)?)$", name)
    ]
