"""One arm of the race: trains on real text for a given time and tracks the held-out loss; see prove_gpu.py.

python scripts/gpu_race.py --arm smt --seconds 100 --train TOKEN_CACHE --valid TOKEN_CACHE --output arm.json
"""

import argparse
import json
import tempfile
import time

import torch
from gpu_steps import compile_cell
from training_setup import SIZES, Sizes, corpus, make_model, make_trainer, windows
from transformers import TrainerCallback

from smt_hf.data import evenly_spaced_windows
from smt_hf.rollout import next_token_losses, rollout

RECIPE = {  # for all arms
    "muon": True,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "warmup_stable_decay",
    "lr_scheduler_kwargs": {"num_decay_steps": 0.7, "min_lr_ratio": 0.2, "decay_type": "linear"},
    "max_grad_norm": 1.0,
}
MODEL = {"hidden_act": "relu2", "qk_norm": True, "zero_init_residual": True, "initializer_range": 0.04}
SMT_SHARE = 0.75  # of the seconds; the rest is DMT


def stages(arm: str, sizes: Sizes) -> list[tuple[str, float, dict]]:
    """The trainings of an arm, as kind, share of the seconds, and arguments."""
    length, segment, batch = sizes.context_length, sizes.segment_length, sizes.batch_size
    if arm == "smt":
        smt = {
            "context_length": length,
            "horizon": sizes.horizon // 2,
            "num_transitions": length,
            "segment_length": segment,
            "num_decoded": 1,
            "student_weight": 1.0,
            "dynamics_weight": 0.3,
            "per_device_train_batch_size": batch // 2,
            "drift_steps": 0,
        }
        dmt = {
            "context_length": length,
            "rollout_length": length - segment,
            "num_sweeps": [0, 1, 2],
            "segment_length": segment,
            "dynamics_weight": 0.3,
            "learning_rate": 7e-4,
            "lr_scheduler_type": "linear",
            "lr_scheduler_kwargs": None,
            "per_device_train_batch_size": batch // 2,
            "drift_steps": 0,
        }
        return [("smt", SMT_SHARE, smt), ("dmt", 1 - SMT_SHARE, dmt)]
    bptt = {"context_length": length, "per_device_train_batch_size": batch}
    if arm == "bptt_truncated":
        return [("bptt", 1.0, {**bptt, "bptt_horizon": segment, "carry_memory": True})]
    return [("bptt", 1.0, {**bptt, "checkpoint_steps": segment})]


@torch.no_grad()
def held_out_loss(student, tokens: torch.Tensor, documents: torch.Tensor, chunk: int = 256) -> float:
    """The loss of the student's rollout from its initial memory, in nats per token, computed in float32."""
    training = student.training
    student.eval()
    total = 0.0
    for first in range(0, len(tokens), chunk):
        rows = slice(first, first + chunk)
        input_ids = tokens[rows].to(student.device)
        before, _ = rollout(student, input_ids, documents=documents[rows].to(student.device))
        total += next_token_losses(student.readout, before, input_ids).double().sum().item()
    student.train(training)
    return total / tokens.numel()


class HeldOut(TrainerCallback):
    """Measures the held-out loss from time to time. The training's clock is stopped meanwhile."""

    def __init__(self, trainer, valid: dict, before: float, every: float, curve: list):
        self.trainer, self.valid, self.before, self.every, self.curve = trainer, valid, before, every, curve
        self.next = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = self.trainer.clock.elapsed
        if elapsed < self.next and not control.should_training_stop:
            return
        self.next = elapsed + self.every
        joint = self.trainer.model
        if hasattr(joint, "set_initial_memory"):
            joint.set_initial_memory()
        loss = held_out_loss(self.trainer.student(), **self.valid)
        tokens = self.trainer._race_tokens * state.global_step
        point = {"seconds": self.before + elapsed, "loss": loss, "step": state.global_step, "tokens": tokens}
        self.curve.append(point)
        print(f"  {point['seconds']:7.1f} s {loss:.4f} nats per token, step {state.global_step}", flush=True)
        self.trainer.clock.skip()


def run(options) -> dict:
    """Trains the arm's stages one after another."""
    sizes = SIZES[options.sizes]
    train, valid_cache = corpus(options.train), corpus(options.valid, seed=1)
    found = evenly_spaced_windows(valid_cache, sizes.context_length, options.num_windows)
    valid = {"tokens": found["input_ids"], "documents": found["documents"]}
    joint, curve, before, steps = make_model(sizes, **MODEL), [], 0.0, []
    for kind, share, fields in stages(options.arm, sizes):
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(
                kind,
                joint,
                windows(train),
                options.device,
                folder,
                **{
                    **RECIPE,
                    "bf16": True,
                    "max_train_seconds": options.seconds * share,
                    "dataloader_num_workers": 4 if options.device == "cuda" else 0,
                    **fields,
                },
            )
            if options.compile:
                compile_cell(trainer)
            args = trainer.args
            length = args.bptt_horizon if getattr(args, "carry_memory", False) else args.context_length
            trainer._race_tokens = args.per_device_train_batch_size * length
            trainer.add_callback(HeldOut(trainer, valid, before, options.seconds / 6, curve))
            trainer.train()
            before += trainer.clock.elapsed
            steps.append({"kind": kind, "steps": trainer.state.global_step, "seconds": trainer.clock.elapsed})
    return {"arm": options.arm, "compiled": options.compile, "stages": steps, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=["smt", "bptt_truncated", "bptt"], required=True)
    parser.add_argument("--seconds", type=float, default=100.0, help="seconds of training, without evaluation")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--sizes", choices=list(SIZES), default="paper")
    parser.add_argument("--train", help="token cache to train on; the demo's stories by default")
    parser.add_argument("--valid", help="token cache of held-out text; others of the demo's stories by default")
    parser.add_argument("--num_windows", type=int, default=256, help="held-out windows")
    parser.add_argument("--compile", action="store_true", help="compile the step of the recurrence")
    parser.add_argument("--output", required=True, help="JSON file")
    options = parser.parse_args()
    begin = time.perf_counter()
    result = run(options)
    result["wall_seconds"] = time.perf_counter() - begin
    with open(options.output, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
