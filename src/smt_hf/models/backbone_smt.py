"""A causal language model as the teacher's backbone: reading it, and initialising the teacher from it."""

import inspect
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from .documents_smt import tokens_read
from .layers_smt import zero_residual_outputs


def make_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """Builds the causal language model of a configuration, with new weights.

    Raises:
        ValueError: if its forward takes no positions or no mask, so that documents could not be kept apart.
    """
    model = AutoModelForCausalLM.from_config(config)
    known = inspect.signature(model.forward).parameters
    lacking = [name for name in ("attention_mask", "position_ids") if name not in known]
    if lacking:
        raise ValueError(
            f"a {type(model).__name__} takes no {' and no '.join(lacking)}, which keep documents apart: choose a "
            "Transformer such as Llama, Qwen or GPT-2"
        )
    return model


@torch.no_grad()
def check_backbone(backbone: PreTrainedModel) -> None:
    """Checks on a few tokens that a language model is causal and keeps the documents in a row apart.

    Encoders such as BERT without `is_decoder`, and layers that mix tokens despite the mask, such as Mamba's, would let the
    teacher see the tokens that it has to predict, or other documents.

    Raises:
        ValueError: if it fails the check, or cannot read rows of documents at all.
    """
    name, training = type(backbone).__name__, backbone.training
    positions = getattr(backbone.config.get_text_config(), "max_position_embeddings", None) or 25
    length = max(min(24, positions - 1), 2)  # the bos token takes one position
    first = max(length // 3, 1)
    columns = torch.arange(length, device=backbone.device)[None]
    tokens, documents = columns % backbone.get_input_embeddings().num_embeddings, (columns >= first).long()
    others = tokens.flip(1)

    def hidden(begin: torch.Tensor, end: torch.Tensor, documents: torch.Tensor | None) -> torch.Tensor:
        """The hidden states of a row made of document 0 of `begin` and document 1 of `end`."""
        row = torch.cat([begin[:, :first], end[:, first:]], dim=1)
        return read_backbone(backbone, row, documents, logits=False).hidden.float()

    try:
        backbone.eval()
        alone, apart = hidden(tokens, tokens, None), hidden(tokens, tokens, documents)
        ahead = [hidden(tokens, others, None) - alone, hidden(tokens, others, documents) - apart]
        across = hidden(others, tokens, documents) - apart
    except Exception as error:  # the library's models raise errors of every kind
        raise ValueError(f"a {name} cannot read rows of documents: {error}") from error
    finally:
        backbone.train(training)
    noise = 4 * torch.finfo(backbone.dtype).eps * apart.abs().max()
    wrong = [
        ("sees later tokens", max(each[:, :first].abs().max() for each in ahead)),
        ("sees other documents in the same row", across[:, first:].abs().max()),
    ]
    for reason, difference in wrong:
        if difference > noise:
            raise ValueError(f"a {name} {reason}: choose a causal Transformer such as Llama, Qwen or GPT-2")


class BackboneReading(NamedTuple):
    """Output of a language model for rows of documents; `None` if not requested, or if it needs a bos token and there is none.

    hidden: `(B, T, D_b)`, the last hidden states.
    start_hidden: `(B, D_b)`, the hidden state of the empty context.
    logits: `(B, T, V)`, for the next token.
    start_logits: `(B, V)`, for the first token of a document.
    """

    hidden: torch.Tensor
    start_hidden: torch.Tensor | None
    logits: torch.Tensor | None
    start_logits: torch.Tensor | None


def read_backbone(
    backbone: PreTrainedModel,
    input_ids: torch.Tensor,
    documents: torch.Tensor | None,
    logits: bool,
    wrapped: nn.Module | None = None,
) -> BackboneReading:
    """Reads rows of documents with a causal language model, so that no document sees another.

    If the model has a bos token, every document is read after it, which also gives a state of the empty context.

    Args:
        backbone: any model of `AutoModelForCausalLM` that takes a mask `(B, 1, T, T)` and positions.
        input_ids: `(B, T)`.
        documents: `(B, T)`, -1 for padding; one document per row when `None`.
        logits: also return the logits.
        wrapped: module to call in place of the model, such as a DistributedDataParallel wrapper; for `logits` only.
    """
    starts = int(backbone.config.bos_token_id is not None)
    options = {"use_cache": False, "return_dict": True}
    if documents is None and input_ids.device.type != "cpu":
        # without a mask, the library checks whether positions restart, which would wait for the GPU
        documents = torch.zeros_like(input_ids)
    if documents is not None:
        options["attention_mask"], options["position_ids"] = _separating(documents, starts, backbone.dtype)
    if starts:
        input_ids = nn.functional.pad(input_ids, (1, 0), value=backbone.config.bos_token_id)
    if logits:
        output = (backbone if wrapped is None else wrapped)(input_ids, **options, output_hidden_states=True)
        parts = output.hidden_states[-1], output.logits
    else:
        parts = backbone.base_model(input_ids, **options).last_hidden_state, None
    if not starts:
        return BackboneReading(parts[0], None, parts[1], None)
    read = [(None, None) if part is None else (part[:, 1:], part[:, 0]) for part in parts]
    return BackboneReading(*read[0], *read[1])


def _separating(documents: torch.Tensor, starts: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The additive mask `(B, 1, T, T)` and the positions `(B, T)` of rows of documents; T includes the bos token, if any."""
    columns = torch.arange(documents.shape[1], device=documents.device)
    visible = (documents[:, :, None] == documents[:, None]) & (columns <= columns[:, None])
    position_ids = tokens_read(documents) + starts
    if starts:
        position_ids = nn.functional.pad(position_ids, (1, 0))
        visible = nn.functional.pad(nn.functional.pad(visible, (1, 0), value=True), (0, 0, 1, 0))
        visible[:, 0, 0] = True
    mask = torch.zeros(visible.shape, dtype=dtype, device=documents.device)
    return mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None], position_ids


@torch.no_grad()
def take_over(teacher, backbone: PreTrainedModel, generator: torch.Generator | None = None) -> None:
    """Copies a backbone into a teacher with a matching configuration, and initialises the teacher's own weights from it.

    The projection keeps the part of the hidden states that the backbone's head reads. Embedding and head are the backbone's,
    mapped through the projection, and every block of encoder and decoder starts as the identity. So a teacher that carries the
    hidden state in its last memory token starts near the backbone's own predictions.

    Args:
        teacher: an `SmtTeacherModel`.
        backbone: a model of the class and sizes of the teacher's `backbone_config`.
        generator: CPU generator for the directions of the projection.

    Raises:
        ValueError: if the weights do not fit, or the backbone fails [`check_backbone`].
    """
    check_backbone(backbone)
    try:
        teacher.backbone.load_state_dict(backbone.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the backbone's weights do not match its configuration: {error}") from error
    head = backbone.get_output_embeddings().weight.detach().float().cpu()
    embeddings = backbone.get_input_embeddings().weight.detach().float().cpu()
    hidden_size = teacher.config.hidden_size
    rank = min(hidden_size, head.shape[1])
    basis = torch.linalg.eigh(head.T @ head).eigenvectors.T.flip(0)[
        :rank
    ]  # (rank, D_b): what matters most to the head
    turn, _ = torch.linalg.qr(torch.randn(hidden_size, rank, generator=generator))
    projection = turn @ basis  # (D, D_b), with orthonormal rows or columns
    token_ids = torch.randint(len(head), (8, 64), generator=generator).to(backbone.device)
    hidden = read_backbone(backbone.eval(), token_ids, None, logits=False).hidden.float().cpu() @ projection.T
    scale = hidden.square().mean(dim=-1).sqrt().mean()
    zero_residual_outputs(teacher)
    teacher.backbone_projection.weight.copy_(projection)
    teacher.lm_head.weight.copy_(head @ projection.T * scale)
    if embeddings.shape[1] == projection.shape[1]:
        own = embeddings @ projection.T
        teacher.embed_tokens.weight.copy_(own * teacher.config.initializer_range / own.std())
