"""Small language models of three architectures, to build teachers on."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from smt_hf import SmtConfig, SmtForPreTraining, SmtTeacherConfig
from smt_hf.models import student_config_for

SIZES = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
MODELS = {
    "llama": {"intermediate_size": 64, "bos_token_id": 1, "eos_token_id": 1, "tie_word_embeddings": True},
    "gpt2": {"bos_token_id": None, "eos_token_id": 1},
    "qwen3": {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 12, "bos_token_id": 0},
}


def language_model(name="llama", vocab_size=20, seed=0, dtype=torch.float64, **overrides):
    """A language model whose predictions differ from token to token."""
    config = AutoConfig.for_model(name, vocab_size=vocab_size, **{**SIZES, **MODELS[name], **overrides})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model


def model_on(backbone, seed=0, cell_type="transformer", **overrides):
    """A teacher on a language model and its student, begun from it, in the language model's dtype."""
    sizes = {
        "hidden_size": 32,
        "num_memory_tokens": 3,
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
        "num_attention_heads": 4,
        "initializer_range": 0.1,
        "vocab_size": backbone.config.vocab_size,
    }
    teacher = SmtTeacherConfig(**{**sizes, **overrides}, backbone_config=backbone.config)
    student = student_config_for(teacher, num_updater_layers=2, cell_type=cell_type)
    config = SmtConfig(teacher_config=teacher, student_config=student)
    torch.manual_seed(seed)
    model = SmtForPreTraining(config)
    model.start_from_backbone(backbone)
    return model.to(backbone.dtype).eval()
