"""What is compiled computes what is not, as one graph and without compiling again.

`aot_eager` traces forward and backward pass as `torch.compile` does for a GPU, and runs them with torch's own kernels.
"""

import copy
import shutil

import pytest
import torch

from smt_hf import SmtConfig, SmtForPreTraining, SmtImageProcessor, SmtTeacherConfig
from smt_hf.data import ImageRows, TokenWindows, build_image_cache, build_token_cache
from smt_hf.models import student_config_for
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from tests.backbones import language_model, model_on
from tests.conftest import tiny_model
from tests.training.conftest import COMMON, logged

SEGMENT = 4


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def compiled(function, dynamic=False, backend="aot_eager"):
    return torch.compile(function, fullgraph=True, backend=backend, dynamic=dynamic)


def compare(function, inputs, parameters, backend="aot_eager"):
    """Values and gradients of a function, compiled and not."""
    results = []
    for run in (function, compiled(function, backend=backend)):
        outputs = run(*inputs)
        loss = sum(output.square().sum() for output in outputs)
        results.append((outputs, torch.autograd.grad(loss, parameters, allow_unused=True)))
    (eager, eager_gradients), (traced, traced_gradients) = results
    for output, other in zip(eager, traced, strict=True):
        torch.testing.assert_close(other, output, rtol=1e-12, atol=1e-12)
    for gradient, other in zip(eager_gradients, traced_gradients, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["transformer", "mlp", "elman", "gru", "lstm"])
def test_the_students_segment(cell):
    """J steps of the recurrence, and the logits after each, in one graph."""
    student = cell_student(cell)
    ids = torch.randint(20, (3, SEGMENT), generator=torch.Generator().manual_seed(0))
    memory = torch.randn(3, student.config.num_memory_tokens, 32, dtype=torch.float64)

    def segment(ids, memory):
        states, last = student.model.unroll(student.model.embed_tokens(ids), memory)
        return student.readout(states), last

    compare(segment, (ids, memory), list(student.parameters()))


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor writes C++ on a CPU")
@pytest.mark.parametrize("cell", ["mlp", "gru"])
def test_a_step_of_the_recurrence_by_inductor(cell):
    """The kernels that torch generates, not its own."""
    student = cell_student(cell)
    token, memory = torch.randn(3, 32, dtype=torch.float64), torch.randn(3, 4, 32, dtype=torch.float64)

    def step(token, memory):
        memory = student.model.cell(memory, token)
        return memory, student.readout(memory)

    compare(step, (token, memory), list(student.parameters()), backend="inductor")


def cell_student(cell):
    joint = tiny_model(num_memory_tokens=4)
    config = joint.config.student_config
    config.cell_type = cell
    torch.manual_seed(0)
    return type(joint.student)(config).to(torch.float64)


def test_the_teachers_encoder(joint, tokens):
    positions = torch.tensor([-1, 2, 5, 9])

    def encode(ids, positions):
        output = joint.teacher(ids, positions, return_dict=True)
        return output.memory, output.last_hidden_state

    compare(encode, (tokens, positions), list(joint.teacher.parameters()))


# ---- whole trainers ------------------------------------------------------------------------------------------------

ROWS, STEPS, WARM_UP = 2, 50, 25
KINDS = {
    "SMT": ("smt", {"num_transitions": 2}),
    "SMT in segments": ("smt", {"num_transitions": 4, "segment_length": 2, "student_weight": 1.0}),
    "DMT by sweeps": ("dmt", {"segment_length": 2, "num_sweeps": [1, 2]}),
    "DMT, carried": ("dmt", {"segment_length": 2, "rollout": "carried", "teacher_lead": 2}),
    "BPTT": ("bptt", {}),
}
OWN = {"smt": {"horizon": 2, "num_decoded": 2}, "dmt": {"rollout_length": 4}, "bptt": {}}


@pytest.fixture(scope="module")
def text(stories, tokenizer):
    """Documents so short that windows hold several."""
    return build_token_cache((f"ab{n % 7}" for n in range(200)), tokenizer, stories / "short")


