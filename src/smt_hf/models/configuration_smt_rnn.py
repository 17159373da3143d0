"""Configuration of the recurrent student."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .cells_smt_rnn import cell_class
from .configuration_smt_shared import SmtSharedConfig


@strict
class SmtRnnConfig(SmtSharedConfig):
    r"""Configuration of [`SmtRnnModel`] and [`SmtRnnForCausalLM`].

    The fields shared with the teacher are documented in [`SmtSharedConfig`].

    Args:
        cell_type: The updater `f(m_t, x_{t+1}) -> m_{t+1}`: `"transformer"`, `"mlp"` (residual, without gates), `"elman"` (plain
            tanh), `"gru"` or `"lstm"`, or `"module:Class"` for a custom [`Cell`] whose module has been imported.
            `"elman"`, `"gru"` and `"lstm"` keep the states of each layer in separate memory tokens.
        cell_input: What the layers of `"elman"`, `"gru"` and `"lstm"` read: `"memory"` is the token and the whole memory,
            through a feed-forward block; `"token"` is the token in the first layer and the layer below in the others, as in
            torch's own stacks. With `"token"`, the memory can collapse in SMT (setting `detach_teacher` then helps).
        num_updater_layers: Layers of the updater; must divide `num_memory_tokens` for `"elman"` and `"gru"`, and half of it for
            `"lstm"`.
        num_readout_layers: Transformer layers between the memory and the output head.
        use_cache: Return the memory as a cache, for generation.
        tie_word_embeddings: Tie the output head to the token embedding. Not possible for a student that is trained together
            with its teacher, whose head it uses.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    model_type = "smt_rnn"
    attribute_map = {"num_hidden_layers": "num_updater_layers"}
    keys_to_ignore_at_inference = ["cache", "past_key_values", "memory"]

    cell_type: str = "transformer"
    cell_input: Literal["memory", "token"] = "memory"
    num_updater_layers: int = 8
    num_readout_layers: int = 4
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def validate_cell(self):
        """Checks that the cell exists and the sizes suit it."""
        if self.num_updater_layers < 1 or self.num_readout_layers < 0:
            raise ValueError(
                f"num_updater_layers={self.num_updater_layers} must be at least 1 and "
                f"num_readout_layers={self.num_readout_layers} at least 0"
            )
        cell_class(self.cell_type).check_config(self)
