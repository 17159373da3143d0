"""Guidance: images drawn so that the student itself becomes more certain of their class."""

import torch
from transformers import LogitsProcessor

from .models import SmtImageProcessor, SmtRnnCache, SmtRnnForCausalLM


class ClassGuidance(LogitsProcessor):
    """Makes pixels likelier that speak for an image's class, for `generate()` with a class-conditional student.

    The student reads every image as each of its C classes in turn. By Bayes' rule this gives the probability of every class after
    the pixels so far, and what each level of the next pixel would add to that of the image's own class. Pixels are drawn from
    `p(pixel | class) p(class | pixels) ** (strength - 1)`, normalised: classifier guidance (Dhariwal & Nichol 2021) in which the
    student is its own classifier. It costs C times the student's steps, and one memory per image and class.

    Args:
        student: trained on images with classes.
        processor: the image processor that the student was trained with.
        strength: 1 changes nothing.
    """

    def __init__(self, student: SmtRnnForCausalLM, processor: SmtImageProcessor, strength: float):
        self.student, self.strength = student, strength
        self.num_classes, self.num_levels = processor.num_classes, processor.num_levels
        self.cache = SmtRnnCache()
        self.evidence: torch.Tensor | None = None  # (B, C), ln p(pixels so far | class)
        self.log_probs: torch.Tensor | None = None  # (B, C, L), ln p(next pixel | pixels so far, class)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Replaces the scores of the next pixel.

        Args:
            input_ids: `(B, T)`: the class tokens and the pixels so far, one more than at the call before.
            scores: `(B, V)`; levels with a score of minus infinity keep it.

        Returns:
            The guided scores `(B, V)`, minus infinity for ids that are not pixels.
        """
        evidence, log_probs = self.read(input_ids)
        own = log_probs[torch.arange(len(input_ids), device=input_ids.device), input_ids[:, 0] - self.num_levels]
        mixture = torch.logsumexp(log_probs + torch.log_softmax(evidence, dim=1)[..., None], dim=1)
        guided = torch.full_like(scores, -torch.inf)
        guided[:, : self.num_levels] = own + (self.strength - 1) * (own - mixture)
        return guided.masked_fill(scores == -torch.inf, -torch.inf)

    def read(self, input_ids: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads the new ids of all images, as every class; returns `evidence` and `log_probs`."""
        before = self.log_probs
        new = (input_ids if before is None else input_ids[:, -1:]).repeat_interleave(self.num_classes, dim=0)
        if before is None:
            classes = torch.arange(self.num_classes, device=input_ids.device) + self.num_levels
            new[:, 0] = classes.repeat(len(input_ids))
        logits = self.student(new, cache=self.cache, use_cache=True).logits[..., : self.num_levels].float()
        log_probs = torch.log_softmax(logits, dim=-1).unflatten(0, (len(input_ids), self.num_classes))
        if before is None:
            pixels = input_ids[:, None, 1:, None].expand(-1, self.num_classes, -1, -1)
            evidence = log_probs[:, :, :-1].gather(-1, pixels).sum(dim=(2, 3))
        else:
            pixel = input_ids[:, None, -1:].expand(-1, self.num_classes, -1)
            evidence = self.evidence + before.gather(-1, pixel).squeeze(-1)
        self.evidence, self.log_probs = evidence, log_probs[:, :, -1]
        return self.evidence, self.log_probs
