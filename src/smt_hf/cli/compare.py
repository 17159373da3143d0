"""`smt-hf compare`: SMT, DMT and BPTT side by side on a synthetic task, or on a dataset of text or images."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path

import torch
from huggingface_hub.utils import disable_progress_bars
from transformers.utils import logging

from ..comparison import (
    Comparison,
    run_shared_stages,
    run_student,
    write_corpus_plots,
    write_corpus_report,
    write_plots,
    write_report,
)
from ..errors import InputError
from ..utils.folder_lock import hold_folder
from .parsing import Command, parse


@dataclass
class CompareOptions:
    """Where the results go, and how many runs are trained at a time."""

    _argument_group_name = "run"

    output_dir: str = field(
        default="runs/comparison", metadata={"help": "Folder for results, models, tables and plots."}
    )
    num_processes: int = field(default=1, metadata={"help": "Runs to train at a time, each on one CPU thread."})
    report_only: bool = field(
        default=False, metadata={"help": "Train nothing; write the tables and plots of the existing results."}
    )


COMMAND = Command(
    name="compare",
    kinds=[CompareOptions, Comparison],
    description="""Train the same student in several ways on a synthetic task, or on a dataset of text or images, with several
lengths or shares of the data, seeds and cells, and compare the results in tables (results.csv, results.md) and plots. A comparison
that was stopped continues where it left off: finished stages are not trained again. The recipe says what to train; see
configs/synthetic/ for tasks and configs/compare/ for datasets.""",
    example=r"""example:
  smt-hf compare configs/synthetic/retrieval.yaml --num_processes 2 \
      --output_dir runs/synthetic/retrieval
  smt-hf compare configs/synthetic/retrieval.yaml --lengths 32 --seeds 0 \
      --cpu_seconds 60 --output_dir runs/short
  smt-hf compare configs/synthetic/retrieval.yaml --report_only \
      --output_dir runs/synthetic/retrieval
  smt-hf compare configs/compare/mnist.yaml --seeds 0 \
      --output_dir runs/compare/mnist""",
    positionals=["config"],
)


def main(argv: Sequence[str]) -> str:
    """Runs the command and returns the tables."""
    options, comparison = parse(COMMAND, argv)
    if Path(options.output_dir).is_file():
        raise InputError(f"output_dir={options.output_dir!r} is a file: pass a folder")
    if all(stage.shown_label is None for stage in comparison.chosen_stages()):
        raise InputError(
            f"only={comparison.only}: none of these stages appears in a table: add one that comes after them"
        )
    if not options.report_only:
        if comparison.task is None:
            comparison.check_honoured(comparison.subject.processing)
        comparison.subject.open()
        hold_folder(options.output_dir)
        shared = [
            (comparison, cell, seed, options.output_dir) for seed in comparison.seeds for cell in comparison.cells
        ]
        runs = [
            (comparison, cell, variant, seed, options.output_dir)
            for seed in comparison.seeds
            for variant in comparison.subject.variants
            for cell in comparison.cells
        ]
        train([(run_shared_stages, shared), (run_student, runs)], options.num_processes)
    if comparison.task is None:
        text = write_corpus_report(options.output_dir, comparison.reference, comparison.target_losses)
        return shown(text, write_corpus_plots, options.output_dir)
    chance = comparison.load_task(comparison.lengths[0]).chance
    return shown(write_report(options.output_dir, chance), write_plots, options.output_dir, chance)


def shown(text: str, draw, *arguments) -> str:
    """Prints the tables, draws the plots, and returns the tables."""
    print(text)
    try:
        draw(*arguments)
    except ImportError:
        print("no plot was drawn: pip install 'smt-hf[plot]'")
    return text


def train(parts: list[tuple], num_processes: int) -> None:
    """Trains the parts one after another, and the runs of each part side by side.

    A part is a function and the arguments of its runs. When a run fails, the runs under way finish and no new one starts.
    """
    if num_processes == 1:
        quiet_and_single()
        for function, runs in parts:
            for run in runs:
                function(*run)
        return
    with ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=start_process) as pool:
        try:
            for function, runs in parts:
                for finished in as_completed([pool.submit(function, *run) for run in runs]):
                    finished.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def quiet_and_single() -> None:
    """Uses one thread, since runs side by side would compete for the cores, and hides progress bars."""
    torch.set_num_threads(1)
    disable_progress_bars()
    logging.disable_progress_bar()


def start_process() -> None:
    """Prepares a process for runs. It ends with its parent: otherwise a killed comparison would keep training."""
    quiet_and_single()
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Waits until the parent process ends, then ends this one."""
    parent_process().join()
    os._exit(1)
