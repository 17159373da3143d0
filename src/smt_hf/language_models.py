"""New Transformer language models to build teachers on."""

import re

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from .errors import InputError, one_line
from .models.backbone_smt import check_backbone, make_backbone


def new_language_model(kind: str, dropout: float = 0.0, **values) -> PreTrainedModel:
    """Return a causal language model with new weights, after testing it on a few tokens, see [`check_backbone`].

    Args:
        kind: the model type as transformers names it, such as `"llama"`, `"qwen3"` or `"gpt2"`.
        dropout: value for every dropout probability of the configuration that is not in `values`. GPT-2's own default, 0.1, makes
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
    except Exception as error:  # the library's configurations and models raise errors of every kind
        raise InputError(f"a {kind} of these sizes cannot be made: {one_line(error)}") from error
    return model


def config_class(kind: str) -> type[PreTrainedConfig]:
    """Return the configuration class for a kind of causal language model.

    Raises:
        InputError: for a kind that transformers does not know.
    """
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(
            f"model_type={kind!r} is not a causal language model of transformers: choose one such as 'llama'"
        )
    return CONFIG_MAPPING[kind]


def dropout_fields(config: PreTrainedConfig) -> list[str]:
    """Return the names of all dropout probabilities in a configuration, such as GPT-2's `resid_pdrop`."""
    return [
        name
        for name, value in config.to_dict().items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and re.search(r"(pdrop|dropout(_p|_prob)?)$", name)
    ]
