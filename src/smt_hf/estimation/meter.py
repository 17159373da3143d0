"""Counts what runs on tensors without data: operations, bytes moved, and the memory held at the same time."""

import weakref
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

F = torch.nn.functional
NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach",
    "_unsafe_view",
    "lift_fresh",
}
GATHERS = {"embedding", "index", "index_select", "gather"}  # read as much as they write, however large their source is


@dataclass
class Meter:
    """The counts.

    Attributes:
        kernels: number of kernels that ran, by (FLOPs, bytes, whether in 16 bits).
        held: bytes currently held.
        gradients: bytes of these that are gradients of parameters.
        peak: the most bytes held at once, and the gradients among them.
    """

    kernels: Counter = field(default_factory=Counter)
    held: int = 0
    gradients: int = 0
    peak: tuple[int, int] = (0, 0)

    @property
    def flops(self) -> int:
        return sum(flops * number for (flops, _, _), number in self.kernels.items())

    @property
    def bytes_moved(self) -> int:
        return sum(moved * number for (_, moved, _), number in self.kernels.items())

    @property
    def num_kernels(self) -> int:
        return sum(self.kernels.values())

    def ran(self, flops: int, moved: int, narrow: bool) -> None:
        self.kernels[int(flops), int(moved), narrow] += 1

    def hold(self, storage) -> None:
        """Counts a storage as held until it is freed."""
        size = storage.nbytes()
        self.held += size
        if self.held > self.peak[0]:
            self.peak = self.held, self.gradients
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.held -= size


class Metered(TorchDispatchMode):
    """Counts what runs on the meta device in a [`Meter`]. What a plan computes on the CPU is not counted."""

    def __init__(self, meter: Meter):
        super().__init__()
        self.meter = meter
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_meta]
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.is_meta]
        if not made and not read:
            return output
        for tensor in read:
            self._known.add(tensor.untyped_storage())  # existed before
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known.add(storage)
                self.meter.hold(storage)
        name = function._schema.name.partition("::")[2]
        views = any(each.alias_info is not None and not each.alias_info.is_write for each in function._schema.returns)
        if views or name in NO_KERNEL:
            return output
        count = flop_registry.get(function._overloadpacket)
        flops = count(*args, **kwargs, out_val=output) if count is not None else 0
        written = sum(map(_size, made))
        taken = written if name in GATHERS else sum(map(_size, read))
        self.meter.ran(flops, taken + written, any(each.element_size() == 2 for each in made))
        return output


def _size(tensor: torch.Tensor) -> int:
    """Bytes that a kernel reads or writes of a tensor; expanded dimensions are read once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


class FusedAttention(torch.autograd.Function):
    """Attention like that of fused kernels, which never hold the weights. Inputs are `(B, heads, L, head_size)` each."""

    @staticmethod
    def forward(ctx, meter, query, key, value, mask):
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, output, sums, mask)
        ctx.meter = meter
        FusedAttention.count(meter, 2, (query, key, value, output, mask))
        return output

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, output, _, mask = ctx.saved_tensors
        FusedAttention.count(ctx.meter, 4, (query, key, value, output, mask, gradient, query, key, value))
        return None, query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape), None

    @staticmethod
    def count(meter: Meter, products: int, tensors) -> None:
        """Counts products of queries with keys or of weights with values; recomputed ones are not counted, as everywhere."""
        query, key = tensors[:2]
        flops = products * 2 * query.numel() * key.shape[-2]
        moved = sum(_size(tensor) for tensor in tensors if tensor is not None)
        meter.ran(flops, moved, query.element_size() == 2)


# What autocast runs in 16 bits and in 32; everything else runs in the dtype of its inputs.
NARROW = {
    F.linear, torch.matmul, torch.bmm, torch.mm, torch.addmm, torch.einsum, torch.Tensor.matmul, torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__, torch.gru_cell, torch.lstm_cell, torch.rnn_tanh_cell,
}  # fmt: skip
WIDE = {
    F.softmax, F.log_softmax, F.cross_entropy, F.normalize, torch.softmax, torch.log_softmax, torch.Tensor.log_softmax, torch.exp,
    torch.Tensor.exp, torch.log, torch.Tensor.log, torch.Tensor.sum, torch.sum, torch.pdist,
}  # fmt: skip


class Kernels(TorchFunctionMode):
    """Fused attention and, if requested, autocast to bfloat16, neither of which the meta device has."""

    def __init__(self, meter: Meter, autocast: bool):
        super().__init__()
        self.meter, self.autocast = meter, autocast
        self._cast = {}  # weights are cast once per step

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return self.attend(*args, **kwargs)
        if self.autocast and function in NARROW:
            args = torch.utils._pytree.tree_map(self.narrow, args)
        elif self.autocast and function in WIDE:
            args = torch.utils._pytree.tree_map(lambda each: each.float() if _is_narrow(each) else each, args)
        return function(*args, **kwargs)

    def attend(self, query, key, value, attn_mask=None, **options):
        if self.autocast:
            query, key, value = map(self.narrow, (query, key, value))
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(query.dtype)
        return FusedAttention.apply(self.meter, query, key, value, attn_mask)

    def narrow(self, each):
        """Casts a float32 tensor to bfloat16."""
        if not (isinstance(each, torch.Tensor) and each.is_meta and each.dtype == torch.float32):
            return each
        if not (each.is_leaf and each.requires_grad):
            return each.bfloat16()
        if id(each) not in self._cast:
            self._cast[id(each)] = each.bfloat16()
        return self._cast[id(each)]


def _is_narrow(each) -> bool:
    return isinstance(each, torch.Tensor) and each.is_meta and each.dtype == torch.bfloat16
