"""Training on a backbone: the teacher alone, distillation, rates, and the language model itself."""

import pytest
import torch

from smt_hf.data import TokenWindows
from smt_hf.errors import InputError
from smt_hf.losses import distillation
from smt_hf.models.backbone_smt import read_backbone
from smt_hf.training import BpttTrainer, LmTrainer, LmTrainingArguments
from tests.backbones import language_model, model_on
from tests.training.conftest import COMMON, logged, model_for_bytes

# bytes: the tokenizer of the tests' text
BYTES = {"vocab_size": 258, "bos_token_id": 256, "dtype": torch.float32}


@pytest.fixture
def joint():
    return model_on(language_model(**BYTES))


@pytest.fixture
def make_lm(cache, tmp_path):
    def make(model=None, **overrides):
        arguments = LmTrainingArguments(output_dir=str(tmp_path / "lm"), **{**COMMON, **overrides})
        dataset = TokenWindows(cache, arguments.window_length)
        return LmTrainer(model=model or language_model(**BYTES), args=arguments, train_dataset=dataset)

    return make


def moved(trainer):
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return {name for name, p in trainer.model.named_parameters() if not p.equal(before[name])}


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_is_what_its_definition_says(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    taught = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    targets = torch.tensor([[1, 2, -100], [-100, 0, 4]])
    term = distillation(logits, taught, targets, temperature)
    total = 0.0
    for place in (targets != -100).nonzero().tolist():
        p = (taught[tuple(place)] / temperature).exp()
        q = (logits[tuple(place)] / temperature).exp()
        p, q = p / p.sum(), q / q.sum()
        total = total + temperature**2 * (p * (p / q).log()).sum()
    assert int(term.count) == 4
    torch.testing.assert_close(term.total, total, rtol=0, atol=1e-5, check_dtype=False)
    found, wanted = (torch.autograd.grad(loss, logits)[0] for loss in (term.total, total))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_the_teacher_alone(make_smt, joint):
    trainer = make_smt(joint, dynamics_weight=0.0)
    names = moved(trainer)
    assert names and not any(
        name.startswith(("student.model.cell", "student.model.embed", "teacher.backbone.")) for name in names
    )
    assert {"teacher.backbone_projection.weight", "teacher.memory_registers", "teacher.lm_head.weight"} <= names
    entry = trainer.state.log_history[0]
    assert "readout" in entry and not {"dynamics", "stream", "student", "kd"} & set(entry)


def test_the_teacher_alone_is_the_joint_training_without_its_student(make_smt):
    """The losses of the teacher do not depend on whether the student runs beside it."""
    unclipped = {"max_grad_norm": 0.0, "max_steps": 2}  # the norm is of all gradients, the student's too
    alone = make_smt(dynamics_weight=0.0, **unclipped)
    alone.train()
    beside = make_smt(dynamics_weight=1.0, detach_teacher=True, **unclipped)
    beside.train()
    for name in ("decoding", "readout", "stream"):
        assert logged(alone, name) == logged(beside, name)


def test_a_backbone_at_a_rate_of_its_own(make_smt, joint):
    trainer = make_smt(joint, backbone_learning_rate=1e-4, max_steps=1)
    names = moved(trainer)
    assert any(name.startswith("teacher.backbone.") for name in names) and logged(trainer, "stream")
    rates = {group["initial_lr"]: group["params"] for group in trainer.optimizer.param_groups if group["params"]}
    assert set(rates) == {1e-2, 1e-4}
    own = {id(p) for p in joint.teacher.backbone.parameters()}
    for rate in rates:
        of_rate = [g for g in trainer.optimizer.param_groups if g["initial_lr"] == rate]
        assert all((id(p) in own) == (rate == 1e-4) for group in of_rate for p in group["params"])
    muon = make_smt(model_on(language_model(**BYTES)), backbone_learning_rate=1e-4, muon=True, max_steps=1)
    assert any(name.startswith("teacher.backbone.") for name in moved(muon))
    assert {group["initial_lr"] for group in muon.optimizer.param_groups if group["params"]} == {1e-2, 1e-4}


@pytest.mark.parametrize("kind", ["smt", "dmt"])
def test_distilled_predictions_are_compared_where_they_belong(make_smt, make_dmt, joint, kind):
    make = make_smt if kind == "smt" else make_dmt
    trainer = make(joint, kd_weight=0.5, kd_temperature=2.0, segment_length=4, per_device_train_batch_size=2)
    inputs = next(iter(trainer.get_train_dataloader()))
    step = trainer.make_step(inputs, (0, 0))
    trainer.model.eval()
    with torch.no_grad():
        losses, output = trainer.losses(trainer.model, step)
    batch, columns = step.batch, step.plan.columns
    logits = read_backbone(joint.teacher.backbone, batch.input_ids, batch.documents, logits=True)[2][:, columns]
    torch.testing.assert_close(output.backbone_logits, logits, rtol=0, atol=1e-4)
    student_logits = output.student_logits if kind == "smt" else output.logits
    wanted = distillation(student_logits, logits, batch.targets_of(columns), 2.0)
    torch.testing.assert_close(losses["kd"].mean, wanted.mean, rtol=0, atol=1e-5)
    trainer.train()
    assert all(value >= 0 for value in logged(trainer, "kd"))


@pytest.mark.parametrize("kind", ["smt", "dmt"])
def test_without_a_backbone_there_is_nothing_to_distil(make_smt, make_dmt, kind):
    with pytest.raises(InputError, match="kd_weight=0.5 needs a teacher with a backbone"):
        (make_smt if kind == "smt" else make_dmt)(kd_weight=0.5)


def test_bptt_learns_from_a_language_model_too(make_bptt):
    backbone = language_model(**BYTES)
    with pytest.raises(InputError, match="kd_weight=0.5 needs a language model"):
        make_bptt(kd_weight=0.5)
    with pytest.raises(InputError, match="kd_weight=0.5 is not supported with carry_memory"):
        make_bptt(kd_weight=0.5, carry_memory=True, bptt_horizon=8)

    def trainer_on(model):
        return lambda **options: BpttTrainer(backbone=model, **options)

    with pytest.raises(InputError, match="kd_weight is 0"):
        make_bptt(trainer=trainer_on(backbone))
    with pytest.raises(InputError, match="vocab_size is 258, but the backbone's is 200"):
        make_bptt(trainer=trainer_on(language_model(vocab_size=200)), kd_weight=0.5)
    trainer = make_bptt(trainer=trainer_on(backbone), kd_weight=0.5, kd_temperature=2.0)
    step = trainer.make_step(next(iter(trainer.get_train_dataloader())), (0, 0))
    with torch.no_grad():
        losses, output = trainer.losses(trainer.model, step)
    batch = step.batch.first(step.plan.length)
    logits = read_backbone(backbone, batch.input_ids, batch.documents, logits=True)[2]
    wanted = distillation(output.logits, logits, step.batch.targets[:, 1:-1], 2.0)
    torch.testing.assert_close(losses["kd"].mean, wanted.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        trainer.mean_loss(losses), losses["readout"].mean + 0.5 * losses["kd"].mean, rtol=0, atol=1e-5
    )
    before = backbone.lm_head.weight.clone()
    trainer.train()
    assert logged(trainer, "kd") and backbone.lm_head.weight.equal(before)


def test_a_language_model_learns(make_lm):
    trainer = make_lm(max_steps=20, muon=True)
    trainer.train()
    losses = logged(trainer, "readout")
    assert losses[-1] < losses[0] - 1 and losses == pytest.approx(logged(trainer, "loss"), abs=1e-5)
    assert not {"effective_rank", "memory_variance"} & set(trainer.state.log_history[0])


def test_a_language_model_resumed_equals_an_uninterrupted_one(make_lm):
    whole = make_lm(max_steps=4, save_strategy="steps", save_steps=2)
    whole.train()
    resumed = make_lm(max_steps=4, save_strategy="steps", save_steps=2)
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    for (name, a), b in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert a.equal(b), name


def test_a_joint_training_needs_the_vocabulary_of_its_text(make_lm):
    with pytest.raises(InputError, match="outside the model's vocabulary of 200 ids"):
        make_lm(language_model(vocab_size=200, dtype=torch.float32)).train()
    assert model_for_bytes().config.vocab_size == 258
