"""The base of all models: loading that never initialises a weight at random unless asked to."""

import copy

from torch import nn
from transformers import PreTrainedModel

# The Auto class that loads each class. A folder to which one of these was saved includes its code and names it, so that
# `trust_remote_code=True` loads it without this package; so do folders of a model's parts, wherever its code came from.
_AUTO_CLASSES = {
    "SmtRnnModel": "AutoModel",
    "SmtRnnForCausalLM": "AutoModelForCausalLM",
    "SmtRnnForSequenceClassification": "AutoModelForSequenceClassification",
    "SmtTeacherModel": "AutoModel",
    "SmtForPreTraining": "AutoModelForPreTraining",
}


class SmtPreTrainedModel(PreTrainedModel):
    """Base class of teacher, student and the joint model."""

    supports_gradient_checkpointing = True
    _no_split_modules = ["SmtBlock"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Prefixes of the weights that a checkpoint of another class may lack, and of those that it may hold in addition.
    _absent_elsewhere = ()
    _further_elsewhere = ()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls._auto_class = _AUTO_CLASSES.get(cls.__name__, cls._auto_class)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *model_args,
        strict: bool = True,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **kwargs,
    ):
        """As [`~transformers.PreTrainedModel.from_pretrained`], but refuses weights that do not match the model.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            strict: refuse a checkpoint with missing or unexpected weights. `False` initialises missing weights at random and
                ignores unexpected ones, like other models of the library.
            ignore_mismatched_sizes: initialise at random the weights whose shape in the checkpoint differs from the configuration.
            output_loading_info: also return the library's dictionary of missing, unexpected and mismatched weights.

        Raises:
            ValueError: naming weights that are missing, unexpected or of another shape, or that differ although the
                configuration ties them.
        """
        model, info = super().from_pretrained(
            pretrained_model_name_or_path,
            *model_args,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
            **kwargs,
        )
        faults = weight_faults(model, info, strict, ignore_mismatched_sizes)
        if faults:
            raise ValueError(
                f"{str(pretrained_model_name_or_path)!r} does not contain the weights of a {cls.__name__} with its "
                f"configuration ({faults}): fix the checkpoint or the configuration, or initialize missing weights with "
                "strict=False, which leaves out unexpected ones, and weights of other shapes with ignore_mismatched_sizes=True"
            )
        return (model, info) if output_loading_info else model

    def load_state_dict(self, state_dict, *args, **kwargs):
        """As [`torch.nn.Module.load_state_dict`], but a tied weight may have any one of its names."""
        if self.all_tied_weights_keys:
            tensors = self.state_dict(keep_vars=True)
            given = {id(tensors[name]): name for name in tensors if name in state_dict}
            state_dict = copy.copy(state_dict)
            for name, tensor in tensors.items():
                if name not in state_dict and id(tensor) in given:
                    state_dict[name] = state_dict[given[id(tensor)]]
        return super().load_state_dict(state_dict, *args, **kwargs)


def weight_faults(model: SmtPreTrainedModel, info: dict, strict: bool = True, any_shape: bool = False) -> str:
    """Describes how a checkpoint does not match its model.

    Args:
        model: the loaded model.
        info: the loading info that `from_pretrained(..., output_loading_info=True)` returned with it.
        strict: report missing, unexpected and untied weights.
        any_shape: do not report other shapes.

    Returns:
        The faults and the first weights of each, in one line; empty if there are none.
    """
    faults = {}
    if strict:
        own = type(model).__name__ in (model.config.architectures or [])
        absent, further = () if own else model._absent_elsewhere, model._further_elsewhere
        faults["missing"] = [name for name in info["missing_keys"] if not name.startswith(absent)]
        faults["unexpected"] = [name for name in info["unexpected_keys"] if not name.startswith(further)]
        tied = model.get_expanded_tied_weights_keys(all_submodels=True)
        faults["not tied though tie_word_embeddings=True"] = set(tied) - set(model.all_tied_weights_keys)
    if not any_shape:
        faults["of another shape"] = [
            f"{name} {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]
        ]
    return "; ".join(f"{fault}: {first_of(names)}" for fault, names in faults.items() if names)


def missing_weights(model: nn.Module, names) -> list[str]:
    """Of the `names` that `load_state_dict` did not find, those whose tensor was not found under another name either."""
    tensors = model.state_dict(keep_vars=True)
    found = {id(tensor) for name, tensor in tensors.items() if name not in names}
    return [name for name in names if id(tensors[name]) not in found]


def first_of(names) -> str:
    """The first three names, and the number of further ones."""
    names = sorted(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
