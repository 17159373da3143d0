"""Metrics for Hugging Face `evaluate`: a folder each, laid out as `evaluate` and metric Spaces have them.

They need the extra: `pip install 'smt-hf[evaluate]'`.
"""

from pathlib import Path

from ...errors import InputError

METRICS = ("bits_per_byte", "drift", "effective_rank", "rollout_loss")


def load(name: str, **kwargs):
    """`evaluate.load` of one of the package's metrics; works offline.

    Args:
        name: one of `METRICS`.
        **kwargs: those of `evaluate.load`, such as `keep_in_memory`, and what the metric itself takes.

    Returns:
        The `evaluate.Metric`.

    Raises:
        InputError: if there is no such metric, or `evaluate` is not installed.
    """
    if name not in METRICS:
        raise InputError(f"metric {name!r} is unknown: choose one of {', '.join(METRICS)}")
    try:
        import evaluate
    except ImportError as error:
        raise InputError(f"metric {name!r} needs evaluate: pip install 'smt-hf[evaluate]'") from error
    return evaluate.load(str(Path(__file__).parent / name), **kwargs)


__all__ = ["METRICS", "load"]
