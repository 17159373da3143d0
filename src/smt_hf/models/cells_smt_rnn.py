"""Updaters: the cells `f(m_t, x_{t+1}) -> m_{t+1}` of the student."""

import torch
from torch import nn

from .layers_smt import SmtTransformer, normalize_memory


class TransformerCell(nn.Module):
    """A Transformer over the K memory tokens and the new token; the first K outputs are the next memory (Kumar & Isola).

    Every token attends to every other; rotary positions 0..K tell the memory tokens apart.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = SmtTransformer(config, config.num_hidden_layers)

    def forward(self, memory: torch.Tensor, token_embedding: torch.Tensor) -> torch.Tensor:
        """`memory` `(B, K, D)`, `token_embedding` `(B, D)` -> next memory `(B, K, D)`."""
        num_memory_tokens = memory.shape[1]
        hidden_states = torch.cat([memory, token_embedding[:, None]], dim=1)
        position_ids = torch.arange(num_memory_tokens + 1, device=memory.device)
        hidden_states = self.transformer(hidden_states, position_ids, keep=slice(num_memory_tokens))
        return normalize_memory(hidden_states, self.config)


CELLS = {"transformer": TransformerCell}
