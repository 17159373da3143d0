"""Field names of earlier versions, and their current names."""

from collections.abc import Iterable

from .typed import did_you_mean

RENAMED = {
    "backprop_steps": "segment_length",
    "folder": "model",
    "max_eval_windows": "num_eval_windows",
    "num_decoder_layers": "num_readout_layers",
    "num_hidden_layers": "num_updater_layers",
    "rollout_steps": "segment_length",
    "student": "model",
    "train_split": "split",
}


def hint_for(name: str, known: Iterable[str], prefix: str = "") -> str | None:
    """A hint at what an unknown name was meant to be: its new name, or the nearest known one; `None` if none is near.

    Args:
        name: the unknown name.
        known: the valid names.
        prefix: prefix of the names, such as `--` for flags.
    """
    known = list(known)
    new = RENAMED.get(name)
    if new in known:
        return f"it is called {prefix + new!r} now"
    return did_you_mean(prefix + name, [prefix + each for each in known])
