"""Weights that are sharded across processes (FSDP2): gathering them for code outside a model's forward, and for saving.

A checkpoint holds whole tensors however many processes wrote it, so any number of processes can resume from it, sharded or not.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

_METHOD = "run_gathered"


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether the weights of a model are sharded across processes."""
    return isinstance(model, FSDPModule)


def gathered(model: torch.nn.Module, function: Callable[[], Any]) -> Any:
    """Calls a function that reads the weights outside the model's forward; every process has to call it.

    FSDP2 gathers weights around a forward, and this call counts as one, with or without a gradient. The weights stay gathered
    until the next backward pass or [`scatter`]; a weight written to in the meantime is not the process's own shard.
    """
    if not is_sharded(model):
        return function()
    if not hasattr(model, _METHOD):
        setattr(model, _METHOD, MethodType(lambda _, function: function(), model))
        register_fsdp_forward_method(model, _METHOD)
    return getattr(model, _METHOD)(function)


def scatter(model: torch.nn.Module) -> None:
    """Leaves every process only its own shard of the weights, if they are sharded."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def share_of(whole: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Shards a tensor that all processes have in the same way as a parameter; unchanged if the parameter is not sharded.

    Nothing is sent: every process keeps a part of its own copy.
    """
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(
        whole.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def whole_of(value):
    """Gathers a tensor from all processes if it is sharded; returns anything else unchanged."""
    return value.full_tensor() if isinstance(value, DTensor) else value


# ---- checkpoints -------------------------------------------------------------------------------------------------------


def load_whole_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]):
    """Gives every process its shard of whole weights that all processes have; returns missing and unexpected names."""
    scatter(model)
    options = StateDictOptions(full_state_dict=True, strict=False)
    return set_model_state_dict(model, weights, options=options)


def whole_optimizer_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict:
    """An optimizer's `state_dict` with whole tensors on the CPU.

    Every process has to call it, because each sends its shards; a process with `keep=False` gets no tensors.
    """

    def gather(value):
        if not isinstance(value, torch.Tensor):
            return value
        whole = whole_of(value)
        return whole.cpu() if keep else None

    return tree_map(gather, optimizer.state_dict())


def share_of_state(optimizer: torch.optim.Optimizer, state_dict: dict) -> dict:
    """Shards a `state_dict` of whole tensors for an optimizer of sharded parameters."""
    if "state" not in state_dict:  # of several optimizers
        return {name: share_of_state(getattr(optimizer, name), part) for name, part in state_dict.items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {}
    for number, values in state_dict["state"].items():
        parameter = parameters[number]
        shared = {name: value for name, value in values.items() if getattr(value, "shape", None) == parameter.shape}
        state[number] = {**values, **{name: share_of(value, parameter) for name, value in shared.items()}}
    return {**state_dict, "state": state}


@contextmanager
def under_its_own_class(model: torch.nn.Module) -> Iterator[None]:
    """Restores the original class of a model, which FSDP2 replaces, because saved models name their class and include its code."""
    sharded = type(model)
    model.__class__ = sharded.__bases__[1]
    try:
        yield
    finally:
        model.__class__ = sharded
