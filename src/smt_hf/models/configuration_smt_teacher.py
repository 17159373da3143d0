"""Configuration of the Transformer teacher."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_smt_shared import SmtSharedConfig


@strict
class SmtTeacherConfig(SmtSharedConfig):
    r"""Configuration of [`SmtTeacherModel`], the encoder-decoder that supplies the memory states.

    The fields shared with the student are documented in [`SmtSharedConfig`].

    Args:
        num_encoder_layers: Layers of the encoder (context -> memory).
        num_decoder_layers: Layers of the decoder (memory and future inputs -> future).
        encoder_attention: `"causal"` (dense SMT: one pass encodes any number of positions) or `"bidirectional"`
            (the paper's encoder: the context of every position is encoded separately).
        backbone_config: Configuration, or its dictionary, of a causal language model whose hidden states the encoder reads
            instead of token embeddings: any class of `AutoModelForCausalLM` that takes masks and positions. `None` is the
            paper's teacher.
        carry_hidden_state: Add the backbone's last hidden state to the last memory token, so that the readout starts
            near the backbone's predictions. No effect without a backbone.
        tie_word_embeddings: Must be `False`: the teacher's head is not its embedding.

    Raises:
        huggingface_hub.errors.StrictDataclassError: for a value of the wrong type or one that cannot work.
    """

    model_type = "smt_teacher"
    sub_configs = {"backbone_config": AutoConfig}
    attribute_map = {"num_hidden_layers": "num_encoder_layers"}

    num_encoder_layers: int = 8
    num_decoder_layers: int = 4
    encoder_attention: Literal["causal", "bidirectional"] = "causal"
    backbone_config: Any = None
    carry_hidden_state: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        backbone = self.backbone_config
        if isinstance(backbone, dict):
            model_type = backbone.get("model_type")
            if model_type not in CONFIG_MAPPING:
                raise ValueError(
                    f"backbone_config: model_type={model_type!r} is not a model type that transformers knows"
                )
            self.backbone_config = CONFIG_MAPPING[model_type].from_dict(backbone)
        elif not (backbone is None or isinstance(backbone, PreTrainedConfig)):
            raise TypeError(f"backbone_config={backbone!r} is neither a configuration nor a dictionary of one")
        super().__post_init__(**kwargs)

    def validate_layers(self):
        """Checks that there is an encoder, and that the head is not tied."""
        if self.num_encoder_layers < 1 or self.num_decoder_layers < 0:
            raise ValueError(
                f"num_encoder_layers={self.num_encoder_layers} must be at least 1 and "
                f"num_decoder_layers={self.num_decoder_layers} at least 0"
            )
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings=True: the teacher's head is not its embedding, leave it at False")

    def validate_backbone(self):
        """Checks that a backbone has the teacher's vocabulary and that the encoder is causal."""
        backbone = self.backbone_config
        if backbone is None:
            return
        if self.encoder_attention != "causal":
            raise ValueError(
                f"encoder_attention={self.encoder_attention!r} cannot be used with a backbone, whose states are causal: set it to 'causal'"
            )
        vocab_size = backbone.get_text_config().vocab_size
        if vocab_size != self.vocab_size:
            raise ValueError(
                f"vocab_size={self.vocab_size} is not the backbone's {vocab_size}: use the backbone's own tokenizer and vocabulary"
            )
