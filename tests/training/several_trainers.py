"""Small trainings one after another, for `test_sharding.py`: in one process, or in two that copy or share out the weights.

    torchrun --nproc_per_node 2 several_trainers.py STORIES FOLDER copies/bptt shares/bptt shares/bptt@copies

The last goes on from the checkpoint that `copies/bptt` wrote.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from smt_hf.data import TokenWindows, byte_tokenizer, cached_tokens
from smt_hf.training import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    LmTrainer,
    LmTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from tests.backbones import language_model, model_on
from tests.conftest import tiny_model
from tests.training.conftest import COMMON, DMT, SMT

# What accelerate launch says of configs/accelerate/fsdp2.yaml
LAUNCHED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "NO_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "false",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
CASES = {
    "smt": ("smt", {"muon": True, "gradient_accumulation_steps": 2, "load_best_model_at_end": True}),
    "smt_backbone": ("smt", {"kd_weight": 0.5, "stream_weight": 0.0}),
    "dmt": ("dmt", {"segment_length": 2, "muon": True}),
    "dmt_sequential": ("dmt", {"segment_length": 4, "rollout": "sequential"}),
    "dmt_carried": ("dmt", {"segment_length": 4, "rollout": "carried", "teacher_lead": 4}),
    "bptt": ("bptt", {}),
    "bptt_carried": ("bptt", {"bptt_horizon": 8, "carry_memory": True, "checkpoint_steps": 3}),
    "bptt_bf16": ("bptt", {"bptt_horizon": 8, "bf16": True, "logging_steps": 1, "learning_rate": 1e-3}),
    "lm": ("lm", {}),
}
STEPS, SAVED = 3, 2
prepare_state = AcceleratorState.__init__


def prepare_on_cpus(state, *args, fsdp_plugin=None, **kwargs):
    """Accelerate shares out models among accelerators alone; here processes on CPUs count as some."""
    prepare_state(state, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is None:
        return
    state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    if state._mixed_precision != "no":
        fsdp_plugin.set_mixed_precision(state._mixed_precision)


def make(case: str, stories: Path, folder: Path):
    """The trainer of a case in float64."""
    method, options = CASES[case]
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    rows = 8 // world_size // options.get("gradient_accumulation_steps", 1)
    common = {**COMMON, "max_steps": STEPS, "save_strategy": "steps", "save_steps": SAVED, "eval_rollout_steps": 8}
    common |= {"per_device_train_batch_size": rows, "per_device_eval_batch_size": 4, "eval_strategy": "steps"}
    common |= {"eval_steps": SAVED, "drift_steps": 6, "output_dir": str(folder), "max_grad_norm": 0.5}
    common |= {"logging_steps": 2}
    cache = cached_tokens(str(stories / "train.txt"), byte_tokenizer(), cache_dir=stories / "cache")
    dtype = torch.float32 if options.get("bf16") else torch.float64
    joint = tiny_model(vocab_size=258, dtype=dtype, initializer_range=0.1)
    language = language_model(vocab_size=258, bos_token_id=256)
    if case == "smt_backbone":
        joint = model_on(language)
    if method == "smt":
        args = SmtTrainingArguments(**{**common, **SMT, **options})
        trainer, models = SmtTrainer, {"model": joint}
    elif method == "dmt":
        args = DmtTrainingArguments(**{**common, **DMT, **options})
        trainer, models = DmtTrainer, {"model": joint.export_student(), "teacher": joint.teacher}
    else:
        common = {name: value for name, value in common.items() if name != "drift_steps"}
        if method == "bptt":
            args = BpttTrainingArguments(**{**common, **options})
            trainer, models = BpttTrainer, {"model": joint.export_student()}
        else:
            del common["eval_rollout_steps"]
            args = LmTrainingArguments(**{**common, **options})
            trainer, models = LmTrainer, {"model": language}
    windows = TokenWindows(cache, args.window_length)
    held_out = torch.utils.data.Subset(windows, range(8))
    return trainer(**models, args=args, train_dataset=windows, eval_dataset=held_out)


def run(name: str, stories: Path, folder: Path) -> None:
    """Runs `processes/case` or `processes/case@origin`, and leaves the model and the state of the trainer in its folder."""
    processes, _, case = name.partition("/")
    case, _, origin = case.partition("@")
    for variable, value in LAUNCHED.items():
        os.environ.pop(variable, None)
        if processes == "shares":
            os.environ[variable] = "TRANSFORMER_BASED_WRAP" if value == "NO_WRAP" and case == "lm" else value
    trainer = make(case, stories, folder / name)
    trainer.train(resume_from_checkpoint=str(folder / origin / case / f"checkpoint-{SAVED}") if origin else None)
    trainer.save_model()
    trainer.save_state()


def main(stories: str, folder: str, *names: str) -> None:
    torch.set_num_threads(1)
    AcceleratorState.__init__ = prepare_on_cpus
    for name in names:
        run(name, Path(stories), Path(folder))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
