"""Measures training speed: dense SMT against one position per window, and DMT against the unrolled step, in one run.

    python scripts/benchmark.py                  # the CPU size of configs/tinystories_cpu, two threads
    python scripts/benchmark.py --num_threads 1

The variants are timed in turn over several rounds, on random tokens. The table gives medians, and ratios within the rounds.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace

import torch
from training_setup import SIZES, make_model

from smt_hf import SmtForPreTraining
from smt_hf.losses import dynamics
from smt_hf.rollout import teacher_states
from smt_hf.training import DmtTrainer, DmtTrainingArguments, SmtTrainer, SmtTrainingArguments

CONTEXT, HORIZON, ROLLOUT = 128, 32, 64
CPU_SIZES = replace(
    SIZES["small"],
    hidden_size=128,
    num_encoder_layers=4,
    num_decoder_layers=2,
    num_updater_layers=4,
    num_attention_heads=4,
)


def build(encoder_attention: str) -> SmtForPreTraining:
    """Teacher and student at the CPU size."""
    return make_model(CPU_SIZES, hidden_act="relu2", qk_norm=True, encoder_attention=encoder_attention)


def smt_variant(folder: str, batch_size: int, encoder_attention="causal", **arguments):
    """A function that takes one optimiser step of SMT and returns its transitions."""
    arguments = SmtTrainingArguments(
        output_dir=folder, context_length=CONTEXT, horizon=HORIZON, use_cpu=True, report_to="none", **arguments
    )
    trainer = SmtTrainer(model=build(encoder_attention), args=arguments)
    return step_function(trainer, {"input_ids": torch.randint(256, (batch_size, CONTEXT + HORIZON))})


def dmt_variant(folder: str, **arguments):
    """A function that takes one optimiser step of DMT over 32 sequences of 64 steps."""
    arguments = DmtTrainingArguments(
        output_dir=folder,
        context_length=CONTEXT,
        rollout_length=ROLLOUT,
        use_cpu=True,
        report_to="none",
        **arguments,
    )
    joint = build("causal")
    trainer = DmtTrainer(model=joint.export_student(), teacher=joint.teacher, args=arguments)
    return step_function(trainer, {"input_ids": torch.randint(256, (32, CONTEXT + 1))})


def step_function(trainer, inputs):
    trainer.create_optimizer()
    trainer.create_scheduler(1000)
    trainer.current_gradient_accumulation_steps = 1
    batches = iter(lambda: inputs, None)  # the same batch again and again

    def step() -> int:
        [micro_batch], items = trainer.get_batch_samples(batches, 1, "cpu")
        trainer.training_step(trainer.model, micro_batch, items)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        trainer.state.global_step += 1
        return trainer.num_counted(micro_batch["step"])

    return step


def unrolled_variant(encoder_attention: str):
    """The paper's DMT step: one graph over the whole rollout, with states detached between steps and the teacher's labels."""
    joint = build(encoder_attention)
    student, teacher = joint.export_student().train(), joint.teacher.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-5)
    tokens = torch.randint(256, (32, CONTEXT + 1))
    first = (CONTEXT - ROLLOUT) // 2

    def step() -> int:
        positions = torch.arange(first - 1, first + ROLLOUT)
        target = teacher_states(teacher, tokens, positions, chunk_size=8 if encoder_attention != "causal" else 128)
        memory, loss = target[:, 0], 0.0
        for t in range(ROLLOUT):
            memory = student.update(memory.detach(), tokens[:, first + t])
            logits = student.readout(memory.detach())
            loss = loss + torch.nn.functional.cross_entropy(logits, tokens[:, first + t + 1])
            loss = loss + 10 * dynamics(memory, target[:, t + 1], torch.ones(32)).mean
        (loss / ROLLOUT).backward()
        optimizer.step()
        optimizer.zero_grad()
        return 32 * ROLLOUT

    return step


def measure(variants: dict, rounds: int, min_seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Times every variant in every round, in seconds per step and transitions per second."""
    for step in variants.values():
        step()
    results = {name: [] for name in variants}
    for _ in range(rounds):
        for name, step in variants.items():
            start, steps, transitions = time.perf_counter(), 0, 0
            while (elapsed := time.perf_counter() - start) < min_seconds or not steps:
                transitions += step()
                steps += 1
            results[name].append((elapsed / steps, transitions / elapsed))
    return results


def print_table(title: str, results: dict, baseline: str, column: int) -> None:
    """Prints medians with their range, and the median over the rounds of the ratio to the baseline."""
    print(f"\n{title}\n{'':44}{'s/step':>10}{'transitions/s':>15}{'range':>16}{'ratio':>8}")
    for name, rows in results.items():
        seconds, speed = (statistics.median(row[i] for row in rows) for i in (0, 1))
        pairs = zip(rows, results[baseline], strict=True)
        ratios = [mine[1] / base[1] if column else base[0] / mine[0] for mine, base in pairs]
        spread = f"{min(row[1] for row in rows):.0f}-{max(row[1] for row in rows):.0f}"
        print(f"{name:44}{seconds:10.3f}{speed:15.0f}{spread:>16}{statistics.median(ratios):8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_threads", type=int, default=2, help="of PyTorch")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, in each of which every variant is timed once")
    parser.add_argument(
        "--min_seconds", type=float, default=3.0, help="minimum seconds of every variant in every round"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        single = "one position, bidirectional encoder (paper)"
        paper = {
            "num_transitions": 1,
            "num_decoded": 1,
            "full_context": True,
            "readout_weight": 0.0,
            "stream_weight": 0.0,
        }
        smt = {
            single: smt_variant(folder, 8, "bidirectional", **paper),
            "dense, 32 transitions per window": smt_variant(folder, 8),
            "dense, 128 transitions per window": smt_variant(folder, 8, num_transitions=128),
            "dense, 8 segments of 16 steps (recipe)": smt_variant(
                folder, 8, num_transitions=128, segment_length=16, num_decoded=1, student_weight=1.0
            ),
        }
        results = measure(smt, options.rounds, options.min_seconds)
        print_table("SMT, 8 windows per step", results, single, 1)
        unrolled = "unrolled, teacher position by position (paper)"
        dmt = {
            unrolled: unrolled_variant("bidirectional"),
            "unrolled, dense teacher": unrolled_variant("causal"),
            "sequential states, one batched regression": dmt_variant(folder, rollout="sequential"),
            "sweeps of 1-16, one batched regression": dmt_variant(folder),
            "0-2 sweeps of 16 steps, gradient (recipe)": dmt_variant(folder, segment_length=16, num_sweeps=[0, 1, 2]),
        }
        results = measure(dmt, options.rounds, options.min_seconds)
        print_table("DMT, 32 sequences x 64 steps", results, unrolled, 0)


if __name__ == "__main__":
    main()
