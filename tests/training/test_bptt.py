"""BPTT: what the trainer trains, averages, carries on and refuses."""

import copy

import pytest
import torch
from transformers import Trainer, default_data_collator

from smt_hf.batch import Batch
from smt_hf.data import TokenWindows, cached_tokens
from smt_hf.data.streams import TokenStreams
from smt_hf.demo.stories import write_stories
from smt_hf.errors import InputError
from smt_hf.models.documents_smt import document_starts
from smt_hf.training import BpttTrainingArguments
from tests.conftest import tiny_model
from tests.training.conftest import logged, model_for_bytes


def loss_and_gradients(trainer, *items):
    """The loss of one batch, and its gradients."""
    batch = default_data_collator(list(items))
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture
def exact(make_bptt):
    """A trainer of the student in float64."""
    return lambda **options: make_bptt(student=tiny_model().export_student(), dataset=[], **options)


@pytest.fixture
def row(tokens):
    return tokens[0]


def collate(items):
    """Labels as the stock Trainer takes them; the first token of a document is no label of the one before."""
    batch = default_data_collator(items)
    begins = document_starts(batch["documents"])
    return batch | {"labels": batch["input_ids"].masked_fill(begins, -100)}


@pytest.mark.parametrize("horizon", [None, 24])
def test_full_bptt_is_what_the_stock_trainer_does(make_bptt, horizon):
    mine = make_bptt(bptt_horizon=horizon, train_start=False)
    stock = make_bptt(trainer=Trainer, data_collator=collate)
    mine.train()
    stock.train()
    for name in ("loss", "grad_norm"):
        assert logged(mine, name) == pytest.approx(logged(stock, name), rel=1e-4), name
    for found, expected in zip(mine.model.parameters(), stock.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"bptt_horizon": 4}, {"muon": True, "bptt_horizon": 8}, {"carry_memory": True, "bptt_horizon": 8}],
)
def test_every_parameter_is_trained(make_bptt, options):
    trainer = make_bptt(**options)
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    assert not [name for name, value in trainer.model.state_dict().items() if torch.equal(value, before[name])]
    entry = trainer.state.log_history[0]
    assert {"loss", "readout", "tokens_per_second", "effective_rank", "grad_norm"} <= set(entry)
    assert "drift" not in entry and entry["loss"] == pytest.approx(entry["readout"], rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"bptt_horizon": 4}, {"carry_memory": True, "bptt_horizon": 8}])
def test_gradient_accumulation_equals_one_batch(make_bptt, options):
    runs = []
    for size, steps in ((8, 1), (2, 4)):
        runs.append(make_bptt(per_device_train_batch_size=size, gradient_accumulation_steps=steps, **options))
        runs[-1].train()
    for name in ("loss", "grad_norm"):
        assert logged(runs[0], name) == pytest.approx(logged(runs[1], name), rel=1e-4), name
    for mine, other in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"bptt_horizon": 4}, {"carry_memory": True, "bptt_horizon": 8, "muon": True}])
def test_a_resumed_run_equals_an_uninterrupted_one(make_bptt, tokenizer, tmp_path, options):
    write_stories(tmp_path / "few.txt", num_stories=4, seed=0)
    few = cached_tokens(str(tmp_path / "few.txt"), tokenizer, cache_dir=tmp_path / "cache")
    saving = {"save_strategy": "steps", "save_steps": 5, "gradient_accumulation_steps": 2, "max_steps": 30, **options}
    whole, again = (make_bptt(None, TokenWindows(few, 25), **saving, output_dir=str(tmp_path / n)) for n in "ab")
    whole.train()
    assert whole.state.epoch > 1
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-15"))
    assert logged(again)[15:] == logged(whole)[15:] and len(logged(whole)) == 30
    for mine, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize("horizon", [None, 4])
