"""No step of a trainer waits for its device: on tensors without numbers, nothing can be read.

The meta device stands for a GPU whose numbers never come: `.item()`, `.tolist()`, a copy to the host, `nonzero` and a mask as an
index all fail there, while what a plan computes on the CPU goes on as it does beside a GPU.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smt_hf.batch import Batch
from smt_hf.estimation.trace import meta_batch, meta_trainer
from smt_hf.training.terms import step_generator
from tests.conftest import tiny_config
from tests.estimation.test_trace import KINDS, arguments

# What makes the host wait for a GPU, or gives a shape that depends on numbers.
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique_consecutive",
    "_unique2",
    "bincount",
}


class Waits(TorchDispatchMode):
    """Notes what waits; what fails on the meta device by itself is noted too."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(tensor.is_meta for tensor in tensors)
        name = function._schema.name.partition("::")[2]
        mask = name in ("index", "index_put_", "_index_put_impl_") and any(
            tensor.is_meta and tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:]
        )
        if on_device and (name in WAITS or mask):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda numbers: numbers.sum().item(),
        lambda numbers: numbers.tolist(),
        lambda numbers: numbers.nonzero(),
        lambda numbers: numbers[numbers > 0],
        lambda numbers: bool(numbers.any()),
        lambda numbers: numbers.cpu(),
        lambda numbers: numbers.unique(),
    ],
)
def test_what_waits_is_found(wait):
    with pytest.raises((RuntimeError, NotImplementedError)), Waits():
        wait(torch.ones(3, device="meta"))


def rows_of(batch: Batch, data: str) -> Batch:
    """The batch with other columns, as other data have them."""
    columns = {"input_ids": batch.input_ids, "documents": batch.documents}
    if data == "padded":
        columns["attention_mask"] = torch.ones_like(batch.input_ids)
    if data == "labelled":
        columns["shift_labels"] = torch.ones_like(batch.input_ids)
    if data == "plain":
        del columns["documents"]
    return Batch.of(columns)


@pytest.mark.parametrize("name", KINDS)
def test_no_step_waits(name, tmp_path):
    run_on_meta(name, tmp_path, lambda batch: batch)


@pytest.mark.parametrize("data", ["padded", "labelled", "plain"])
@pytest.mark.parametrize("name", ["SMT", "DMT by sweeps", "BPTT"])
def test_no_data_make_a_step_wait(name, data, tmp_path):
    run_on_meta(name, tmp_path, lambda batch: rows_of(batch, data))


@pytest.mark.parametrize("cell", ["mlp", "elman", "gru", "lstm"])
def test_no_cell_waits(cell, tmp_path):
    run_on_meta("SMT in segments", tmp_path, lambda batch: batch, cell)


def run_on_meta(name, tmp_path, rows, cell="transformer"):
    kind, more = KINDS[name]
    args, config = arguments(kind, tmp_path, **more), tiny_config(vocab_size=258, num_memory_tokens=4)
    config.student_config.cell_type = cell
    trainer = meta_trainer(config.student_config if kind == "bptt" else config, args)
    trainer.model.train()
    trainer.state.global_step = 1  # the first step checks the labels, once
    batch, waits = rows(meta_batch(args)), Waits()
    with waits:
        step = trainer.step_of(batch, trainer.draw_plan(batch, step_generator(0, 1)), (0, 1))
        trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        step.counts()
    assert not waits.found
