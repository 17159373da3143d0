"""Prints losses of short trainings at a fixed seed, to compare before and after a change: SMT, DMT and BPTT, with every cell.

    python scripts/trained_losses.py --output before.json
    ... change the code ...
    python scripts/trained_losses.py --compare before.json

Every number is printed in full: a code change that should not affect training must leave the table bit-equal.
"""

import argparse
import json
import tempfile
from dataclasses import replace

import torch
from training_setup import SIZES, corpus, make_model, make_trainer, windows
from transformers.utils import logging

from smt_hf.data import TokenCache
from smt_hf.models.cells_smt_rnn import CELLS

MODEL = replace(SIZES["small"], hidden_size=16)
COMMON = {"max_steps": 5, "per_device_train_batch_size": 4, "learning_rate": 3e-3, "logging_steps": 1}
METHODS = {
    "smt": {"context_length": 48, "horizon": 8, "num_transitions": 16, "num_decoded": 2},
    "dmt": {"context_length": 48, "rollout_length": 32, "num_sweeps": [0, 1, 2]},
    "bptt": {},
}
VARIANTS = {
    "SMT, one step": ("smt", {}),
    "SMT, segments": ("smt", {"segment_length": 4, "student_weight": 1.0, "gradient_accumulation_steps": 2}),
    "SMT, detached": ("smt", {"detach_teacher": True, "muon": True}),
    "DMT, sweeps": ("dmt", {"segment_length": 4}),
    "DMT, sequential": ("dmt", {"rollout": "sequential", "cold_start_probability": 1.0}),
    "BPTT, full": ("bptt", {"context_length": 32}),
    "BPTT, truncated": ("bptt", {"context_length": 32, "bptt_horizon": 8, "checkpoint_steps": 4}),
    "BPTT, carried": ("bptt", {"context_length": 32, "bptt_horizon": 8, "carry_memory": True}),
}


def losses(method: str, options: dict, cell_type: str, cache: TokenCache, folder: str) -> list[float]:
    """The loss of every step of a short training, and the sum of the absolute weights after it."""
    model = make_model(MODEL, cell_type=cell_type, initializer_range=0.1)
    fields = {**COMMON, **METHODS[method], **options}
    trainer = make_trainer(method, model, windows(cache), "cpu", folder, **fields)
    trainer.train()
    weights = sum(p.detach().double().abs().sum().item() for p in trainer.model.parameters())
    return [*(float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry), weights]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the table to this JSON file")
    parser.add_argument("--compare", help="compare with a table written earlier")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant, (method, fields) in VARIANTS.items():
            for cell_type in CELLS:
                name = f"{variant}, {cell_type}"
                table[name] = losses(method, fields, cell_type, corpus(None), folder)
                print(f"{name:28}", " ".join(f"{loss:.8f}" for loss in table[name]), flush=True)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)
    if options.compare:
        with open(options.compare, encoding="utf-8") as file:
            before = json.load(file)
        changed = [name for name in before if before[name] != table.get(name)]
        print(f"\n{len(before) - len(changed)} of {len(before)} rows bit-equal", *changed, sep="\n  changed: ")


if __name__ == "__main__":
    main()
