"""A fast step of the student for generation: the same numbers with a third of the calls.

A small student spends most of a step outside its matrix products. Here the scales of the norms and the rotation of queries and
keys are folded into one matrix per layer, the rotary tables are kept, and no module is called.
"""

import torch
from torch import nn
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers.activations import ReLUSquaredActivation

from .cells_smt_rnn import TransformerCell
from .layers_smt import SmtAttention, SmtBlock, SmtMLP, SmtTransformer, rotary_embedding

# Modules whose arithmetic is known. Adapters, quantised layers and parametrised ones have other types.
_PLAIN = (
    nn.Linear,
    nn.Embedding,
    nn.RMSNorm,
    nn.ModuleList,
    SmtAttention,
    SmtBlock,
    SmtMLP,
    SmtTransformer,
    TransformerCell,
)


class LeanStep:
    """`update` and `readout` of a student, computed from copies of its current weights.

    Check [`is_lean`] first. Cells other than the Transformer run unchanged.

    Args:
        student: an [`SmtRnnForCausalLM`].
    """

    def __init__(self, student):
        config, model = student.config, student.model
        self.normalizes = config.memory_normalization == "rms"
        self.eps = student.lm_head.weight.new_tensor(config.rms_norm_eps)
        self.embedding = model.embed_tokens.weight.detach()
        self.cell = model.cell
        self.layers = None
        if type(self.cell) is TransformerCell:
            length = config.num_memory_tokens + 1
            self.layers = _layers(self.cell.transformer, length, slice(config.num_memory_tokens))
            self.norm = self.cell.transformer.norm.weight.detach()
        self.readout_layers = _layers(model.decoder, config.num_memory_tokens, slice(-1, None))
        self.head = _transposed(student.lm_head.weight * model.decoder.norm.weight)

    @torch.no_grad()
    def update(self, memory: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """`(B, K, D)` and `(B,)` token ids -> the next memory `(B, K, D)`."""
        embeds = embedding(input_ids, self.embedding)
        if self.layers is None:
            return self.cell(memory, embeds)
        states = torch.cat([memory, embeds[:, None]], dim=1)
        for layer in self.layers:
            states = layer(states)
        states = _rms_norm(states, self.eps) * self.norm
        return _rms_norm(states, self.eps) if self.normalizes else states

    @torch.no_grad()
    def readout(self, memory: torch.Tensor) -> torch.Tensor:
        """Logits of the next token: `(B, K, D)` -> `(B, V)`."""
        states = memory
        for layer in self.readout_layers:
            states = layer(states)
        return _rms_norm(states[:, -1], self.eps) @ self.head


class _LeanLayer:
    """A block over `length` positions; the last block of a stack returns only the positions `keep`."""

    def __init__(self, block: SmtBlock, length: int, keep: slice | None):
        attention, config = block.attention, block.attention.config
        self.heads = (config.num_attention_heads, attention.head_size)
        self.qk_norm, self.scaling, self.keep = config.qk_norm, attention.scaling, keep
        self.eps = attention.q_proj.weight.new_tensor(config.rms_norm_eps)
        self.qk_eps = self.eps.new_tensor(torch.finfo(self.eps.dtype).eps)  # the default of rms_norm
        query, key, value = (
            (projection.weight * block.attention_norm.weight)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.inputs = _transposed(torch.cat([query, key, self._turned(query), self._turned(key), value]))
        cos, sin = rotary_embedding(torch.arange(length, device=query.device), config, query.dtype)
        self.cos, self.sin = cos[:, None, None].contiguous(), sin[:, None, None].contiguous()
        self.output = _transposed(attention.o_proj.weight)
        self.up = _transposed(block.mlp.up_proj.weight * block.mlp_norm.weight)
        self.down = _transposed(block.mlp.down_proj.weight)
        is_relu2 = type(block.mlp.act_fn) is ReLUSquaredActivation
        self.act_fn = _squared_relu if is_relu2 else block.mlp.act_fn

    def _turned(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights of the projection whose output is multiplied by the sine."""
        first, second = weight.unflatten(0, self.heads).chunk(2, dim=1)
        return torch.cat([-second, first], dim=1).flatten(0, 1)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        batch, length, width = states.shape
        flat = states.reshape(-1, width)
        parts = (_rms_norm(flat, self.eps) @ self.inputs).view(batch, length, 5, *self.heads)
        turned = torch.addcmul(parts[:, :, :2] * self.cos, parts[:, :, 2:4], self.sin)
        if self.qk_norm:  # a rotation does not change the norm
            turned = _rms_norm(turned, self.qk_eps)
        query, key = turned.unbind(2)
        if self.keep is not None:
            query, flat = query[:, self.keep], states[:, self.keep].reshape(-1, width)
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), parts[:, :, 4].transpose(1, 2)
        attended = scaled_dot_product_attention(query, key, value, scale=self.scaling).transpose(1, 2)
        flat = torch.addmm(flat, attended.reshape(-1, width), self.output)
        inner = self.act_fn(_rms_norm(flat, self.eps) @ self.up)
        return torch.addmm(flat, inner, self.down).view(batch, -1, width)


def is_lean(student) -> bool:
    """Whether [`LeanStep`] gives the same results as the student's own modules.

    False for adapters, quantised or sharded weights, biases, methods overridden in a subclass, hooks, autocast, half precision
    (whose rounding it would change) and training. Also false for large students, which spend their time in matrix products and
    whose copied weights would take too much memory.
    """
    inner = [student.model.embed_tokens, student.model.decoder, student.lm_head]
    if type(student.model.cell) is TransformerCell:
        inner.append(student.model.cell)
    modules = [student, student.model, *(module for part in inner for module in _known(part))]
    parameters = list(student.parameters())
    return (
        not student.training
        and sum(parameter.numel() for parameter in parameters) <= 30_000_000
        and all(_is_bare(module) for module in modules)
        and _is_ours(student, "forward", "update", "readout")
        and _is_ours(student.model, "forward", "update", "readout_features", "start_memory", "unroll")
        and all(type(module) in _PLAIN for module in modules[2:])
        and all(module.bias is None for module in modules if isinstance(module, nn.Linear))
        and all(type(p.data) is torch.Tensor and p.dtype in (torch.float32, torch.float64) for p in parameters)
        and len({(p.dtype, p.device) for p in parameters}) == 1
        and not parameters[0].is_meta
        and not torch.is_autocast_enabled(parameters[0].device.type)
    )


def _known(part: nn.Module):
    """The modules of a part, except its activation functions, which are called unchanged."""
    activations = {id(module.act_fn) for module in part.modules() if isinstance(module, SmtMLP)}
    return (module for module in part.modules() if id(module) not in activations)


def _is_bare(module: nn.Module) -> bool:
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _is_ours(model: nn.Module, *methods: str) -> bool:
    """Whether methods of a model are defined in this package, not in a subclass or a patch."""
    modules = [getattr(type(model), name).__module__ for name in methods]
    return {module.rpartition(".")[0] for module in modules} == {__name__.rpartition(".")[0]}


def _layers(stack: SmtTransformer, length: int, keep: slice) -> list[_LeanLayer]:
    last = len(stack.layers) - 1
    return [_LeanLayer(block, length, keep if depth == last else None) for depth, block in enumerate(stack.layers)]


def _rms_norm(states: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """`torch.nn.functional.rms_norm` without a scale, in half the time for a few rows on a CPU."""
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return states * torch.addcmul(eps, length, length, value=1 / states.shape[-1]).rsqrt_()


def _squared_relu(states: torch.Tensor) -> torch.Tensor:
    return torch.relu(states).square_()


def _transposed(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().t().contiguous()


__all__ = ["LeanStep", "is_lean"]
