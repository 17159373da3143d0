"""No step of a trainer waits for its device: on tensors without numbers, nothing can be read; from the batch to the changed weights.

The meta device stands for a GPU whose numbers never come: `.item()`, `.tolist()`, a copy to the host, `nonzero` and a mask as an
index all fail there, while what a plan computes on the CPU goes on as it does beside a GPU. A copy to the device that blocks waits too.
"""

import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smt_hf import SmtImageProcessor
from smt_hf.batch import Batch
from smt_hf.data import ImageRows, TokenWindows, build_image_cache
from smt_hf.estimation.trace import meta_batch, meta_trainer
from smt_hf.training.carried_rows import Rows, row_windows
from smt_hf.training.finite import OnItsWay
from smt_hf.training.terms import step_generator
from tests.backbones import language_model, model_on
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
INDEXING = {"index", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Notes what waits; what fails on the meta device by itself is noted too."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(tensor.is_meta for tensor in tensors)
        name = function._schema.name.partition("::")[2]
        mask = name in INDEXING and any(
            tensor.is_meta and tensor.dtype in (torch.bool, torch.uint8) for tensor in tensors[1:]
        )
        if on_device and (name in WAITS or mask):
            self.found.append(name)
        if name in INDEXING and tensors[0].is_meta:  # what indexes it is copied first
            self.found += [name for each in tensors[1:] if not each.is_meta and each.dim()]
        to = torch.device((kwargs or {}).get("device") or "cpu")
        if name == "_to_copy" and to.type == "meta" and not tensors[0].is_meta and not kwargs.get("non_blocking"):
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


@pytest.mark.parametrize(
    "wait",
    [
        lambda numbers: torch.arange(2).to(numbers.device),
        lambda numbers: numbers[torch.arange(2)],
        lambda numbers: numbers.index_put_((torch.arange(2),), numbers[:2]),
    ],
)
def test_a_copy_that_blocks_is_found(wait):
    waits = Waits()
    with waits:
        torch.arange(2).to("meta", non_blocking=True)
        assert not waits.found
        wait(torch.ones(3, device="meta"))
    assert waits.found


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


@pytest.mark.parametrize("data", ["text", "images"])
@pytest.mark.parametrize("with_backbone", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_no_step_of_dmt_carried_waits(data, with_backbone, resumed, cache, tmp_path):
    """From the rows that a loader makes on: what begins a window in a step is known on the host."""
    config = tiny_config(vocab_size=258, num_memory_tokens=4)
    if with_backbone:
        config = model_on(language_model(vocab_size=258, dtype=torch.float32)).config
    more = {"rollout": "carried", "segment_length": 8, "teacher_lead": 5, "kd_weight": float(with_backbone)}
    args = arguments("dmt", tmp_path, **more)
    trainer = meta_trainer(config, args)
    trainer.model.train()
    windows = TokenWindows(cache, args.window_length)
    if data == "images":
        images = zip(torch.randint(256, (8, 5, 5), dtype=torch.uint8).numpy(), [None] * 8, strict=True)
        windows = ImageRows(build_image_cache(images, SmtImageProcessor(5, num_levels=256), tmp_path / "images"))
    trainer.train_dataset = rows = row_windows(windows, args, 4)
    if resumed:
        memory = torch.empty(
            4, config.teacher_config.num_memory_tokens, config.teacher_config.hidden_size, device="meta"
        )
        trainer.carried.put(Rows(memory, torch.empty(4, dtype=torch.bool, device="meta")))
    for number in range(2 * rows.num_segments):
        inputs = trainer.data_collator([rows[4 * number + row] for row in range(4)])
        trainer.carried.rewind()
        check(trainer, send_to_device(inputs, "meta"), (0, number))


def test_no_step_of_bptt_carried_waits(cache, tmp_path):
    args = arguments("bptt", tmp_path, bptt_horizon=8, carry_memory=True)
    trainer = meta_trainer(tiny_config(vocab_size=258).student_config, args)
    trainer.model.train()
    rows, trainer.carried = trainer.carry(TokenWindows(cache, args.window_length), args, 4)
    for number in range(3):
        inputs = trainer.data_collator([rows[4 * number + row] for row in range(4)])
        trainer.carried.rewind()
        check(trainer, send_to_device(inputs, "meta"), (0, number))


def check(trainer, inputs, draw):
    """Runs a step that begins with a batch of the loader."""
    waits = Waits()
    with waits:
        step = trainer.make_step(inputs, draw)
        trainer.mean_loss(trainer.losses(trainer.model, step)[0]).backward()
        step.counts()
    assert not waits.found


@pytest.mark.parametrize("optimizer", [{"optim": "adamw_torch"}, {"muon": True}], ids=["adamw", "muon"])
@pytest.mark.parametrize("name", KINDS)
def test_no_optimiser_step_waits(name, optimizer, tmp_path, monkeypatch):
    """What the library's loop calls: batches, losses with two batches accumulated, clipping, the check of the loss, the optimiser."""
    kind, more = KINDS[name]
    args = arguments(kind, tmp_path, gradient_accumulation_steps=2, **optimizer, **more)
    config = tiny_config(vocab_size=258, num_memory_tokens=4)
    trainer = meta_trainer(config.student_config if kind == "bptt" else config, args)
    trainer.create_optimizer()
    trainer.model.train()
    trainer.state.global_step = 1  # the first step checks the labels, once
    trainer.current_gradient_accumulation_steps = 2
    arrived = []
    monkeypatch.setattr(OnItsWay, "tolist", lambda copy: arrived.append(copy) or [0.0] * len(copy.values))
    waits = Waits()
    with waits:
        batches, counts = trainer.get_batch_samples(iter([rows_of_loader(args)] * 2), 2, torch.device("meta"))
        for inputs in batches:
            trainer.training_step(trainer.model, inputs, counts)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.finite_loss.on_pre_optimizer_step(args, trainer.state, trainer.control, optimizer=trainer.optimizer)
        trainer.optimizer.step()
    assert not waits.found
    assert len(arrived) == 2


def rows_of_loader(args):
    """The columns of a micro-batch as they come from a loader, on the device."""
    batch = meta_batch(args)
    columns = {"input_ids": batch.input_ids, "documents": batch.documents, "continued": batch.continued}
    return {name: values for name, values in columns.items() if values is not None}


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
