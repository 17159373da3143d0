"""Small models and data that the tests share."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
import yaml

from smt_hf import SmtConfig, SmtForPreTraining, SmtTeacherConfig
from smt_hf.cli.main import main
from smt_hf.data import byte_tokenizer, cached_tokens
from smt_hf.demo.stories import write_stories
from smt_hf.models import student_config_for
from smt_hf.utils.imports import asked_for

torch.set_num_threads(1)


def tiny_config(encoder_attention="causal", **overrides) -> SmtConfig:
    """A configuration with weights large enough for every input to matter."""
    sizes = {
        "vocab_size": 20,
        "hidden_size": 32,
        "num_memory_tokens": 3,
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
        "encoder_attention": encoder_attention,
    }
    teacher = SmtTeacherConfig(**{**sizes, **overrides})
    return SmtConfig(teacher_config=teacher, student_config=student_config_for(teacher, num_updater_layers=2))


def tiny_model(encoder_attention="causal", dtype=torch.float64, seed=0, **overrides) -> SmtForPreTraining:
    """Teacher and student in float64, where equality is exact to rounding."""
    torch.manual_seed(seed)
    return SmtForPreTraining(tiny_config(encoder_attention, **overrides)).to(dtype).eval()


@pytest.fixture(autouse=True)
def launch_of_its_own():
    """What accelerate's plugins write into the environment ends with the test: later ones and their processes would be launched so."""

    def configured():
        return {name: value for name, value in os.environ.items() if name.startswith(("ACCELERATE_", "FSDP_"))}

    before = configured()
    yield
    for name in configured():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def imports_of_its_own():
    """The modules that a test had imported by name end with it: later ones would have processes of theirs import them too."""
    before = list(asked_for)
    yield
    asked_for[:] = before


@pytest.fixture
def joint():
    return tiny_model()


@pytest.fixture
def student(joint):
    return joint.export_student().eval()


@pytest.fixture
def tokens():
    return torch.randint(20, (3, 14), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def stories(tmp_path_factory):
    """Files of built-in stories to train on and to validate with, and a folder for token caches."""
    folder = tmp_path_factory.mktemp("stories")
    write_stories(folder / "train.txt", num_stories=60, seed=0)
    write_stories(folder / "valid.txt", num_stories=20, seed=1)
    return folder


@pytest.fixture(scope="session")
def cache(stories, tokenizer):
    return cached_tokens(str(stories / "train.txt"), tokenizer, cache_dir=stories / "cache")


# ---- a recipe small enough for a test, and the runs that several files look at ----

SIZES = {
    "hidden_size": 32,
    "num_memory_tokens": 2,
    "num_encoder_layers": 1,
    "num_readout_layers": 1,
    "num_updater_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}
TRAINING = {
    "context_length": 24,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_eval_windows": 4,
    "max_steps": 4,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
}
STAGES = {
    "smt": {**SIZES, **TRAINING, "horizon": 8, "num_transitions": 8, "num_decoded": 2, "uniformity_weight": 0.0},
    "dmt": {**TRAINING, "rollout_length": 16, "num_sweeps": [1, 2]},
    "bptt": {**{k: v for k, v in SIZES.items() if k != "num_encoder_layers"}, **TRAINING, "bptt_horizon": 8},
    "finetune": TRAINING,
}


@pytest.fixture(scope="session")
def recipes(stories):
    """Recipe files of every stage, with their data."""
    files = {}
    for stage, values in STAGES.items():
        data = {"dataset": str(stories / "train.txt"), "cache_dir": str(stories / "cache")}
        if stage != "finetune":
            data["eval_dataset"] = str(stories / "valid.txt")
        files[stage] = stories / f"{stage}.yaml"
        files[stage].write_text(yaml.safe_dump({**values, **data}))
    return files


@pytest.fixture(scope="session")
def smt_run(recipes, stories):
    """The output folder of a short SMT run."""
    folder = stories / "smt_run"
    assert main(["smt", "--config", str(recipes["smt"]), "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def dmt_run(recipes, stories, smt_run):
    """The output folder of a short DMT run."""
    folder = stories / "dmt_run"
    argv = ["dmt", str(smt_run), "--config", str(recipes["dmt"]), "--output_dir", str(folder)]
    assert main(argv) == 0
    return folder
