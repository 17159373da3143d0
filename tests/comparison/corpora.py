"""Comparisons on a text and on images, small enough for a test."""

import copy

import numpy as np

from smt_hf.comparison import Comparison
from tests.comparison.conftest import TINY

SHARED = {
    "seeds": [0],
    "model": TINY["model"],
    "student": {"num_updater_layers": 1},
    "eval_rows": 6,
    "num_eval_windows": 4,
    "trace_points": 2,
}
TRAINING = {"per_device_train_batch_size": 4, "max_steps": 3, "warmup_steps": 0, "context_length": 12, "horizon": 4}
STAGES = {
    "smt": {"label": "SMT", "cells": ["transformer"], "num_transitions": 4},
    "dmt": {"label": "DMT", "after": "smt", "rollout_length": 8, "num_sweeps": [1]},
    "bptt": {"label": "BPTT"},
    "carried": {
        "trainer": "bptt",
        "label": "BPTT (over 4 steps)",
        "bptt_horizon": 4,
        "carry_memory": True,
        "cells": ["transformer"],
    },
}


def text(folder, **changes) -> Comparison:
    """On two texts that are written into a folder."""
    words = ["the cat sat", "a dog ran far", "who knows", "it rained all day long", "and so on"]
    for name, number in (("train", 40), ("valid", 20)):
        stories = [" ".join(words[(i * k + len(name)) % 5] for k in range(1, 5)) for i in range(number)]
        (folder / f"{name}.txt").write_text("\n<|endoftext|>\n".join(stories))
    fields = {
        **SHARED,
        "dataset": str(folder / "train.txt"),
        "eval_dataset": str(folder / "valid.txt"),
        "cache_dir": str(folder / "cache"),
        "context_length": 4,
        "rollout_steps": 12,
        "training": TRAINING,
        "stages": STAGES,
    }
    return Comparison(**{**copy.deepcopy(fields), **changes})


def images(folder, **changes) -> Comparison:
    """On images of two classes, one in five of them held out."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    np.savez(folder / "digits.npz", x=rng.integers(256, size=(60, 4, 4)).astype(np.uint8), y=labels.astype(np.uint8))
    fields = {
        **SHARED,
        "dataset": str(folder / "digits.npz"),
        "eval_split": "validation",
        "holdout": 5,
        "cache_dir": str(folder / "cache"),
        "image_size": 4,
        "num_levels": 4,
        "class_conditional": True,
        "training": {**TRAINING, "context_length": 17},
        "stages": STAGES,
    }
    return Comparison(**{**copy.deepcopy(fields), **changes})
