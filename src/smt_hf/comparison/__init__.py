"""Trains the same student in several ways on a synthetic task or a dataset, and compares the results."""

from .corpus_plots import write_corpus_plots
from .corpus_report import write_corpus_report
from .plots import write_plots
from .recipe import Comparison
from .report import write_report
from .runs import run_shared_stages, run_student
from .stages import Stage

__all__ = [
    "Comparison",
    "Stage",
    "run_shared_stages",
    "run_student",
    "write_corpus_plots",
    "write_corpus_report",
    "write_plots",
    "write_report",
]
