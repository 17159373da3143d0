"""Trains a Transformer language model as the backbone of a teacher, in the way the teacher will read it."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from ..batch import Batch
from ..models.backbone_smt import read_backbone
from ..utils.described import described
from .arguments import TimedTrainingArguments
from .bptt import plan_for, readout_loss, readout_targets
from .supported import LANGUAGE_MODEL, check_partners
from .terms import Step, Term
from .trainer import TermsTrainer


@described
@dataclass
class LmTrainingArguments(TimedTrainingArguments):
    """Arguments of [`LmTrainer`]."""

    context_length: int = field(default=128, metadata={"help": "Number of tokens of a window that the model reads."})

    @property
    def window_length(self) -> int:
        """Number of tokens per window must have: the context and the target of its last token."""
        return self.context_length + 1


class LmOutput(NamedTuple):
    """The inputs of the loss.

    logits: `(B, T, V)`, for the next token after every token.
    start_logits: `(V,)`, for the first token of a document, after the bos token; `None` if the model has no bos token.
    """

    logits: torch.Tensor
    start_logits: torch.Tensor | None


class LmTrainer(TermsTrainer):
    """Trains any model of `AutoModelForCausalLM` that takes masks and positions on the next token.

    Documents in a window do not see each other, and each follows the model's bos token, if it has one, just as a teacher reads
    its backbone. The stock `Trainer` makes good backbones too.

    Args:
        model: the language model.
        args: [`LmTrainingArguments`].
        **kwargs: those of `transformers.Trainer`; the data are those of [`BpttTrainer`].

    Raises:
        InputError: if model or data do not fit the arguments.
        FloatingPointError: if a loss is not finite; raised before the weights are updated.
    """

    terms = (Term("readout", 1.0, "", readout_loss, readout_targets),)
    counted = "tokens"
    recurrent = False

    def __init__(self, model, args, **kwargs):
        check_partners(args, LmTrainingArguments, model=(model, LANGUAGE_MODEL))
        super().__init__(model=model, args=args, **kwargs)

    def weight(self, name):
        return 1.0  # the next-token loss is the only term

    def draw_plan(self, batch: Batch, generator):
        return plan_for(batch, self.model.config.bos_token_id is not None)

    def run(self, model, step: Step) -> LmOutput:
        batch, unwrapped = step.batch.first(step.plan.length), self.accelerator.unwrap_model(model)
        read = read_backbone(unwrapped, batch.input_ids, batch.documents, logits=True, wrapped=model)
        return LmOutput(read.logits, read.start_logits[0] if step.plan.trains_start else None)

    def num_counted(self, step):
        batch = step.batch.first(step.plan.length)
        return batch.input_ids.numel() if batch.documents is None else (batch.documents >= 0).sum()
