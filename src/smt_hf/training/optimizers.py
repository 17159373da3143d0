"""Muon for the hidden weight matrices, AdamW for everything else."""

import math
from functools import lru_cache

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from .sharding import share_of, whole_of

HEADS = ("lm_head", "stream_head", "score")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "arm_bf16")  # torch's names of the CPU instructions for bfloat16 products


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, but its iteration runs in float32 on a CPU without bfloat16 instructions.

    torch orthogonalises in bfloat16. Compared with float32, that takes 12 to 25 times as long for the matrices of a small
    student without such instructions, more than the whole forward and backward pass, and half as long with them.

    If a matrix is sharded (FSDP2), so is its momentum, but the iteration needs the whole matrix. Every process gathers the
    update, orthogonalises it as a single process would, and keeps its own shard.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """As in torch, which also handles unsharded matrices on devices other than the CPU."""
        matrices = [p for group in self.param_groups for p in group["params"]]
        if any(p.device.type != "cpu" for p in matrices) and not any(isinstance(p, DTensor) for p in matrices):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._step_matrix(matrix, group)
        return loss

    def _step_matrix(self, matrix: torch.Tensor, group: dict) -> None:
        gradient, state = matrix.grad, self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient, memory_format=torch.preserve_format)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        dtype = iteration_dtype() if matrix.device.type == "cpu" else torch.bfloat16
        update = whole_of(update).to(dtype)
        update = orthogonalized(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        scale = 0.2 * math.sqrt(max(matrix.shape))  # match_rms_adamw
        matrix.add_(share_of(update.to(matrix.dtype), matrix), alpha=-group["lr"] * scale)


@lru_cache
def iteration_dtype() -> torch.dtype:
    """The dtype in which this CPU orthogonalises matrices."""
    able_to = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if any(able_to.get(name) for name in BFLOAT16) else torch.float32


def orthogonalized(matrix: torch.Tensor, coefficients, num_steps: int, eps: float) -> torch.Tensor:
    """Approximates the nearest semi-orthogonal matrix: the quintic Newton-Schulz iteration of Muon (Jordan et al. 2024).

    Args:
        matrix: `(M, N)`, in the dtype to iterate in.
        coefficients: a, b, c of the quintic.
        num_steps: number of iterations.
        eps: smallest norm to divide by.
    """
    a, b, c = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(num_steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class MuonAndAdamW(torch.optim.Optimizer):
    """[`Muon`] and `torch.optim.AdamW` as one optimiser.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix. Its updates are scaled to the size of AdamW's
    (`match_rms_adamw`), so both share one learning rate and weight decay. It trains the hidden matrices, see
    [`hidden_matrices`].

    Args:
        model: the model to train.
        lr, betas, eps: as in AdamW. weight_decay: for matrices and embeddings, not for vectors.
    """

    def __init__(self, model, lr: float, betas=(0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.01):
        hidden = {id(matrix) for matrix in hidden_matrices(model)}
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if id(p) in hidden]
        others = [p for p in trained if id(p) not in hidden]
        self.muon = Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(
            [
                {"params": [p for p in others if p.dim() > 1]},
                {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
        )
        super().__init__(trained, {"lr": lr})
        self.share_groups()

    def share_groups(self) -> None:
        """Exposes the groups and the state of both optimisers as its own."""
        self.param_groups = self.muon.param_groups + self.adamw.param_groups  # the same dictionaries
        self.state = {**self.muon.state, **self.adamw.state}

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self):
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict):
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self.share_groups()


def hidden_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices that Muon is made for: those between embedding and head, in any kind of layer or cell.

    Embeddings, output heads and a model's direct parameters, such as memory registers and an initial memory, are left out.
    """
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    heads = [getattr(each, name) for each in models for name in HEADS if getattr(each, name, None) is not None]
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    outside = {id(p) for each in models for p in each.parameters(recurse=False)}
    outside |= {id(p) for end in heads + embeddings for p in end.parameters()}
    return [p for p in model.parameters() if p.dim() == 2 and id(p) not in outside]


def with_own_rate(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter], lr: float) -> None:
    """Gives some of an optimizer's parameters a separate learning rate, before its first step.

    Args:
        optimizer: any torch optimizer, or [`MuonAndAdamW`].
        parameters: parameters of the model; those that the optimizer does not train are ignored.
        lr: their peak learning rate.
    """
    own = {id(parameter) for parameter in parameters}
    parts = [optimizer.muon, optimizer.adamw] if isinstance(optimizer, MuonAndAdamW) else [optimizer]
    for part in parts:
        for group in list(part.param_groups):
            chosen = [parameter for parameter in group["params"] if id(parameter) in own]
            if chosen:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
                part.add_param_group({**group, "params": chosen, "lr": lr})
    if isinstance(optimizer, MuonAndAdamW):
        optimizer.share_groups()
