"""Losses of short trainings at a fixed seed, to compare before and after a change: SMT, DMT and BPTT, with every cell.

    python scripts/trained_losses.py --output before.json
    ... change the code ...
    python scripts/trained_losses.py --compare before.json

Every number is printed in full: a change of the code that should not change a training must leave the table bit-equal.
"""

import argparse
import json
import tempfile

import torch
from transformers import PrinterCallback, set_seed
from transformers.utils import logging

from smt_hf.data import TokenCache, TokenWindows, byte_tokenizer, cached_tokens
from smt_hf.demo import write_stories
from smt_hf.models import SmtConfig, SmtForPreTraining, SmtTeacherConfig, student_config_for
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)

CELLS = ("transformer", "mlp", "elman", "gru", "lstm")
COMMON = {
    "max_steps": 5,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
}
SMT = {"context_length": 48, "horizon": 8, "num_transitions": 16, "num_decoded": 2, "eval_rollout_steps": 0}
DMT = {"context_length": 48, "rollout_length": 32, "num_sweeps": [0, 1, 2]}
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


def make_model(cell_type: str) -> SmtForPreTraining:
    """A small teacher and student with random weights of seed 0."""
    teacher = SmtTeacherConfig(
        hidden_size=16,
        num_memory_tokens=4,
        num_encoder_layers=2,
        num_decoder_layers=1,
        num_attention_heads=2,
        initializer_range=0.1,
    )
    set_seed(0)
    student = student_config_for(teacher, cell_type=cell_type, num_updater_layers=2)
    return SmtForPreTraining(SmtConfig(teacher_config=teacher, student_config=student))


def losses(method: str, options: dict, cell_type: str, cache: TokenCache, folder: str) -> list[float]:
    """The loss of every step of a short training, and the sum of the absolute weights after it."""
    model = make_model(cell_type)
    kinds = {
        "smt": (SmtTrainer, SmtTrainingArguments, SMT),
        "dmt": (DmtTrainer, DmtTrainingArguments, DMT),
        "bptt": (BpttTrainer, BpttTrainingArguments, {}),
    }
    trainer_class, arguments_class, defaults = kinds[method]
    arguments = arguments_class(output_dir=folder, **{**COMMON, **defaults, **options})
    windows = TokenWindows(cache, arguments.window_length, seed=0)
    if method == "smt":
        trainer = trainer_class(model, arguments, train_dataset=windows)
    elif method == "dmt":
        trainer = trainer_class(model.export_student(), arguments, teacher=model.teacher, train_dataset=windows)
    else:
        trainer = trainer_class(model.export_student(), arguments, train_dataset=windows)
    trainer.pop_callback(PrinterCallback)
    trainer.train()
    weights = sum(p.detach().double().abs().sum().item() for p in trainer.model.parameters())
    return [*(float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry), weights]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="write the table to this JSON file")
    parser.add_argument("--compare", help="compare with a table that was written before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        write_stories(f"{folder}/stories.txt", num_stories=200, seed=0)
        cache = cached_tokens(f"{folder}/stories.txt", byte_tokenizer(), cache_dir=f"{folder}/cache")
        for variant, (method, fields) in VARIANTS.items():
            for cell_type in CELLS:
                name = f"{variant}, {cell_type}"
                table[name] = losses(method, fields, cell_type, cache, f"{folder}/run")
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
