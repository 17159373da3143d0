"""Updaters: the cells `f(m_t, x_{t+1}) -> m_{t+1}` of the student.

Each maps a memory `(B, K, D)` and a token embedding `(B, D)` to the next memory, in which every memory token is RMS-normalised
if the configuration says so. A cell carries all its state from step to step in the memory. `CELLS` at the end of this file
lists them.
"""

import sys

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .layers_smt import SmtTransformer, normalize_memory


class Cell(nn.Module):
    """Base class of updaters. A subclass takes the student's configuration and defines `forward`.

    Args:
        config: the [`SmtRnnConfig`].
    """

    def __init__(self, config):
        super().__init__()
        self.config = config

    @classmethod
    def check_config(cls, config) -> None:
        """Checks the sizes that only this cell depends on; called when a configuration is created.

        Raises:
            ValueError: naming the value, why it cannot work, and what would work.
        """

    def init_parameters(self) -> None:
        """Initialises the cell's own parameters with the functions of `transformers.initialization`.

        The library initialises the linear layers, embeddings and norms inside it.
        """

    def forward(self, memory: torch.Tensor, token_embedding: torch.Tensor) -> torch.Tensor:
        """`memory` `(B, K, D)`, `token_embedding` `(B, D)` -> next memory `(B, K, D)`."""
        raise NotImplementedError


class TransformerCell(Cell):
    """A Transformer over the K memory tokens and the new token; the first K outputs are the next memory (Kumar & Isola).

    Every token attends to every other; rotary positions 0..K tell the memory tokens apart.
    """

    def __init__(self, config):
        super().__init__(config)
        self.transformer = SmtTransformer(config, config.num_updater_layers)

    def forward(self, memory: torch.Tensor, token_embedding: torch.Tensor) -> torch.Tensor:
        num_memory_tokens = memory.shape[1]
        hidden_states = torch.cat([memory, token_embedding[:, None]], dim=1)
        position_ids = torch.arange(num_memory_tokens + 1, device=memory.device)
        hidden_states = self.transformer(hidden_states, position_ids, keep=slice(num_memory_tokens))
        return normalize_memory(hidden_states, self.config)


# The cells below normalise the token embedding. New embeddings are far smaller than memory tokens, so an updater that
# reads both side by side hardly sees the token at first, and learns, and teaches the teacher, to do without it.


class MlpBlock(nn.Module):
    """`m + down(act(up([norm(m), norm(x)])))` over the whole memory at once, `(B, K, D)`."""

    def __init__(self, config):
        super().__init__()
        tokens, width = config.num_memory_tokens, config.hidden_size
        self.norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.token_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.up_proj = nn.Linear((tokens + 1) * width, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, tokens * width, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, memory, token_embedding):
        inputs = torch.cat([self.norm(memory).flatten(1), self.token_norm(token_embedding)], dim=-1)
        return memory + self.down_proj(self.act_fn(self.up_proj(inputs))).unflatten(-1, memory.shape[1:])


class MlpCell(Cell):
    """Residual feed-forward blocks without gates; every block sees the whole memory and the new token."""

    def __init__(self, config):
        super().__init__(config)
        self.layers = nn.ModuleList([MlpBlock(config) for _ in range(config.num_updater_layers)])
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, memory: torch.Tensor, token_embedding: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            memory = layer(memory, token_embedding)
        return normalize_memory(self.norm(memory), self.config)


class InputBlock(nn.Module):
    """Input of a layer of a [`StackedCell`]: `y + down(act(up([norm(m), y])))` with `y = norm(x)`.

    Maps a memory `(B, K, D)` and a token embedding `(B, D)` to `(B, D)`.
    """

    def __init__(self, config):
        super().__init__()
        width = config.hidden_size
        self.norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.token_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.up_proj = nn.Linear((config.num_memory_tokens + 1) * width, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, width, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, memory, token_embedding):
        token = self.token_norm(token_embedding)
        inputs = torch.cat([self.norm(memory).flatten(1), token], dim=-1)
        return token + self.down_proj(self.act_fn(self.up_proj(inputs)))


