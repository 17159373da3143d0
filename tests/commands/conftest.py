"""A recipe small enough for a test, and a way to run commands."""

import pytest
import yaml

from smt_hf.commands.main import main

SIZES = {
    "hidden_size": 32,
    "num_memory_tokens": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_updater_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}
TRAINING = {
    "context_length": 24,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "max_eval_windows": 4,
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
    argv = ["dmt", "--config", str(recipes["dmt"]), "--teacher", str(smt_run), "--output_dir", str(folder)]
    assert main(argv) == 0
    return folder