@pytest.fixture(scope="module")
def images(stories):
    drawn = torch.randint(256, (12, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    return build_image_cache([(each, None) for each in drawn], SmtImageProcessor((2, 3)), stories / "pixels")


def trainer_of(name, data, tmp_path, joint=None, **more):
    """A trainer whose loss compiles in seconds; images end within what is decoded."""
    kind, own = KINDS[name]
    of_images = data.vocab_size < 256
    common = {
        **COMMON,
        "context_length": 6 if of_images else 4,
        "per_device_train_batch_size": ROWS,
        "output_dir": str(tmp_path),
        **more,
    }
    joint = small_joint(data.vocab_size) if joint is None else joint
    classes = {
        "smt": (SmtTrainer, SmtTrainingArguments, {"model": joint}),
        "dmt": (DmtTrainer, DmtTrainingArguments, {"model": joint.export_student(), "teacher": joint.teacher}),
        "bptt": (BpttTrainer, BpttTrainingArguments, {"model": joint.export_student()}),
    }
    made, arguments, models = classes[kind]
    args = arguments(**{**common, **OWN[kind], **own})
    rows = ImageRows(data) if of_images else TokenWindows(data, args.window_length)
    return made(**models, args=args, train_dataset=rows)


def small_joint(vocab_size):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_memory_tokens": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    teacher = SmtTeacherConfig(vocab_size=vocab_size, num_attention_heads=2, initializer_range=0.3, **sizes)
    student = student_config_for(teacher, num_updater_layers=1, cell_type="elman")
    return SmtForPreTraining(SmtConfig(teacher_config=teacher, student_config=student)).double()


def steps_of(trainer, num_steps):
    """The first steps of a training, without learning."""
    trainer.model.train()
    data = trainer.train_dataset
    for number in range(num_steps):
        rows = [data[(number * ROWS + row) % len(data)] for row in range(ROWS)]
        trainer.state.global_step = number
        yield trainer.make_step(trainer.data_collator(rows), (0, number))


@pytest.mark.parametrize(
    "name, source",
    [
        ("SMT in segments", "text"),
        ("SMT", "images"),
        ("DMT by sweeps", "text"),
        ("DMT, carried", "text"),
        ("DMT, carried", "images"),
        ("BPTT", "text"),
        ("BPTT", "images"),
    ],
)
def test_a_whole_loss_compiles_and_nothing_again_after_the_warm_up(name, source, text, images, tmp_path):
    """Models, readouts and all terms in one graph: other tokens, positions, sweeps and windows in every step."""
    agree(trainer_of(name, {"text": text, "images": images}[source], tmp_path), STEPS, WARM_UP)


def agree(trainer, num_steps, warm_up):
    """The loss in one graph and eagerly, step by step; the eager one first, for transformers hooks in what records hidden states then."""
    parameters = [each for each in trainer.model.parameters() if each.requires_grad]

    def loss(step):
        return trainer.mean_loss(trainer.losses(trainer.model, step)[0])

    traced = compiled(loss, dynamic=None)
    for number, step in enumerate(steps_of(trainer, num_steps)):
        carried, trainer.carried = trainer.carried, copy.deepcopy(trainer.carried)
        expected = loss(step)
        trainer.carried = carried
        with torch._dynamo.config.patch(error_on_recompile=number >= warm_up):
            found = traced(step)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            if number in (0, warm_up, num_steps - 1):
                gradients, others = (
                    torch.autograd.grad(each, parameters, allow_unused=True) for each in (found, expected)
                )
                for gradient, other in zip(gradients, others, strict=True):
                    assert (gradient is None) == (other is None)
                    if other is not None:
                        torch.testing.assert_close(gradient, other, rtol=1e-6, atol=1e-7)
        if trainer.carried is not None:
            trainer.carried.rewind()


@pytest.mark.parametrize("name, kind", [("llama", "SMT in segments"), ("qwen3", "DMT, carried")])
def test_a_loss_with_a_backbone_compiles(name, kind, text, tmp_path):
    """The language model is in the graph, trained along with SMT's teacher, and its predictions are learned."""
    backbone = language_model(name, vocab_size=text.vocab_size)
    joint = model_on(backbone, num_memory_tokens=2, cell_type="elman")
    more = {"kd_weight": 1.0, "backbone_learning_rate": 1e-3} if kind == "SMT in segments" else {"kd_weight": 1.0}
    agree(trainer_of(kind, text, tmp_path, joint, **more), num_steps=1, warm_up=1)


@pytest.mark.parametrize("name", ["SMT", "DMT, carried"])
def test_a_training_with_torch_compile(name, text, tmp_path):
    """The argument of the library compiles the trained model: the same losses and the same weights."""
    runs = []
    for more in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}):
        trainer = trainer_of(name, text, tmp_path, max_steps=4, **more)
        trainer.train()
        runs.append((logged(trainer), {key: value.clone() for key, value in trainer.student().state_dict().items()}))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-6)
    for key, weight in runs[0][1].items():
        torch.testing.assert_close(runs[1][1][key], weight, rtol=1e-6, atol=1e-9)
