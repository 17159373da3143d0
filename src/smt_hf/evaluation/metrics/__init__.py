"""Metrics for Hugging Face `evaluate`: a folder each, laid out as `evaluate` and metric Spaces have them.

To add one, add a folder with a file of the same name that defines one `evaluate.Metric`; nothing else lists them. What needs
`evaluate` is imported when a metric is loaded, for that takes a second.
"""

import tempfile
from importlib import import_module
from pathlib import Path

from ...errors import InputError

METRICS = tuple(
    sorted(file.parent.name for file in Path(__file__).parent.glob("*/*.py") if file.stem == file.parent.name)
)


def load(name: str, **kwargs):
    """One of the package's metrics. Nothing is downloaded, and unlike with `evaluate.load` no copy of the file is made.

    Args:
        name: one of `METRICS`.
        **kwargs: those of `evaluate.Metric`, such as `keep_in_memory`, and what the metric itself takes.

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
    """The results of one of the package's metrics for rows that are all at hand; no file is left behind.

    Args:
        name: one of `METRICS`.
        **inputs: those of the metric: `predictions`, in most of them `references`, and its own.
    """
    with tempfile.TemporaryDirectory() as folder:  # a metric makes a folder even when it keeps its rows in memory
        return load(name, keep_in_memory=True, cache_dir=folder).compute(**inputs)


__all__ = ["METRICS", "compute", "load"]
