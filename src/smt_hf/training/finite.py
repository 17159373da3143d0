"""A loss that is no finite number ends a training before it reaches the weights, and no device is waited for."""

import math

import torch
from transformers import TrainerCallback


class OnItsWay:
    """A small tensor on its way to the host, where it is read without waiting for what its device was given after it.

    Args:
        values: on any device.
    """

    def __init__(self, values: torch.Tensor):
        self.values, self.arrived = values, None
        if values.device.type == "cuda":
            self.values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def tolist(self) -> list[float]:
        """The numbers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.values.tolist()


class FiniteLoss(TrainerCallback):
    """Looks at the losses of an optimiser step between its backward passes and the change of the weights.

    By then a GPU has long computed the losses, and is busy with the gradients.
    """

    def __init__(self):
        self._noted = []

    def note(self, loss: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """Keeps the loss of a micro-batch and the shares of its terms, all scalars."""
        values = torch.stack([loss, *parts.values()]).detach()
        self._noted.append((list(parts), OnItsWay(values)))

    def on_train_begin(self, args, state, control, **kwargs):
        self._noted = []

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        """Looks at what was noted since the step before.

        Raises:
            FloatingPointError: with the step, the loss, its terms and the remedy.
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
