"""Models, text and trainers shared by several scripts, at the paper's size or a small one."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from transformers import PrinterCallback, ProgressCallback, set_seed

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


@dataclass(frozen=True)
class Sizes:
    """The sizes of the models and of a training step."""

    hidden_size: int
    num_memory_tokens: int
    num_encoder_layers: int
    num_decoder_layers: int
    num_updater_layers: int
    num_attention_heads: int
    context_length: int
    horizon: int
    batch_size: int
    rollout_length: int
    segment_length: int
    generation_batches: tuple[int, ...]


SIZES = {
    "paper": Sizes(256, 16, 8, 4, 8, 8, 256, 64, 128, 256, 16, (1, 32, 1024)),
    "small": Sizes(32, 4, 2, 1, 2, 2, 32, 8, 4, 32, 4, (1, 4)),
}


def make_model(sizes: Sizes, seed: int = 0, cell_type: str = "transformer", **teacher_fields) -> SmtForPreTraining:
    """Teacher and student with random weights."""
    teacher = SmtTeacherConfig(
        hidden_size=sizes.hidden_size,
        num_memory_tokens=sizes.num_memory_tokens,
        num_encoder_layers=sizes.num_encoder_layers,
        num_decoder_layers=sizes.num_decoder_layers,
        num_attention_heads=sizes.num_attention_heads,
        **teacher_fields,
    )
    set_seed(seed)
    student = student_config_for(teacher, num_updater_layers=sizes.num_updater_layers, cell_type=cell_type)
    return SmtForPreTraining(SmtConfig(teacher_config=teacher, student_config=student))


@cache
def corpus(path: str | None, seed: int = 0) -> TokenCache:
    """The token cache at `path`, or a small one of the demo's stories, which depend on the seed."""
    if path is not None:
        return TokenCache.open(path)
    folder = Path(tempfile.mkdtemp())
    write_stories(folder / "stories.txt", num_stories=200, seed=seed)
    return cached_tokens(str(folder / "stories.txt"), byte_tokenizer(), cache_dir=str(folder / "cache"))


def methods(sizes: Sizes) -> dict[str, tuple[str, dict]]:
    """The methods to measure: for each name, the kind of its trainer, and its arguments besides the common ones."""
    smt = {"context_length": sizes.context_length, "horizon": sizes.horizon, "drift_steps": 0}
    dmt = {
        "context_length": sizes.context_length,
        "rollout_length": sizes.rollout_length,
        "per_device_train_batch_size": min(32, sizes.batch_size),
        "drift_steps": 0,
    }
    bptt = {"context_length": sizes.context_length}
    segment = sizes.segment_length
    return {
        "SMT, J = 1": ("smt", {**smt, "num_transitions": min(32, sizes.context_length)}),
        f"SMT, J = {segment}": (
            "smt",
            {
                **smt,
                "num_transitions": 4 * segment,
                "segment_length": segment,
                "student_weight": 1.0,
                "num_decoded": 2,
            },
        ),
        "DMT by sweeps, J = 1": ("dmt", dmt),
        f"DMT by sweeps, J = {segment}": ("dmt", {**dmt, "segment_length": segment, "num_sweeps": [0, 1, 2]}),
        f"BPTT over {segment}, carried": ("bptt", {**bptt, "bptt_horizon": segment, "carry_memory": True}),
        "DMT, sequential": ("dmt", {**dmt, "rollout": "sequential", "cold_start_probability": 1.0}),
        f"BPTT over {sizes.context_length}": ("bptt", {**bptt, "checkpoint_steps": segment}),
    }


def make_trainer(kind: str, model: SmtForPreTraining, windows_of, device: str, folder: str, **fields):
    """A trainer without progress bars and checkpoints.

    Args:
        kind: "smt", "dmt" or "bptt".
        model: teacher and student; DMT and BPTT train a copy of the student.
        windows_of: maps a window's length to the training data.
        device: "cpu" or "cuda".
        folder: the folder that the trainer writes to.
        **fields: fields of the trainer's arguments.
    """
    trainer_class, arguments_class = {
        "smt": (SmtTrainer, SmtTrainingArguments),
        "dmt": (DmtTrainer, DmtTrainingArguments),
        "bptt": (BpttTrainer, BpttTrainingArguments),
    }[kind]
    common = {
        "output_dir": folder,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device == "cpu",
        "learning_rate": 3e-4,
        "logging_steps": 1_000_000,
        "eval_rollout_steps": 0,
    }
    arguments = arguments_class(**{**common, **fields})
    data = windows_of(arguments.window_length)
    if kind == "smt":
        trainer = trainer_class(model, arguments, train_dataset=data)
    elif kind == "dmt":
        trainer = trainer_class(model.export_student(), arguments, teacher=model.teacher, train_dataset=data)
    else:
        trainer = trainer_class(model.export_student(), arguments, train_dataset=data)
    for callback in (PrinterCallback, ProgressCallback):
        trainer.pop_callback(callback)
    return trainer


def windows(tokens: TokenCache):
    """A function that maps a window's length to windows of a token cache."""
    return lambda length: TokenWindows(tokens, length, seed=0)
