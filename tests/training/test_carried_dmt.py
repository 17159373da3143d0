"""DMT whose memory goes on from step to step: against the student and the teacher read one token at a time."""

import numpy as np
import pytest
import torch

from smt_hf.data import TokenWindows
from smt_hf.data.row_windows import RowWindows
from smt_hf.data.token_cache import write_token_cache
from smt_hf.errors import InputError
from tests.backbones import language_model, model_on
from tests.training.conftest import logged

CARRIED = {
    "rollout": "carried",
    "segment_length": 8,
    "context_length": 24,
    "teacher_lead": 5,
    "per_device_train_batch_size": 4,
    "cold_start_probability": 0.0,
}


def steps_of(trainer, number):
    """The plans and outputs of the first steps, without learning."""
    batches = iter(trainer.get_train_dataloader())
    for n in range(number):
        step = trainer.make_step(next(batches), (0, n))
        trainer.carried.rewind()
        trainer.model.train()
        with torch.no_grad():
            yield step, trainer.run(trainer.model, step)


def test_rows_read_every_segment_of_consecutive_windows(cache):
    data = RowWindows(TokenWindows(cache, 25), 24, 8, 4, lead=5, seed=3)
    items = [data[index] for index in range(4 * 7)]
    for row in range(4):
        own = items[row::4]
        assert [item["place"].segment for item in own] == [(row + step) % 3 for step in range(7)]
        assert all(item["place"].row == row for item in own) and len({len(item["input_ids"]) for item in own}) == 1
        read = [item["input_ids"][5 + 8 * item["place"].segment :][:9] for item in own]
        for item, before, after in zip(own[1:], read, read[1:], strict=False):
            assert before[-1] == after[0] or not item["place"].continued
        assert not own[0]["place"].continued and (all(item["place"].continued for item in own[1:]) or row == 3)
    data.set_epoch(1)
    assert not data[0]["input_ids"].equal(items[0]["input_ids"])


def test_a_window_is_read_once_and_its_beginning_known(tmp_path):
    tokens = np.arange(3000)  # no two windows are alike
    cache = write_token_cache([(tokens, np.full(30, 100), 3000)], 3000, tmp_path / "cache")
    data = RowWindows(TokenWindows(cache, 25), 24, 8, 4, lead=5, seed=3)
    items = [data[index] for index in range(len(data))]
    assert len({tuple(item["input_ids"].tolist()) for item in items}) == data.num_windows
    for row in range(4):
        own = items[row::4]
        assert own[0]["place"].begins
        for before, item in zip(own, own[1:], strict=False):
            assert item["place"].begins != item["input_ids"].equal(before["input_ids"])


@pytest.mark.parametrize("forcing", [0.0, 1.0])
def test_states_are_those_of_reading_on(make_dmt, forcing):
    """Left to itself a row goes on from its own memory; put on the teacher's states it starts every segment from them."""
    joint = model_on(language_model(vocab_size=258, bos_token_id=256))
    trainer = make_dmt(joint, **CARRIED, teacher_forcing_start=forcing, teacher_forcing_end=forcing, kd_weight=1.0)
    student, teacher = trainer.student().double(), joint.teacher
    memory = [None] * 4
    for step, output in steps_of(trainer, 7):
        for row in range(4):
            ids, documents = step.batch.input_ids[row], step.batch.documents[row]
            columns = step.plan.columns[row, 0]
            begins = documents[columns[0]] != documents[columns[0] - 1]

            def state(t, ids=ids, documents=documents):
                same = (documents[: t + 1] == documents[t]).nonzero()[:, 0]
                return teacher.encode(ids[None, same], torch.tensor([len(same) - 1]))[0]

            empty = teacher.encode(ids[None, :1], torch.tensor([-1]))[0]
            start = empty if begins else state(int(columns[0]) - 1)
            if not forcing and memory[row] is not None and step.plan.continued[row] and not begins:
                start = memory[row]
            states = []
            for t in columns.tolist():
                if t > columns[0] and documents[t] != documents[t - 1]:
                    start = empty
                start = student.model.update(start, ids[None, t])
                states.append(start)
            memory[row] = start
            torch.testing.assert_close(output.memory[row, 0], start[0], rtol=0, atol=1e-9)
            torch.testing.assert_close(output.logits[row, 0], student.readout(torch.cat(states)), rtol=0, atol=1e-9)
            torch.testing.assert_close(output.target_memory[row], state(int(columns[-1])), rtol=0, atol=1e-9)
            logits = teacher(ids[None], documents=documents[None], output_backbone_logits=True).backbone_logits[
                0, columns
            ]
            torch.testing.assert_close(output.backbone_logits[row, 0], logits, rtol=0, atol=1e-9)
            targets = step.targets["readout"][row, 0]
            inside = documents[columns + 1] == documents[columns]
            assert targets.equal(torch.where(inside, ids[columns + 1], -100))


