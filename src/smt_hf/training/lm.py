"""A Transformer language model, the backbone of a teacher: trained as the teacher will read it."""

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

    context_length: int = field(default=128, metadata={"help": "Tokens of a window that the model reads."})

    @property
    def window_length(self) -> int:
        """Tokens a window must have: the context and the target of its last token."""
        return self.context_length + 1


class LmOutput(NamedTuple):
    """What the loss reads.

    logits: `(B, T, V)`, of the next token after every token.
    start_logits: `(V,)`, of the first token of a document, after the bos token; `None` for a model without one.
    """

    logits: torch.Tensor
    start_logits: torch.Tensor | None


class LmTrainer(TermsTrainer):
    """Trains any model of `AutoModelForCausalLM` that takes masks and positions on the next token.

    Documents in a window do not see each other, and each begins after the model's bos token, if it has one, as a teacher reads
    its backbone. The stock `Trainer` makes good backbones too.

    Args:
        model: the language model.
        args: [`LmTrainingArguments`].
        **kwargs: those of `transformers.Trainer`; the data are those of [`BpttTrainer`].

    Raises:
        InputError: if model or data are not what the arguments need.
        FloatingPointError: when a loss is no finite number, before it reaches the weights.
    """

    terms = (Term("readout", 1.0, "", readout_loss, readout_targets),)
    counted = "tokens"
    recurrent = False

    def __init__(self, model, args, **kwargs):
        check_partners(args, LmTrainingArguments, model=(model, LANGUAGE_MODEL))
        super().__init__(model=model, args=args, **kwargs)

    def weight(self, name):
        return 1.0  # the next-token loss is all there is

    def draw_plan(self, batch: Batch, generator):
        return plan_for(batch, self.model.config.bos_token_id is not None)

    def run(self, model, step: Step) -> LmOutput:
        batch, unwrapped = step.batch.first(step.plan.length), self.accelerator.unwrap_model(model)
        read = read_backbone(unwrapped, batch.input_ids, batch.documents, logits=True, wrapped=model)
        return LmOutput(read.logits, read.start_logits[0] if step.plan.trains_start else None)

    def num_counted(self, step):
        batch = step.batch.first(step.plan.length)
        return batch.input_ids.numel() if batch.documents is None else (batch.documents >= 0).sum()
