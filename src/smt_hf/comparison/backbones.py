"""The language models that a comparison's teachers are built on: trained in their own stage, or elsewhere."""

import torch
from transformers import PreTrainedConfig

from ..checkpoints import load_backbone
from ..errors import InputError
from ..language_models import config_class, new_language_model
from ..models.backbone_smt import read_backbone
from ..models.documents_smt import document_starts
from .stages import Stage


def new_config(stage: Stage, ids: dict, length: int) -> PreTrainedConfig:
    """The configuration of a language model that a stage trains.

    Args:
        stage: the stage; its `model` holds the `model_type` (a Llama by default) and fields of that configuration.
        ids: the number of tokens, and the special ones.
        length: tokens that it reads at once.

    Raises:
        InputError: naming the stage, for an unknown kind or field, or for the reasons given in [`new_language_model`].
    """
    values = {"model_type": "llama", **stage.model}
    kind = values.pop("model_type")
    try:
        known = config_class(kind)().to_dict()
        if unknown := [name for name in values if name not in known]:
            raise InputError(f"model: unknown field {unknown[0]!r} of a {kind}: see the library's configuration")
        with torch.random.fork_rng([]):
            return new_language_model(kind, **{"max_position_embeddings": length + 1, **values, **ids}).config
    except InputError as error:
        raise InputError(f"{stage}: {error}") from error


def config_at(place: str) -> PreTrainedConfig:
    """The configuration of a language model in a folder or on the Hub. Raises the errors of [`load_backbone`]."""
    return load_backbone(place).config


@torch.no_grad()
def language_model_losses(model, input_ids: torch.Tensor, documents: torch.Tensor | None) -> torch.Tensor:
    """Cross-entropy in nats of every token `(B, T)`, with a language model read the way a teacher reads its backbone.

    The first token of a document follows the bos token; without a bos token, its loss is 0.
    """
    read = read_backbone(model, input_ids, documents, logits=True)
    logits, start = read.logits, read.start_logits
    before = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
    begins = torch.zeros_like(input_ids, dtype=torch.bool)
    begins[:, 0] = True
    if documents is not None:
        begins |= document_starts(documents)
    if start is not None:
        before = torch.where(begins[..., None], start[:, None], before)
    losses = torch.nn.functional.cross_entropy(before.float().flatten(0, 1), input_ids.flatten(), reduction="none")
    losses = losses.view(input_ids.shape)
    return losses if start is not None else losses.masked_fill(begins, 0.0)