class StackedCell(Cell):
    """One step of a stack of torch's own recurrent cells.

    The memory tokens are split into equal parts: the first part goes to the first layer, and so on. A layer's part,
    flattened to one vector, is its state; for an LSTM the first half is the hidden state and the second half the cell state.

    With `cell_input="memory"`, every layer reads the token and the whole memory, as the layers below left it, through its own
    feed-forward block. With `cell_input="token"`, the first layer reads the token and every other layer the new state below
    it, as in torch's own stacks. What to overwrite, and with what, is then a single linear map of token and state. Such a map
    learns "after this mark, write the token" much later than the teacher does; meanwhile the dynamics loss makes the
    teacher's memory vary less and less. The block's hidden layer is what helps: reading the whole memory without it does not.
    """

    layer_class: type[nn.RNNCellBase]
    num_states = 1

    def __init__(self, config):
        super().__init__(config)
        num_layers = config.num_updater_layers
        width = config.hidden_size
        size = config.num_memory_tokens // (num_layers * self.num_states) * width
        reads_memory = config.cell_input == "memory"
        self.inputs = nn.ModuleList([InputBlock(config) for _ in range(num_layers)]) if reads_memory else None
        self.layers = nn.ModuleList(
            [self.layer_class(width if reads_memory or depth == 0 else size, size) for depth in range(num_layers)]
        )

    @classmethod
    def check_config(cls, config) -> None:
        states = config.num_updater_layers * cls.num_states
        if config.num_memory_tokens % states:
            raise ValueError(
                f"num_memory_tokens={config.num_memory_tokens} cannot be divided among the {states} states of "
                f"num_updater_layers={config.num_updater_layers} {config.cell_type} layers: choose a multiple of {states}"
            )

    def forward(self, memory: torch.Tensor, token_embedding: torch.Tensor) -> torch.Tensor:
        parts = list(memory.chunk(len(self.layers), dim=1))
        below = token_embedding
        for depth, layer in enumerate(self.layers):
            if self.inputs is not None:
                below = self.inputs[depth](torch.cat(parts, dim=1), token_embedding)
            moved = self.step(layer, below, parts[depth].flatten(1).unflatten(-1, (self.num_states, -1)))
            parts[depth] = torch.cat(moved, dim=-1).view_as(parts[depth])
            below = moved[0]
        return normalize_memory(torch.cat(parts, dim=1), self.config)

    def step(self, layer, below: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The layer's next states, each `(B, size)`, from its current states `(B, num_states, size)`."""
        return (layer(below, state[:, 0]),)


class ElmanCell(StackedCell):
    """Plain tanh recurrence: `torch.nn.RNNCell`."""

    layer_class = nn.RNNCell


class GruCell(StackedCell):
    """Gated recurrent unit: `torch.nn.GRUCell`."""

    layer_class = nn.GRUCell


class LstmCell(StackedCell):
    """Long short-term memory: `torch.nn.LSTMCell`, with both its states in one memory."""

    layer_class = nn.LSTMCell
    num_states = 2

    def step(self, layer, below, state):
        return layer(below, (state[:, 0], state[:, 1]))


CELLS = {
    "transformer": TransformerCell,
    "mlp": MlpCell,
    "elman": ElmanCell,
    "gru": GruCell,
    "lstm": LstmCell,
}


def cell_class(cell_type: str) -> type[Cell]:
    """The class of a cell.

    Args:
        cell_type: a name in `CELLS`, or `"module:Class"` for a custom [`Cell`]. Its module must already be imported: a
            configuration that came with a downloaded model never imports code.

    Raises:
        ValueError: if there is no such cell.
    """
    if cell_type in CELLS:
        return CELLS[cell_type]
    module, colon, name = cell_type.partition(":")
    if not colon:
        raise ValueError(
            f"cell_type={cell_type!r} is unknown: choose one of {', '.join(CELLS)}, or 'module:Class' for a cell of your own"
        )
    if module not in sys.modules:
        raise ValueError(f"cell_type={cell_type!r} is a custom cell: `import {module}` first")
    found = getattr(sys.modules[module], name, None)
    if not (isinstance(found, type) and issubclass(found, Cell)):
        raise ValueError(f"cell_type={cell_type!r} is not a cell: name a subclass of {Cell.__module__}.Cell")
    return found


def init_cells(model: nn.Module, config) -> None:
    """Initialises, in a model's `_init_weights`, what the library's does not know; torch's cells are initialised as in torch."""
    for module in model.modules():
        if isinstance(module, Cell):
            module.init_parameters()
        if isinstance(module, nn.RNNCellBase):
            for parameter in module.parameters():
                bound = module.hidden_size**-0.5
                init.uniform_(parameter, -bound, bound)
        if config.zero_init_residual and isinstance(module, MlpBlock | InputBlock):
            init.zeros_(module.down_proj.weight)
