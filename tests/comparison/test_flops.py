"""FLOPs against counts by hand; D = 16, one layer each, vocabulary 5."""

import pytest

from smt_hf.comparison.flops import sequential_flops, step_flops
from smt_hf.models import SmtForPreTraining
from smt_hf.tasks import TaskDataset
from smt_hf.training import BpttTrainer, DmtTrainer, SmtTrainer
from tests.comparison.conftest import TINY, tiny

D, V = 16, 5
PROJECTION, FEED_FORWARD = 2 * D * D, 2 * 2 * D * 4 * D  # of one token


def cell(memory_tokens):
    """A step of the student: queries, outputs and feed-forward layer of the memory alone, keys and values of the token too."""
    kept = memory_tokens * (2 * PROJECTION + FEED_FORWARD)
    pairs = memory_tokens * (memory_tokens + 1)
    attention = 4 * D * pairs if pairs > 64 else 0  # shorter ones are no matrix products
    return kept + 2 * (memory_tokens + 1) * PROJECTION + attention


def readout(memory_tokens):
    """One token's query, output and feed-forward layer, all keys and values, and the head."""
    return 2 * PROJECTION + FEED_FORWARD + 2 * memory_tokens * PROJECTION + 2 * D * V


def encoding(memory_tokens, length, dense=True):
    """The registers of one position: their share of all the tokens that the encoder went through."""
    token = 4 * PROJECTION + FEED_FORWARD
    if not dense:
        return memory_tokens * (token + 4 * D * (length + memory_tokens))
    registers = length * memory_tokens  # a single group of positions
    pairs = length * length + registers * (length + registers)
    return (token * (length + registers) + 4 * D * pairs) * memory_tokens / (length + registers)


def flops(tmp_path, trainer, rows=4, **options):
    """Both numbers of a trainer's step."""
    made, dataset = make(tmp_path, trainer, **options)
    return step_flops(made, [made.data_collator([dataset[row] for row in range(rows)])])


def chain(tmp_path, trainer, **options):
    """The sequential number alone, which needs no step."""
    made, dataset = make(tmp_path, trainer, **options)
    return sequential_flops(made, dataset[0]["input_ids"][None])


def make(tmp_path, trainer, length=12, model=None, **arguments):
    """A trainer and its data."""
    model = {**TINY["model"], **(model or {})}
    stages = {"smt": arguments if trainer == "smt" else {}}
    if trainer != "smt":
        stages[trainer] = {**arguments, **({"after": "smt"} if trainer == "dmt" else {})}
    comparison = tiny(lengths=[length], model=model, stages=stages)
    arguments = comparison.arguments(comparison.all_stages()[-1], length, 0, str(tmp_path))
    dataset = TaskDataset(comparison.load_task(length), 64)
    options = {"args": arguments, "train_dataset": dataset}
    joint = SmtForPreTraining(comparison.model_config("transformer", length))
    if trainer == "smt":
        made = SmtTrainer(model=joint, **options)
    elif trainer == "dmt":
        made = DmtTrainer(model=joint.export_student().eval(), teacher=joint.teacher, **options)
    else:
        made = BpttTrainer(model=joint.export_student().eval(), **options)
    return made, dataset


@pytest.mark.parametrize("memory_tokens", [2, 9])
def test_bptt_by_hand(memory_tokens, tmp_path):
    model = {"num_memory_tokens": memory_tokens}
    total, sequential = flops(tmp_path, "bptt", model=model)
    c, r = cell(memory_tokens), readout(memory_tokens)
    assert total == 3 * 4 * 12 * (c + r)
    assert sequential == 12 * c + 2 * 12 * c + 3 * r


def test_truncated_bptt_by_hand(tmp_path):
    total, sequential = flops(tmp_path, "bptt", bptt_horizon=4)
    assert sequential == 12 * cell(2) + 2 * 4 * cell(2) + 3 * readout(2)
    assert total == 3 * 4 * 12 * (cell(2) + readout(2))


def test_recomputed_steps_count(tmp_path):
    total, _ = flops(tmp_path, "bptt", checkpoint_steps=4)
    assert total == (3 + 1) * 4 * 12 * (cell(2) + readout(2)) - 4 * 12 * 2 * D * V  # the head is not recomputed


@pytest.mark.parametrize("steps", [1, 3])
def test_smt_by_hand(steps, tmp_path):
    sequential = chain(tmp_path, "smt", num_transitions=6, segment_length=steps)
    assert sequential == pytest.approx(3 * (encoding(2, 12) + steps * cell(2) + readout(2)))


def test_smt_with_an_encoder_of_its_own_for_every_position(tmp_path):
    model = {"encoder_attention": "bidirectional"}
    sequential = chain(tmp_path, "smt", model=model, num_transitions=4, stream_weight=0.0)
    assert sequential == pytest.approx(3 * (encoding(2, 12, dense=False) + cell(2) + readout(2)))


@pytest.mark.parametrize(
    "options, segments, steps",
    [
        ({"num_sweeps": [1, 2, 100]}, (1 + 2 + 11) / 3, 1),
        ({"rollout": "sequential"}, 11, 1),
        ({"rollout": "sequential", "segment_length": 4}, 2, 4),
    ],
)
def test_dmt_by_hand(options, segments, steps, tmp_path):
    sequential = chain(tmp_path, "dmt", **options)
    c, r = cell(2), readout(2)
    assert sequential == pytest.approx(encoding(2, 12) + segments * steps * c + 3 * (steps * c + r))


@pytest.mark.parametrize(
    "trainer, options", [("smt", {"num_transitions": 4}), ("dmt", {"num_sweeps": [2]}), ("bptt", {})]
)
def test_all_flops_are_linear_in_the_rows_and_sequential_ones_do_not_know_them(
    trainer, options, tmp_path, monkeypatch
):
    monkeypatch.setattr("smt_hf.comparison.flops.NUM_DRAWS", 2)
    one = flops(tmp_path, trainer, rows=2, **options)
    three = flops(tmp_path, trainer, rows=6, **options)
    assert three[0] == pytest.approx(3 * one[0]) and three[1] == one[1]


def test_accumulated_batches_count_in_all_flops_alone(tmp_path):
    total, sequential = flops(tmp_path, "bptt", gradient_accumulation_steps=2)
    assert total == 2 * 3 * 4 * 12 * (cell(2) + readout(2))
    assert sequential == 3 * 12 * cell(2) + 3 * readout(2)


def test_over_longer_rows_the_chain_of_bptt_grows_and_that_of_smt_hardly(tmp_path):
    def growth(trainer, **options):
        short, long = (chain(tmp_path, trainer, length=length, **options) for length in (8, 32))
        return long / short

    assert growth("bptt") > 3.5
    assert growth("smt", num_transitions=4) < 1.6  # attention over the context
    assert 1.6 < growth("bptt", bptt_horizon=8) < 2.5