def test_documents_in_a_window_are_documents_apart(exact, row, horizon):
    trainer = exact(bptt_horizon=horizon)
    together = loss_and_gradients(trainer, {"input_ids": row, "documents": torch.arange(14) // 7})
    parts = [loss_and_gradients(trainer, {"input_ids": part}) for part in (row[:7], row[7:])]
    mean = {name: (parts[0][1][name] + parts[1][1][name]) / 2 for name in parts[0][1]}
    assert_same(together, ((parts[0][0] + parts[1][0]) / 2, mean))


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("left", [0, 3, 4])
def test_padding_moves_no_memory(exact, row, horizon, left):
    trainer = exact(bptt_horizon=horizon)
    padded = torch.nn.functional.pad(row, (left, 3), value=7)
    mask = torch.nn.functional.pad(torch.ones_like(row), (left, 3))
    found = loss_and_gradients(trainer, {"input_ids": padded, "attention_mask": mask})
    assert_same(found, loss_and_gradients(trainer, {"input_ids": row}))
    step = trainer.make_step({"input_ids": padded[None], "attention_mask": mask[None]}, (0, 0))
    assert int(trainer.num_counted(step)) >= 13


def test_first_tokens():
    ids = torch.arange(7)[None].repeat(3, 1)
    mask = torch.tensor([[1] * 7, [0, 0, 1, 0, 1, 1, 1], [1] * 7])
    documents = torch.tensor([[0] * 7, [0, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 2]])
    continued = torch.tensor([True, False, True])

    def first(**columns):
        return [row[row >= 0].tolist() for row in Batch.of({"input_ids": ids, **columns}).start_targets]

    masks = {"attention_mask": mask, "documents": documents}
    assert first(**masks) == [[0], [2, 5], [0, 2, 4]]
    assert first(**masks, continued=continued) == [[], [2, 5], [2, 4]]
    assert first() == [[0]] * 3


def test_labels_are_read_from_the_memory_after_their_token(exact, tokens):
    """The target differs from the input: the token two before."""
    labels = torch.cat([torch.full((3, 2), -100), tokens[:, :-2]], dim=1)
    trainer = exact(bptt_horizon=5)
    items = [{"input_ids": x, "shift_labels": y} for x, y in zip(tokens, labels, strict=True)]
    loss, _ = loss_and_gradients(trainer, *items)
    logits = trainer.model(tokens).logits[:, 2:]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, :-2].flatten())
    assert loss == pytest.approx(expected.item(), rel=1e-6)


class Recall(torch.utils.data.Dataset):
    """Sequences whose only target is the first token again, after the last."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = torch.randint(1, 5, (6,), generator=torch.Generator().manual_seed(index))
        labels = torch.full((6,), -100)
        labels[-1] = tokens[0]
        return {"input_ids": tokens, "shift_labels": labels}


def test_only_a_gradient_that_reaches_back_learns_to_recall(make_bptt):
    losses = {}
    for horizon in (None, 2):
        trainer = make_bptt(dataset=Recall(), bptt_horizon=horizon, max_steps=80, learning_rate=3e-3)
        trainer.train()
        losses[horizon] = sum(logged(trainer)[-5:]) / 5
    assert losses[None] < 0.3 and losses[2] > 1.0


def test_evaluation(make_bptt):
    trainer = make_bptt(bptt_horizon=8, eval_rollout_steps=24)
    trainer.eval_dataset = torch.utils.data.Subset(trainer.train_dataset, range(8))
    metrics, again = trainer.evaluate(), trainer.evaluate()
    losses = {name for name in metrics if not name.endswith(("_time", "_runtime", "_per_second"))}
    assert {name: metrics[name] for name in losses} == {name: again[name] for name in losses}
    assert metrics["eval_readout"] == pytest.approx(metrics["eval_loss"], rel=1e-6)
    assert metrics["eval_cold_start_loss"] == pytest.approx(metrics["eval_loss"], rel=0.1)


def test_recomputation_trains_the_same(make_bptt):
    runs = [make_bptt(), make_bptt(checkpoint_steps=5), make_bptt(gradient_checkpointing=True)]
    for trainer in runs:
        trainer.train()
    for other in runs[1:]:
        assert logged(other) == pytest.approx(logged(runs[0]), rel=1e-5)


def test_not_a_number_stops_before_the_weights(make_bptt):
    trainer = make_bptt()
    with torch.no_grad():
        trainer.model.lm_head.weight[0, 0] = float("nan")
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(FloatingPointError, match="at step 1 .*lower learning_rate"):
        trainer.train()
    assert all(value.equal(before[name]) or value.isnan().any() for name, value in trainer.model.state_dict().items())


# ---- the memory that goes from step to step ----


def test_streams_read_on_and_miss_nothing(cache):
    streams = TokenStreams(cache, segment_length=16, num_streams=6, seed=3)
    starts = set(cache.document_starts.tolist())
    for epoch in (0, 1):
        streams.set_epoch(epoch)
        items = [streams[index] for index in range(len(streams))]
        read = torch.cat([item["input_ids"][:-1] for item in items])
        assert len(read) > cache.num_tokens - 6 * 16 - 1
        for index, item in enumerate(items):
            following = items[index + 6] if index + 6 < len(items) else None
            if following is not None and item["input_ids"][-1] != following["input_ids"][0]:
                assert not following["continued"]  # the ring's seam
        corpus = torch.as_tensor(cache.tokens[:].astype("int64"))
        for item in items[:12]:
            place = (corpus.unfold(0, 17, 1) == item["input_ids"]).all(dim=1).nonzero()[:, 0].tolist()
            assert not item["continued"] or not starts.intersection(place)
        assert not any(item["continued"] for item in items[:6])
    first = streams[0]["input_ids"]
    streams.set_epoch(0)
    assert not streams[0]["input_ids"].equal(first)


def test_streams_predict_every_token_once(make_bptt):
    trainer = make_bptt(carry_memory=True, bptt_horizon=2, per_device_train_batch_size=3)
    items = default_data_collator(list(trainer.train_dataset))
    read = len(trainer.train_dataset) * 2
    # but for the token after each stream and the seam of the ring
    assert read - 4 <= int(trainer.make_step(items, (0, 0)).counts()["readout"]) <= read + 4


def test_carried_memory_is_that_of_the_whole_text(make_bptt, cache):
    """Without learning, the steps' losses together are that of one long window."""
    trainer = make_bptt(
        learning_rate=0.0, carry_memory=True, bptt_horizon=8, max_steps=12, per_device_train_batch_size=3
    )
    trainer.train()
    streams, whole = trainer.train_dataset, []
    for stream in range(3):
        items = [streams[3 * step + stream] for step in range(12)]
        ids = torch.cat([item["input_ids"][:-1] for item in items] + [items[-1]["input_ids"][-1:]])
        begins = torch.stack([~item["continued"] for item in items])
        within = torch.stack([item["documents"] for item in items])
        changes = within.diff(dim=1, prepend=within[:, :1])[:, :-1]
        changes[:, 0] = begins
        last = within[-1, -1] - within[-1, -2]
        documents = torch.cat([changes.flatten(), last[None]]).cumsum(0)
        whole.append({"input_ids": ids, "documents": documents})
    other = make_bptt(student=copy.deepcopy(trainer.model), dataset=whole)
    expected, _ = loss_and_gradients(other, *whole)
    batches = [default_data_collator([streams[3 * step + row] for row in range(3)]) for step in range(12)]
    counts = [int(trainer.make_step(batch, (0, 0)).counts()["readout"]) for batch in batches]
    mean = sum(loss * count for loss, count in zip(logged(trainer, "readout"), counts, strict=True)) / sum(counts)
    assert mean == pytest.approx(expected, rel=1e-4)


