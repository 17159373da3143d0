"""Configuration of the Transformer teacher."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_smt_rnn import check_dtype, check_transformer_numbers, check_transformer_sizes


@strict
class SmtTeacherConfig(PreTrainedConfig):
    r"""Configuration of [`SmtTeacherModel`], the encoder-decoder that supplies the memory states.

    Args:
        vocab_size: Number of token ids V.
        hidden_size: Width D of a token and of a memory token.
        num_memory_tokens: Number K of memory registers, hence of memory tokens.
        num_encoder_layers: Layers of the encoder (context -> memory).
        num_decoder_layers: Layers of the decoder (memory and future inputs -> future).
        num_attention_heads: Attention heads; must divide `hidden_size` into even head sizes (rotary positions).
        intermediate_size: Width of the feed-forward layers; 4 x `hidden_size` when `None`.
        hidden_act: Activation of the feed-forward layers, a name known to `transformers.activations`.
        encoder_attention: `"causal"` (dense SMT: one pass encodes any number of positions) or `"bidirectional"`
            (the paper's encoder: the context of every position is encoded by itself).
        memory_normalization: `"rms"` (every memory token is RMS-normalised, as in the paper) or `"none"`.
        rms_norm_eps: Epsilon of every RMS normalisation.
        rope_theta: Base of the rotary positions.
        qk_norm: RMS-normalise the queries and keys of every head (no learned scale).
        attention_dropout: Dropout of the attention weights during training.
        initializer_range: Standard deviation of the initial weights.
        zero_init_residual: Start the last matrix of every attention and feed-forward layer at zero, so that a new block
            passes its input on.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    model_type = "smt_teacher"

    vocab_size: int = 258
    hidden_size: int = 256
    num_memory_tokens: int = 16
    num_encoder_layers: int = 8
    num_decoder_layers: int = 4
    num_attention_heads: int = 8
    intermediate_size: int | None = None
    hidden_act: str = "gelu"
    encoder_attention: str = "causal"
    memory_normalization: str = "rms"
    rms_norm_eps: int | float = 1e-6
    rope_theta: int | float = 10000.0
    qk_norm: bool = False
    attention_dropout: int | float = 0.0
    initializer_range: int | float = 0.02
    zero_init_residual: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = False

    attribute_map = {"num_hidden_layers": "num_encoder_layers"}

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
        if self.num_encoder_layers < 1 or self.num_decoder_layers < 0:
            raise ValueError(
                f"num_encoder_layers={self.num_encoder_layers} must be at least 1 and "
                f"num_decoder_layers={self.num_decoder_layers} at least 0"
            )
        if self.encoder_attention not in ("causal", "bidirectional"):
            raise ValueError(
                f"encoder_attention={self.encoder_attention!r} is unknown: choose 'causal' or 'bidirectional'"
            )
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True: the teacher's head is not its embedding, leave it at False")
