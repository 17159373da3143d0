"""Small students that read bytes, as other libraries meet them."""

import pytest
import torch

from smt_hf import SmtRnnConfig, SmtRnnForCausalLM

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: "
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXTS = ["the cat sat on the mat", "a dog ran", "the cat ran to the dog", "the mat"] * 8


def byte_student(dtype=torch.float32, **overrides):
    """A student without training, with weights large enough for every input to matter."""
    torch.manual_seed(0)
    config = SmtRnnConfig(
        hidden_size=32,
        num_memory_tokens=3,
        num_updater_layers=2,
        num_readout_layers=1,
        num_attention_heads=4,
        initializer_range=0.3,
        pad_token_id=257,
        bos_token_id=256,
        eos_token_id=256,
    )
    return SmtRnnForCausalLM(SmtRnnConfig(**{**config.to_dict(), **overrides})).to(dtype).eval()


@pytest.fixture(scope="session")
def exact_student():
    """In float64, where equality is exact to rounding."""
    return byte_student(torch.float64)


@pytest.fixture(scope="session")
def student_folder(exact_student, tokenizer, tmp_path_factory):
    """That student and its tokenizer, saved."""
    folder = tmp_path_factory.mktemp("student")
    exact_student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small_student():
    """A student to train: one layer, ordinary weights."""
    return byte_student(num_updater_layers=1, initializer_range=0.1)


def training(folder, **overrides):
    """Arguments that every trainer takes."""
    common = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 12,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return {**common, **overrides}


def assert_loss_falls(trainer, share=0.8):
    """The last three losses are well under the first three."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < share * sum(losses[:3]), losses
