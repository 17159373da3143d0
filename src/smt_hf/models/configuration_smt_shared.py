"""The configuration that teacher and student share: the memory, the width of the layers, the special ids."""

import math
from typing import Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN


@strict
class SmtSharedConfig(PreTrainedConfig):
    r"""The fields that [`SmtTeacherConfig`] and [`SmtRnnConfig`] have in common.

    Args:
        vocab_size: Number of token ids V.
        hidden_size: Width D of a token and of a memory token.
        num_memory_tokens: Number K of memory tokens. A memory is K x D numbers, however long the text is.
        num_attention_heads: Attention heads; must divide `hidden_size` into even head sizes (rotary positions).
        intermediate_size: Width of the feed-forward layers; 4 x `hidden_size` when `None`.
        hidden_act: Activation of the feed-forward layers, a name known to `transformers.activations`.
        memory_normalization: `"rms"` (RMS-normalise every memory token, as in the paper) or `"none"`.
        rms_norm_eps: Epsilon of every RMS normalisation.
        rope_theta: Base of the rotary positions.
        qk_norm: RMS-normalise the queries and keys of every head, without a learned scale.
        attention_dropout: Dropout of the attention weights during training.
        initializer_range: Standard deviation of the initial weights.
        zero_init_residual: Initialise the last matrix of every attention and feed-forward layer to zero, so that a new block
            is the identity.
        pad_token_id: Id of the padding token, if there is one.
        bos_token_id: Id of the token that begins a text, if there is one.
        eos_token_id: Id, or ids, of the tokens that end a text, if there are any.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    _auto_class = "AutoConfig"  # a saved folder includes the code, see pretrained_smt.py

    vocab_size: int = 258
    hidden_size: int = 256
    num_memory_tokens: int = 16
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    memory_normalization: Literal["rms", "none"] = "rms"
    rms_norm_eps: int | float = 1e-6
    rope_theta: int | float = 10000.0
    qk_norm: bool = False
    attention_dropout: int | float = 0.0
    initializer_range: int | float = 0.02
    zero_init_residual: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs):
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        check_dtype(kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)

    def validate_numbers(self):
        """Checks rates and ids. NaN fails every comparison below, so it is rejected too."""
        if not 0 <= self.attention_dropout < 1:
            raise ValueError(f"attention_dropout={self.attention_dropout} must lie in [0, 1)")
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be positive and finite")
        if not 0 <= self.initializer_range < math.inf:
            raise ValueError(f"initializer_range={self.initializer_range} must be finite and not negative")
        check_special_ids(self, self.vocab_size)

    def validate_sizes(self):
        """Checks that sizes are positive and the heads fit the width."""
        for name in ("vocab_size", "hidden_size", "num_memory_tokens", "num_attention_heads", "intermediate_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        hidden_size, heads = self.hidden_size, self.num_attention_heads
        if hidden_size % (2 * heads):
            raise ValueError(
                f"hidden_size={hidden_size} is not divisible by num_attention_heads={heads} into heads of even size: "
                f"choose a multiple of {2 * heads}"
            )
        if self.hidden_act not in ACT2FN:
            raise ValueError(
                f"hidden_act={self.hidden_act!r} is unknown: choose a name in transformers.activations.ACT2FN, such as "
                "'gelu', 'silu' or 'relu'"
            )


def check_special_ids(config, vocab_size: int) -> None:
    """Checks the special ids of a model or generation configuration.

    Raises:
        ValueError: naming an id for which the model has no embedding.
    """
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is not None and not (isinstance(token_id, int) and 0 <= token_id < vocab_size):
                raise ValueError(f"{name}={token_id!r} is outside the vocabulary of {vocab_size} ids")


def check_dtype(dtype) -> None:
    """Checks the dtype of the weights, given as a torch dtype or by name; `None` is torch's default.

    Raises:
        ValueError: if torch has no such floating-point dtype.
    """
    if dtype is None or isinstance(dtype, dict):  # the library still accepts one dtype per part of a model
        return
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(
            f"dtype={dtype!r} is not a floating-point dtype of torch: choose float32, bfloat16 or float16"
        )