def test_a_cold_start_forgets(make_dmt):
    trainer = make_dmt(**{**CARRIED, "cold_start_probability": 1.0}, teacher_forcing_start=0.0)
    for step, output in steps_of(trainer, 4):
        student = trainer.student()
        for row in (step.plan.segment == 0).nonzero()[:, 0].tolist():
            columns = step.plan.columns[row, 0]
            own = student.read(step.batch.input_ids[row][None, columns]).states
            if (step.batch.documents[row, columns] == step.batch.documents[row, columns[0]]).all():
                torch.testing.assert_close(output.memory[row, 0], own[0], rtol=0, atol=1e-4)


def test_forcing_falls_with_the_training(make_dmt):
    trainer = make_dmt(
        **CARRIED, teacher_forcing_start=0.8, teacher_forcing_end=0.2, teacher_forcing_decay=0.5, max_steps=8
    )
    shares = []
    for step in range(9):
        trainer.state.global_step, trainer.state.max_steps = step, 8
        shares.append(round(trainer._forced_share(), 6))
    assert shares == [0.8, 0.65, 0.5, 0.35, 0.2, 0.2, 0.2, 0.2, 0.2]


def test_a_resumed_run_equals_an_uninterrupted_one(make_dmt):
    options = {**CARRIED, "max_steps": 6, "save_strategy": "steps", "save_steps": 4, "gradient_accumulation_steps": 2}
    whole = make_dmt(**options)
    whole.train()
    resumed = make_dmt(**options)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4")
    assert logged(resumed)[-1] == logged(whole)[-1]
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert a.equal(b), name
    with pytest.raises(InputError, match="rollout='carried'"):
        make_dmt(**{**options, "rollout": "sweeps"}).train(
            resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-4"
        )


def test_it_learns(make_dmt):
    trainer = make_dmt(**CARRIED, max_steps=40, learning_rate=3e-3, muon=True)
    trainer.train()
    readout = logged(trainer, "readout")
    assert sum(readout[-5:]) < sum(readout[:5]) - 5


def test_what_cannot_be_carried(make_dmt, cache):
    with pytest.raises(InputError, match="segment_length=7 does not divide the window of 24"):
        make_dmt(**{**CARRIED, "segment_length": 7})
    with pytest.raises(InputError, match="not a list"):
        make_dmt(dataset=[{"input_ids": torch.arange(24)}] * 8, **CARRIED)
    with pytest.raises(InputError, match="too few for 4000 rows"):
        make_dmt(**{**CARRIED, "per_device_train_batch_size": 4000})


def test_rows_dealt_out_otherwise(make_dmt):
    """The rows of one batch, resumed as those of two accumulated ones: the same memories, so the same losses."""
    options = {**CARRIED, "max_steps": 5, "save_strategy": "steps", "save_steps": 3}
    whole = make_dmt(**options)
    whole.train()
    changed = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    resumed = make_dmt(**{**options, **changed}, accept_changes=list(changed))
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    assert logged(resumed)[-1] == pytest.approx(logged(whole)[-1], abs=1e-4)
    fewer = make_dmt(
        **{**options, "per_device_train_batch_size": 3}, accept_changes=["per_device_train_batch_size", "data"]
    )
    with pytest.raises(InputError, match="carries the memories of 4 rows, but a step has 3"):
        fewer.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
