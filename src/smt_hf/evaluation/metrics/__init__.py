"""Metrics for Hugging Face `evaluate`: one folder each, laid out like those of `evaluate` and metric Spaces.

To add one, add a folder with a file of the same name that defines one `evaluate.Metric`; there is no other list of metrics.
Code that needs `evaluate` is imported only when a metric is loaded, because that takes a second.
"""

import tempfile
from importlib import import_module
from pathlib import Path

from ...errors import InputError

METRICS = tuple(
    sorted(file.parent.name for file in Path(__file__).parent.glob("*/*.py") if file.stem == file.parent.name)
)


def load(name: str, **kwargs):
    """Loads one of the package's metrics. Nothing is downloaded and, unlike with `evaluate.load`, no file is copied.

    Args:
        name: one of `METRICS`.
        **kwargs: arguments of `evaluate.Metric`, such as `keep_in_memory`, and those of the metric itself.

    Returns:
        The `evaluate.Metric`.

    Raises:
        InputError: if there is no such metric.
    """
    if name not in METRICS:
        raise InputError(f"metric {name!r} is unknown: choose one of {', '.join(METRICS)}")
    module = import_module(f"{__name__}.{name}.{name}")
    return getattr(module, name.title().replace("_", ""))(**kwargs)


def compute(name: str, **inputs) -> dict:
    """Computes one of the package's metrics for rows that are all in memory; no file is left behind.

    Args:
        name: one of `METRICS`.
        **inputs: inputs of the metric: `predictions`, usually `references`, and its own.
    """
    with tempfile.TemporaryDirectory() as folder:  # a metric makes a folder even when it keeps its rows in memory
        return load(name, keep_in_memory=True, cache_dir=folder).compute(**inputs)


__all__ = ["METRICS", "compute", "load"]
