"""A comparison small enough for a test."""

import copy

import pytest

from smt_hf.comparison import Comparison, run_student

TINY = {
    "task": "retrieval",
    "task_options": {"num_symbols": 4},
    "lengths": [12],
    "seeds": [0],
    "model": {
        "hidden_size": 16,
        "num_memory_tokens": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_attention_heads": 2,
        "initializer_range": 0.1,
    },
    "student": {"num_updater_layers": 1},
    "training": {"per_device_train_batch_size": 4, "max_steps": 3, "warmup_steps": 0, "learning_rate": 3e-3},
    "stages": {
        "short": {"trainer": "smt", "length": 8, "num_transitions": 4},
        "smt": {"after": "short", "label": "SMT", "num_transitions": 4, "pinned_columns": [-1]},
        "dmt": {"after": "smt", "label": "DMT", "num_sweeps": [1, 2]},
        "finetune": {"trainer": "bptt", "label": "BPTT", "after": "dmt"},
        "bptt": {"label": "BPTT"},
    },
    "eval_rows": 16,
    "eval_factors": [1, 2],
    "trace_points": 2,
    "gradient_length": 16,
}


def tiny(**changes) -> Comparison:
    """The comparison with other fields."""
    return Comparison(**{**copy.deepcopy(TINY), **changes})


@pytest.fixture(scope="session", autouse=True)
def few_draws():
    """Counting the FLOPs of several draws takes longer than such trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smt_hf.comparison.flops.NUM_DRAWS", 1)
        yield


@pytest.fixture(scope="session")
def comparison_run(tmp_path_factory):
    """A comparison's folder, finished, and the results of its one run."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, run_student(tiny(), "transformer", 12, 0, str(folder))
