"""One evaluation of a student and, where there is one, its teacher: as numbers, a table and a plot."""

import math

import torch

from ..data import TokenCache, evenly_spaced_windows
from ..losses import squared_distance
from ..rollout import next_token_losses, rollout, teacher_rollout, teacher_states


@torch.no_grad()
def evaluate_models(
    student,
    cache: TokenCache,
    teacher=None,
    context_length: int = 128,
    rollout_steps: int = 256,
    num_windows: int = 64,
    batch_size: int = 16,
) -> dict:
    """Rolls the student over validation windows and compares it with the teacher.

    A window holds a context of `context_length` tokens, which the warm start has read through the teacher, and
    `rollout_steps` tokens, on which cold and warm start are scored alike. At the first token of a document every
    memory starts afresh.

    Args:
        student: an `SmtRnnForCausalLM`.
        cache: the validation tokens.
        teacher: the `SmtTeacherModel`, or `None`.
        context_length: the teacher's context in training.
        rollout_steps: steps of the student on its own states.
        num_windows: windows, spread evenly over the corpus.
        batch_size: windows at a time.

    Returns:
        `student_cold` (from the initial memory) and, with a teacher, `student_warm` (from the teacher's state) and
        `teacher` (its own readout over the first `context_length` tokens of the rollout), each with `nats_per_token`,
        `standard_error` over the windows, `bits_per_byte` and the losses `by_position`; and the curve `drift`.

    Raises:
        InputError: if the corpus is shorter than one window.
    """
    windows = evenly_spaced_windows(cache, context_length + rollout_steps, num_windows)
    collected = {}
    for first in range(0, num_windows, batch_size):
        rows = slice(first, first + batch_size)
        input_ids = windows["input_ids"][rows].to(student.device)
        documents = windows["documents"][rows].to(student.device)
        scored, scored_documents = input_ids[:, context_length:], documents[:, context_length:]
        batch = {}
        before, after = rollout(student, scored, documents=scored_documents)
        batch["student_cold"] = next_token_losses(student.readout, before, scored)
        if teacher is not None:
            position = torch.tensor([context_length - 1], device=input_ids.device)
            warm = teacher_states(teacher, input_ids, position, documents=documents)[:, 0]
            begins = documents[:, context_length] != documents[:, context_length - 1]
            warm = torch.where(begins[:, None, None], student.initial_memory, warm)
            before, _ = rollout(student, scored, memory=warm, documents=scored_documents)
            batch["student_warm"] = next_token_losses(student.readout, before, scored)
            teacher_before, teacher_after = teacher_rollout(teacher, scored, scored_documents)
            batch["teacher"] = next_token_losses(teacher.readout, teacher_before, scored)
            batch["drift"] = squared_distance(after, teacher_after)
        for name, values in batch.items():
            collected.setdefault(name, []).append(values.double().cpu())

    bytes_per_token = cache.num_bytes / cache.num_tokens
    report = {
        "context_length": context_length,
        "rollout_steps": rollout_steps,
        "num_windows": num_windows,
        "bytes_per_token": round(bytes_per_token, 4),
    }
    for name, batches in collected.items():
        values = torch.cat(batches)
        if name == "drift":
            report["drift"] = [round(value, 6) for value in values.mean(dim=0).tolist()]
            continue
        # beyond its training context the teacher is out of its depth: the curve shows it, the mean leaves it out
        counted = values[:, :context_length] if name == "teacher" else values
        per_window = counted.mean(dim=1)
        loss = per_window.mean().item()
        report[name] = {
            "nats_per_token": round(loss, 4),
            "standard_error": round((per_window.std() / math.sqrt(num_windows)).item(), 4)
            if num_windows > 1
            else None,
            "bits_per_byte": round(bits_per_byte(loss, bytes_per_token), 4),
            "by_position": [round(value, 4) for value in values.mean(dim=0).tolist()],
        }
    if "student_warm" in report:
        report["cold_minus_warm"] = round(
            report["student_cold"]["nats_per_token"] - report["student_warm"]["nats_per_token"], 4
        )
    return report


def bits_per_byte(nats_per_token: float, bytes_per_token: float) -> float:
    """A loss in nats per token as bits per byte of the text, which compares models with different tokenizers.

    Args:
        nats_per_token: the mean cross-entropy.
        bytes_per_token: bytes of the text divided by its tokens.
    """
    return nats_per_token / math.log(2) / bytes_per_token


def format_table(report: dict) -> str:
    """The report as a table: a row a start, with the mean loss over quarters of the rollout."""
    steps = report["rollout_steps"]
    quarters = [(steps * quarter // 4, steps * (quarter + 1) // 4) for quarter in range(4)]
    heads = "".join(f"{f'{a}-{b}':>10}" for a, b in quarters)
    rows = [f"{'':22}{'nats/token':>12}{'+-':>8}{'bits/byte':>11}{heads}"]
    labels = {
        "teacher": f"teacher (first {report['context_length']})",
        "student_warm": "student, warm start",
        "student_cold": "student, cold start",
    }
    for name, label in labels.items():
        if name in report:
            row = report[name]
            by_position = row["by_position"]
            means = "".join(f"{sum(by_position[a:b]) / (b - a):10.3f}" if b > a else " " * 10 for a, b in quarters)
            error = f"{row['standard_error']:8.4f}" if row["standard_error"] is not None else f"{'-':>8}"
            rows.append(f"{label:22}{row['nats_per_token']:12.4f}{error}{row['bits_per_byte']:11.4f}{means}")
    if "drift" in report:
        curve = report["drift"]
        points = [step for step in (1, 4, 16, 64, 256, 1024) if step <= len(curve)]
        rows.append("drift after " + ", ".join(f"{step} steps {curve[step - 1]:.4f}" for step in points))
    return "\n".join(rows)


def plot_report(report: dict, path: str) -> None:
    """Draws the loss by position and the drift curve into an image file.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = 2 if "drift" in report else 1
    figure, axes = pyplot.subplots(1, panels, figsize=(6 * panels, 4), squeeze=False, layout="constrained")
    loss_axis = axes[0][0]
    for name, label in (("teacher", "teacher"), ("student_warm", "student, warm"), ("student_cold", "student, cold")):
        if name in report:
            by_position = torch.tensor(report[name]["by_position"])
            width = max(1, len(by_position) // 32)
            smooth = by_position.unfold(0, width, 1).mean(dim=-1)
            loss_axis.plot(range(width // 2, width // 2 + len(smooth)), smooth, label=label)
    loss_axis.axvline(report["context_length"], color="grey", linestyle=":", label="training context")
    loss_axis.set(xlabel="step of the rollout", ylabel="nats per token", title="Loss by position")
    loss_axis.legend()
    if panels == 2:
        axes[0][1].plot(range(1, len(report["drift"]) + 1), report["drift"])
        axes[0][1].axvline(report["context_length"], color="grey", linestyle=":")
        axes[0][1].set(xlabel="step of the rollout", ylabel="mean squared error", title="Drift from the teacher")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
