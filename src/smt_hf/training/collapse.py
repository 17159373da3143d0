"""A warning when memories collapse in training."""

import logging
import math

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

ARGUMENTS = {"memory_variance": "collapse_variance", "effective_rank": "collapse_rank"}
MEANINGS = {
    "memory_variance": "all contexts have nearly the same memory",
    "effective_rank": "the memories of all contexts lie almost on one line, which is enough only for a task with few states",
}


class CollapseWarning(TrainerCallback):
    """Warns when the trainer's logs show that the memories have collapsed to a point or to a line.

    A `memory_variance` near 0 means a point; the effective rank cannot show this, because it does not depend on how far
    apart memories are. An effective rank near 1 means a line (complete and dimensional collapse: Jing et al., Understanding
    dimensional collapse in contrastive self-supervised learning, ICLR 2022).

    A value must be below its threshold in `patience` consecutive logs. Logs do not count while the learning rate rises, in
    the warm-up, and neither do values that are not finite. There is one warning per collapse. The callback reads all this
    from the log history, which every checkpoint contains, so it carries on in a resumed run.

    Args:
        variance: warn below this `memory_variance`; 0: never.
        rank: warn below this `effective_rank`; 0: never.
        patience: number of consecutive logs.
    """

    def __init__(self, variance: float = 1e-3, rank: float = 1.2, patience: int = 5):
        self.thresholds = {"memory_variance": variance, "effective_rank": rank}
        self.patience = patience

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or "effective_rank" not in (logs or {}):
            return
        history = [entry for entry in state.log_history if "effective_rank" in entry]
        for name, threshold in self.thresholds.items():
            logs_below = count_below(history, name, threshold)
            if logs_below == self.patience:
                logger.warning("%s", describe(history, name, threshold, self.patience) + " " + advice(args))
            if logs_below >= self.patience:
                break  # for a point, the rank needs no second warning


def count_below(history: list[dict], name: str, threshold: float) -> int:
    """Counts how many logs in a row, up to the last, have a value below the threshold at a learning rate that did not rise."""
    for count, index in enumerate(range(len(history) - 1, -1, -1)):
        entry, before = history[index], history[index - 1] if index else {}
        rising = entry.get("learning_rate", 0.0) > before.get("learning_rate", math.inf)
        if rising or not entry.get(name, math.inf) < threshold:
            return count
    return len(history)


def describe(history: list[dict], name: str, threshold: float, patience: int) -> str:
    """Says which value is below which threshold, since when, and what that means."""
    below = history[-patience:]
    highest = max((entry for entry in history if name in entry), key=lambda entry: entry[name])
    return (
        f"the memories have collapsed: {name} was at most {max(entry[name] for entry in below):.3g} from step "
        f"{below[0]['step']} to {below[-1]['step']}, below {ARGUMENTS[name]}={threshold:g} "
        f"(its highest was {highest[name]:.3g}, at step {highest['step']}): {MEANINGS[name]}."
    )


def advice(args) -> str:
    """Says what to do, depending on the trainer's arguments."""
    rate = f"learning_rate (now {args.learning_rate:g})"
    if not hasattr(args, "dynamics_weight"):  # BPTT
        return f"Lower {rate} or max_grad_norm (now {args.max_grad_norm:g})."
    dynamics = f"dynamics_weight (now {args.dynamics_weight:g})"
    if not hasattr(args, "uniformity_weight"):  # DMT
        return (
            "If the teacher's memories collapsed too (memory_variance and effective_rank of its own training), train it "
            f"again; otherwise lower {rate} or {dynamics}."
        )
    text = f"Raise uniformity_weight (now {args.uniformity_weight:g}) or lower {dynamics}"
    if not args.detach_teacher:
        text += ", or set detach_teacher to keep the dynamics loss out of the teacher"
    if not args.readout_weight and not args.decoding_weight:
        text += "; and raise readout_weight or decoding_weight, since at 0 nothing makes the memories store anything"
    return text + "."
