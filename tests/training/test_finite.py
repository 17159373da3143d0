"""The step in which a loss became no number is named, before the weights change."""

import pytest

from tests.training.conftest import logged


def break_batch(trainer, number, value):
    """Lets the loss of a micro-batch of the training become a value."""
    losses, seen = trainer.losses, []

    def broken(model, step):
        found, output = losses(model, step)
        seen.append(step)
        if len(seen) == number:
            found["readout"] = type(found["readout"])(found["readout"].total * value, found["readout"].count)
        return found, output

    trainer.losses = broken


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("number, step", [(1, 1), (4, 2), (5, 3)])
def test_every_accumulated_batch_is_looked_at(make_bptt, number, step, value):
    trainer = make_bptt(gradient_accumulation_steps=2, max_steps=4, learning_rate=2e-3, lr_scheduler_type="constant")
    break_batch(trainer, number, value)
    kept = []
    update = trainer.create_optimizer().step
    trainer.optimizer.step = lambda *args, **kwargs: kept.append(trainer.state.global_step) or update(*args, **kwargs)
    said = rf"the loss became {value} at step {step} \(readout={value}\): lower learning_rate \(now 0.002\)"
    with pytest.raises(FloatingPointError, match=said):
        trainer.train()
    assert kept == list(range(step - 1))  # no step of the broken gradient
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_trainer_that_stopped_trains_again(make_bptt):
    trainer = make_bptt()
    losses = trainer.losses
    break_batch(trainer, 1, float("nan"))
    with pytest.raises(FloatingPointError):
        trainer.train()
    trainer.losses = losses
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps and len(logged(trainer)) == 3
