"""Muon for the hidden weight matrices, AdamW for everything else."""

import torch
from transformers import PreTrainedModel

HEADS = ("lm_head", "stream_head", "score")


class MuonAndAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` as one optimiser.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; scaled to the size of AdamW's updates
    (`match_rms_adamw`), both share one learning rate and weight decay. It is for hidden matrices, see [`hidden_matrices`].

    Args:
        model: whose parameters are trained.
        lr, betas, eps: as in AdamW. weight_decay: of the matrices and embeddings, not of vectors.
    """

    def __init__(self, model, lr: float, betas=(0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.01):
        hidden = {id(matrix) for matrix in hidden_matrices(model)}
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if id(p) in hidden]
        others = [p for p in trained if id(p) not in hidden]
        self.muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
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
        self._share_groups()

    def _share_groups(self):
        self.param_groups = self.muon.param_groups + self.adamw.param_groups  # the very dictionaries
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
        self._share_groups()


def hidden_matrices(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The matrices between embedding and head, of whatever kind of layer or cell: what Muon is made for.

    Left out are embeddings, output heads, and what a model holds itself, such as memory registers and an initial memory.
    """
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    heads = [getattr(each, name) for each in models for name in HEADS if getattr(each, name, None) is not None]
    embeddings = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    outside = {id(p) for each in models for p in each.parameters(recurse=False)}
    outside |= {id(p) for end in heads + embeddings for p in end.parameters()}
    return [p for p in model.parameters() if p.dim() == 2 and id(p) not in outside]
