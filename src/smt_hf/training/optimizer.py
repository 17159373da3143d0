"""Muon for the weight matrices of the Transformer blocks, AdamW for everything else."""

import torch

from ..models.layers_smt import SmtBlock


class MuonAndAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` and `torch.optim.AdamW` as one optimiser.

    Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix; scaled to the size of AdamW's updates
    (`match_rms_adamw`), both share one learning rate and weight decay.

    Args:
        model: matrices inside its Transformer blocks go to Muon; embeddings, output heads, norms, registers to AdamW.
        lr, betas, eps: as in AdamW. weight_decay: of the matrices and embeddings, not of vectors.
    """

    def __init__(self, model, lr: float, betas=(0.9, 0.95), eps: float = 1e-8, weight_decay: float = 0.01):
        blocks = [module for module in model.modules() if isinstance(module, SmtBlock)]
        in_blocks = {id(p) for block in blocks for p in block.parameters() if p.dim() == 2}
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if id(p) in in_blocks]
        others = [p for p in trained if id(p) not in in_blocks]
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
