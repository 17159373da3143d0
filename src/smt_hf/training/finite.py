"""Ends a training when a loss is not finite, before it reaches the weights and without waiting for a device."""

import math

import torch
from transformers import TrainerCallback


class OnItsWay:
    """A small tensor in transfer to the host, which can be read without waiting for later work on its device.

    Args:
        values: a tensor on any device.
    """

    def __init__(self, values: torch.Tensor):
        self.values, self.arrived = values, None
        if values.device.type == "cuda":
            self.values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def tolist(self) -> list[float]:
        """The values, once they have arrived."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.tolist()


class FiniteLoss(TrainerCallback):
    """Checks the losses of an optimiser step after its backward passes and before the update of the weights.

    By then a GPU has long computed the losses and is busy with the gradients.
    """

    def __init__(self):
        self._noted = []

    def note(self, loss: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """Notes the loss of a micro-batch and the contributions of its terms, all scalars."""
        values = torch.stack([loss, *parts.values()]).detach()
        self._noted.append((list(parts), OnItsWay(values)))

    def on_train_begin(self, args, state, control, **kwargs):
        self._noted = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        """Checks the losses noted since the previous step.

        Raises:
            FloatingPointError: if one is not finite, with the step, the loss, its terms and the remedy.
        """
        noted, self._noted = self._noted, []
        for names, values in noted:
            loss, *parts = values.tolist()
            if not math.isfinite(loss):
                said = ", ".join(f"{name}={part:.4g}" for name, part in zip(names, parts, strict=True))
                raise FloatingPointError(
                    f"the loss became {loss} at step {state.global_step + 1} ({said}): lower learning_rate (now "
                    f"{optimizer.param_groups[0]['lr']:.3g}) or max_grad_norm, and resume from the last checkpoint"
                )
