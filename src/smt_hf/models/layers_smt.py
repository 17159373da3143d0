"""Transformer layers that teacher and student share."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# For attention with a mask on a GPU. cuDNN's kernels, which torch may prefer, are planned anew for every shape, which costs
# some 30 ms on the host, and training draws new positions, hence new shapes, in every step.
MASKED_KERNELS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


SHORT_ATTENTION = {"cpu"}  # devices that compute attention over a handful of positions without matrix products


def normalize_memory(memory: torch.Tensor, config) -> torch.Tensor:
    """RMS-normalises memory tokens `(..., D)` without a learned scale, if the configuration says so (Kumar & Isola)."""
    if config.memory_normalization == "none":
        return memory
    return nn.functional.rms_norm(memory, memory.shape[-1:], eps=config.rms_norm_eps)


def squared_distance(memory: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of memories `(..., K, D)` over their K x D values: `(...)`."""
    return (memory.float() - other.float()).square().mean(dim=(-2, -1))


def rotary_embedding(position_ids: torch.Tensor, config, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine tables `(..., L, head_size)` for positions `(..., L)`.

    Computed when needed rather than kept in a buffer, so that nothing must be refilled after loading on the meta device.
    """
    head_size = config.hidden_size // config.num_attention_heads
    precise = torch.promote_types(dtype, torch.float32)
    exponent = torch.arange(0, head_size, 2, device=position_ids.device, dtype=precise) / head_size
    angles = position_ids[..., None].to(precise) * config.rope_theta**-exponent
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates `(B, heads, L, head_size)` with the tables `(L, head_size)` or `(B, 1, L, head_size)`."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def eager_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Plain attention, the reference for the faster kernels: `(B, heads, L, head_size)` -> `(B, L, heads, head_size)`."""
    weights = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def short_attention_forward(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Attention without mask or dropout for a handful of positions on a CPU, whose kernels are made for long sequences.

    For 2,048 memories of 4 tokens plus a new token, it takes half the time of sdpa with the gradient and a third without.
    """
    weights = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1) * scaling
    weights = nn.functional.softmax(weights, dim=-1)
    output = (weights.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2)
    return output.transpose(1, 2), weights


class SmtAttention(nn.Module):
    """Multi-head self-attention with rotary positions, through the library's attention interface."""

    is_causal = False  # every restriction is in the mask

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states, rotary, attention_mask=None, keep=slice(None)):
        def heads(states):
            return states.unflatten(-1, (-1, self.head_size)).transpose(1, 2)

        query = heads(self.q_proj(hidden_states[:, keep]))
        key, value = heads(self.k_proj(hidden_states)), heads(self.v_proj(hidden_states))
        if self.config.qk_norm:
            query, key = (nn.functional.rms_norm(states, (self.head_size,)) for states in (query, key))
        cos, sin = (table.to(query.dtype) for table in rotary)  # under autocast the projections have a narrower dtype
        query = apply_rotary(query, cos[..., keep, :], sin[..., keep, :])
        key = apply_rotary(key, cos, sin)
        if isinstance(attention_mask, list):
            parts = [
                self.attend(query[:, :, rows], key[:, :, columns], value[:, :, columns], mask)[0]
                for rows, columns, mask in attention_mask
            ]
            output, weights = torch.cat(parts, dim=1), None
        else:
            output, weights = self.attend(query, key, value, attention_mask)
        return self.o_proj(output.flatten(2)), weights

    def attend(self, query, key, value, attention_mask):
        """`(B, heads, L, head_size)` each -> `(B, L, heads, head_size)` and the attention weights, if any."""
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.config.attention_dropout if self.training else 0.0
        short = attention_mask is None and not dropout and self.config._attn_implementation in ("sdpa", "eager")
        if short and query.device.type in SHORT_ATTENTION and query.shape[2] * key.shape[2] <= 64:
            attend = short_attention_forward
        options = {"dropout": dropout, "scaling": self.scaling, "is_causal": False}
        if attention_mask is not None and query.is_cuda and self.config._attn_implementation == "sdpa":
            with sdpa_kernel(MASKED_KERNELS):
                return attend(self, query, key, value, attention_mask, **options)
        return attend(self, query, key, value, attention_mask, **options)


class SmtMLP(nn.Module):
    """Feed-forward layer `down(act(up(x)))`."""

    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states):
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class SmtBlock(GradientCheckpointingLayer):
    """Pre-norm Transformer block."""

    def __init__(self, config):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attention = SmtAttention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = SmtMLP(config)

    def forward(self, hidden_states, rotary, attention_mask=None, keep=slice(None)):
        attended, _ = self.attention(self.attention_norm(hidden_states), rotary, attention_mask, keep)
        hidden_states = hidden_states[:, keep] + attended
        return hidden_states + self.mlp(self.mlp_norm(hidden_states))


def init_residual_outputs(model: nn.Module, config) -> None:
    """Zeroes the last matrices of all blocks of a model if the configuration asks for it; called in `_init_weights`.

    It takes the whole model because the library does not call `_init_weights` on modules without weights of their own, such
    as a block, unless their code is the library's.
    """
    if config.zero_init_residual:
        zero_residual_outputs(model, init.zeros_)


def zero_residual_outputs(model: nn.Module, zero=nn.init.zeros_) -> None:
    """Zeroes the last matrices of all blocks of a model with the function `zero`, so that the blocks start as the identity."""
    for module in model.modules():
        if isinstance(module, SmtBlock):
            zero(module.attention.o_proj.weight)
            zero(module.mlp.down_proj.weight)


class SmtTransformer(nn.Module):
    """A stack of blocks and a final norm: `(B, L, D)` -> `(B, L, D)`.

    `position_ids` `(L,)` or `(B, L)` are rotary positions. `attention_mask` has the form of the attention implementation in
    use (`None`: every position sees every position), or is a list of blocks `(rows, columns, mask)`: the rows, in order, with
    the columns that they may see. With `keep`, a slice of the positions, the last block computes and returns only those
    outputs; there must be no mask then.
    """

    def __init__(self, config, num_layers: int):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList([SmtBlock(config) for _ in range(num_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden_states, position_ids, attention_mask=None, keep=slice(None)):
        rotary = rotary_embedding(position_ids, self.config, hidden_states.dtype)
        if position_ids.dim() == 2:
            rotary = tuple(table[:, None] for table in rotary)
        for layer in self.layers[:-1]:
            hidden_states = layer(hidden_states, rotary, attention_mask)
        if len(self.layers):
            hidden_states = self.layers[-1](hidden_states, rotary, attention_mask, keep)
        else:
            hidden_states = hidden_states[:, keep]
        return self.norm(hidden_states)


def read_memory(decoder: SmtTransformer, memory: torch.Tensor) -> torch.Tensor:
    """The features of a memory alone for the output head, at the last memory token: `(..., K, D)` -> `(..., D)`."""
    flat = memory.reshape(-1, *memory.shape[-2:])
    position_ids = torch.arange(flat.shape[1], device=flat.device)
    return decoder(flat, position_ids, keep=slice(-1, None)).reshape(*memory.shape[:-2], memory.shape[-1])