def test_carrying_needs_text_and_the_memory_of_its_checkpoint(make_bptt, cache, tmp_path):
    with pytest.raises(InputError, match="running text, not a Recall: pass TokenWindows"):
        make_bptt(dataset=Recall(), carry_memory=True, bptt_horizon=2)
    with pytest.raises(InputError, match="1000000 streams of 8 take 8000001"):
        make_bptt(carry_memory=True, bptt_horizon=8, per_device_train_batch_size=1_000_000)
    make_bptt(bptt_horizon=8, save_strategy="steps", save_steps=1, max_steps=1).train()
    trainer = make_bptt(carry_memory=True, bptt_horizon=8)
    with pytest.raises(InputError, match="carry_memory=False then, True now"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "bptt" / "checkpoint-1"))


# ---- what cannot work ----


@pytest.mark.parametrize(
    "values, message",
    [
        ({"bptt_horizon": 0}, "bptt_horizon=0 must be at least 1"),
        ({"bptt_horizon": 129}, "bptt_horizon=129 exceeds context_length=128: lower it"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0 must be at least 1"),
        ({"checkpoint_steps": 129}, "checkpoint_steps=129 exceeds context_length=128"),
        ({"context_length": 0}, "context_length=0 must be at least 1"),
        ({"carry_memory": True}, "carry_memory needs bptt_horizon"),
    ],
)
def test_arguments_that_cannot_work(values, message, tmp_path):
    with pytest.raises(InputError, match=message):
        BpttTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **values)


def test_windows_without_a_target(make_bptt, cache):
    with pytest.raises(InputError, match="windows of 1 token have no next token"):
        make_bptt(dataset=TokenWindows(cache, 1)).train()


def test_a_token_id_outside_the_vocabulary(make_bptt):
    with pytest.raises(InputError, match="token id 258 is outside the model's vocabulary"):
        make_bptt(model_for_bytes().export_student(), [{"input_ids": torch.full((9,), 258)}] * 8).train()


def test_a_smaller_batch_than_asked_for_reads_on_where_it_stopped(make_bptt, cache):
    """`auto_find_batch_size` begins the training again with fewer rows: the streams are as many as these."""
    student, read = model_for_bytes().export_student(), []
    forward = student.forward

    def small_memory(*args, **kwargs):
        if len(kwargs["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory.")
        read.append(kwargs["input_ids"])
        return forward(*args, **kwargs)

    student.forward = small_memory
    options = {"auto_find_batch_size": True, "carry_memory": True, "bptt_horizon": 8, "per_device_train_batch_size": 8}
    trainer = make_bptt(student, **options)
    trainer.train()
    assert trainer.train_dataset.num_streams == 2 and len(read) == 3
    tokens = torch.from_numpy(cache.tokens.astype("int64"))
    for stream in range(2):
        text = torch.cat([step[stream] for step in read])
        assert any(text.equal(tokens[start : start + 24]) for start in range(len(tokens) - 23))
