"""Configurations and models; importing this package registers the Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForPreTraining

from .cache_smt_rnn import SmtRnnCache
from .configuration_smt import SmtConfig, check_fit, student_config_for
from .configuration_smt_rnn import SmtRnnConfig
from .configuration_smt_teacher import SmtTeacherConfig
from .modeling_smt import SmtForPreTraining
from .modeling_smt_rnn import SmtRnnForCausalLM, SmtRnnModel
from .modeling_smt_teacher import SmtTeacherModel

for _config in (SmtRnnConfig, SmtTeacherConfig, SmtConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
AutoModel.register(SmtRnnConfig, SmtRnnModel, exist_ok=True)
AutoModel.register(SmtTeacherConfig, SmtTeacherModel, exist_ok=True)
AutoModelForCausalLM.register(SmtRnnConfig, SmtRnnForCausalLM, exist_ok=True)
AutoModelForPreTraining.register(SmtConfig, SmtForPreTraining, exist_ok=True)

__all__ = [
    "SmtConfig",
    "SmtForPreTraining",
    "SmtRnnCache",
    "SmtRnnConfig",
    "SmtRnnForCausalLM",
    "SmtRnnModel",
    "SmtTeacherConfig",
    "SmtTeacherModel",
    "check_fit",
    "student_config_for",
]
