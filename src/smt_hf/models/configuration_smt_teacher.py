"""Configuration of the Transformer teacher."""

from typing import Literal

from huggingface_hub.dataclasses import strict

from .configuration_smt_shared import SmtSharedConfig


@strict
class SmtTeacherConfig(SmtSharedConfig):
    r"""Configuration of [`SmtTeacherModel`], the encoder-decoder that supplies the memory states.

    The fields that it shares with the student stand in [`SmtSharedConfig`].

    Args:
        num_encoder_layers: Layers of the encoder (context -> memory).
        num_decoder_layers: Layers of the decoder (memory and future inputs -> future).
        encoder_attention: `"causal"` (dense SMT: one pass encodes any number of positions) or `"bidirectional"`
            (the paper's encoder: the context of every position is encoded by itself).
        tie_word_embeddings: `False`: the teacher's head is not its embedding.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    model_type = "smt_teacher"
    attribute_map = {"num_hidden_layers": "num_encoder_layers"}

    num_encoder_layers: int = 8
    num_decoder_layers: int = 4
    encoder_attention: Literal["causal", "bidirectional"] = "causal"
    tie_word_embeddings: bool = False

    def validate_layers(self):
        """There must be an encoder, and a head of its own."""
        if self.num_encoder_layers < 1 or self.num_decoder_layers < 0:
            raise ValueError(
                f"num_encoder_layers={self.num_encoder_layers} must be at least 1 and "
                f"num_decoder_layers={self.num_decoder_layers} at least 0"
            )
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True: the teacher's head is not its embedding, leave it at False")
