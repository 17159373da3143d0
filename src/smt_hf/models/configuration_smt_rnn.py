"""Configuration of the recurrent student."""

import math

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

CELL_TYPES = ("transformer", "mlp", "elman", "gru", "lstm")
# States of a layer that share the memory tokens out among them; the other cells use the whole memory in every layer.
STATES_OF_A_LAYER = {"elman": 1, "gru": 1, "lstm": 2}


@strict
class SmtRnnConfig(PreTrainedConfig):
    r"""Configuration of [`SmtRnnModel`] and [`SmtRnnForCausalLM`].

    Args:
        vocab_size: Number of token ids V.
        hidden_size: Width D of a memory token.
        num_memory_tokens: Number K of memory tokens; the student carries K x D numbers, whatever the length.
        cell_type: The updater `f(m_t, x_{t+1}) -> m_{t+1}`: `"transformer"`, `"mlp"` (residual, without gates), `"elman"` (plain
            tanh), `"gru"` or `"lstm"`. The last three keep each layer's states in memory tokens of its own.
        cell_input: What the layers of `"elman"`, `"gru"` and `"lstm"` read: `"memory"`, the token and the whole memory
            through a feed-forward block, or `"token"`, the token and then the layer below, as in torch's own stacks,
            under which SMT can let the memory collapse (`detach_teacher` of its arguments then helps).
        num_updater_layers: Layers of the updater; for `"elman"` and `"gru"` a divisor of `num_memory_tokens`, for `"lstm"` of half
            of it.
        num_readout_layers: Transformer layers between the memory and the output head.
        num_attention_heads: Attention heads; must divide `hidden_size` into even head sizes (rotary positions).
        intermediate_size: Width of the feed-forward layers; 4 x `hidden_size` when `None`.
        hidden_act: Activation of the feed-forward layers, a name known to `transformers.activations`.
        memory_normalization: `"rms"` (every memory token is RMS-normalised, as in the paper) or `"none"`.
        rms_norm_eps: Epsilon of every RMS normalisation.
        rope_theta: Base of the rotary positions.
        qk_norm: RMS-normalise the queries and keys of every head (no learned scale).
        attention_dropout: Dropout of the attention weights during training.
        initializer_range: Standard deviation of the initial weights.
        zero_init_residual: Start the last matrix of every attention and feed-forward layer at zero, so that a new block
            passes its input on.
        tie_word_embeddings: Let the output head be the token embedding; not for a student that is trained together with its
            teacher, whose head it takes.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    model_type = "smt_rnn"
    attribute_map = {"num_hidden_layers": "num_updater_layers"}
    keys_to_ignore_at_inference = ["cache", "past_key_values", "memory"]

    vocab_size: int = 258
    hidden_size: int = 256
    num_memory_tokens: int = 16
    cell_type: str = "transformer"
    cell_input: str = "memory"
    num_updater_layers: int = 8
    num_readout_layers: int = 4
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    memory_normalization: str = "rms"
    rms_norm_eps: int | float = 1e-6
    rope_theta: int | float = 10000.0
    qk_norm: bool = False
    attention_dropout: int | float = 0.0
    initializer_range: int | float = 0.02
    zero_init_residual: bool = False
    use_cache: bool = True
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)

    def validate_numbers(self):
        """Rates and ids must be such as the layers can work with."""
        check_transformer_numbers(self)

    def validate_sizes(self):
        """Sizes must be positive and the heads must fit the width."""
        check_transformer_sizes(self)
        if self.num_updater_layers < 1 or self.num_readout_layers < 0:
            raise ValueError(
                f"num_updater_layers={self.num_updater_layers} must be at least 1 and "
                f"num_readout_layers={self.num_readout_layers} at least 0"
            )
        if self.cell_type not in CELL_TYPES:
            raise ValueError(f"cell_type={self.cell_type!r} is unknown: choose one of {', '.join(CELL_TYPES)}")
        if self.cell_input not in ("memory", "token"):
            raise ValueError(f"cell_input={self.cell_input!r} is unknown: choose 'memory' or 'token'")
        states = self.num_updater_layers * STATES_OF_A_LAYER.get(self.cell_type, 1)
        if self.cell_type in STATES_OF_A_LAYER and self.num_memory_tokens % states:
            raise ValueError(
                f"num_memory_tokens={self.num_memory_tokens} cannot be dealt out to the {states} states of "
                f"num_updater_layers={self.num_updater_layers} {self.cell_type} layers: choose a multiple of {states}"
            )


def check_transformer_sizes(config) -> None:
    """Checks that teacher and student share.

    Raises:
        ValueError: naming the size that cannot work and what would.
    """
    for name in ("vocab_size", "hidden_size", "num_memory_tokens", "num_attention_heads", "intermediate_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    hidden_size, heads = config.hidden_size, config.num_attention_heads
    if hidden_size % (2 * heads):
        raise ValueError(
            f"hidden_size={hidden_size} is not divisible by num_attention_heads={heads} into even head sizes: "
            f"choose a multiple of {2 * heads}"
        )
    if config.memory_normalization not in ("rms", "none"):
        raise ValueError(f"memory_normalization={config.memory_normalization!r} is unknown: choose 'rms' or 'none'")
    if config.hidden_act not in ACT2FN:
        raise ValueError(
            f"hidden_act={config.hidden_act!r} is unknown: choose a name in transformers.activations.ACT2FN, such as "
            "'gelu', 'silu' or 'relu'"
        )


def check_transformer_numbers(config) -> None:
    """Checks that teacher and student share. No comparison below holds for NaN.

    Raises:
        ValueError: naming the number that cannot work and what would.
    """
    if not 0 <= config.attention_dropout < 1:
        raise ValueError(f"attention_dropout={config.attention_dropout} must lie in [0, 1)")
    for name in ("rms_norm_eps", "rope_theta"):
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive and finite")
    if not 0 <= config.initializer_range < math.inf:
        raise ValueError(f"initializer_range={config.initializer_range} must be finite and not negative")
    check_special_ids(config, config.vocab_size)


def check_special_ids(config, vocab_size: int) -> None:
    """Checks the special ids of a configuration, be it of a model or of its generation.

    Raises:
        ValueError: naming the id that the model has no embedding for.
    """
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and not (isinstance(token_id, int) and 0 <= token_id < vocab_size):
                raise ValueError(f"{name}={token_id!r} is outside the vocabulary of {vocab_size} ids")


def check_dtype(dtype) -> None:
    """Checks the dtype of the weights, given as torch's or by name; `None` is torch's default.

    Raises:
        ValueError: if torch has no such floating-point dtype.
    """
    if dtype is None or isinstance(dtype, dict):  # the library still takes a dtype for each part of a model
        return
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype={dtype!r} is no floating-point dtype of torch: choose float32, bfloat16 or float16")
