"""Configurations and models; importing this package registers the Auto classes."""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
)
from transformers.utils import is_vision_available

from .cache_smt_rnn import SmtRnnCache
from .cells_smt_rnn import Cell
from .configuration_smt import SmtConfig, check_fit, student_config_for
from .configuration_smt_rnn import SmtRnnConfig
from .configuration_smt_teacher import SmtTeacherConfig
from .image_processing_smt import SmtImageProcessor
from .layers_smt import normalize_memory
from .memory_smt_rnn import SmtMemory
from .modeling_smt import SmtForPreTraining
from .modeling_smt_rnn import SmtRnnForCausalLM, SmtRnnForSequenceClassification, SmtRnnModel
from .modeling_smt_teacher import SmtTeacherModel

for _config in (SmtRnnConfig, SmtTeacherConfig, SmtConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
AutoModel.register(SmtRnnConfig, SmtRnnModel, exist_ok=True)
AutoModel.register(SmtTeacherConfig, SmtTeacherModel, exist_ok=True)
AutoModelForCausalLM.register(SmtRnnConfig, SmtRnnForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(SmtRnnConfig, SmtRnnForSequenceClassification, exist_ok=True)
AutoModelForPreTraining.register(SmtConfig, SmtForPreTraining, exist_ok=True)
if is_vision_available():  # images need Pillow
    AutoImageProcessor.register(SmtRnnConfig, image_processor_classes={"pil": SmtImageProcessor}, exist_ok=True)

# As for models and configurations, a saved folder includes the code.
SmtImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = [
    "Cell",
    "SmtConfig",
    "SmtForPreTraining",
    "SmtImageProcessor",
    "SmtMemory",
    "SmtRnnCache",
    "SmtRnnConfig",
    "SmtRnnForCausalLM",
    "SmtRnnForSequenceClassification",
    "SmtRnnModel",
    "SmtTeacherConfig",
    "SmtTeacherModel",
    "check_fit",
    "normalize_memory",
    "student_config_for",
]
