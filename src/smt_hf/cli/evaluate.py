"""`smt-hf evaluate`: loss, bits per byte, loss by position, drift."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints import check_pair, check_vocabulary, load_student, load_teacher
from ..data import cached_tokens, load_tokenizer
from ..errors import InputError
from ..evaluation import evaluate_models, format_table, plot_report
from ..hub import public_name, weights_digest, write_card
from .parsing import parse

DESCRIPTION = """Measure a student on validation text: from a cold start (its initial memory) and, given the teacher, from a
teacher-encoded context, by position well past the training length, and how far it drifts from the teacher."""
EXAMPLE = """example:
  smt-hf evaluate --student runs/dmt --teacher runs/smt --dataset valid.txt --output_dir runs/dmt/evaluation"""


@dataclass
class EvaluateOptions:
    """What to measure, on what."""

    student: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    teacher: str | None = field(default=None, metadata={"help": "Folder or Hub id of an SMT run or a teacher."})
    dataset: str | None = field(default=None, metadata={"help": "Validation text: a file, a folder or a Hub id."})
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of the Hub data set."})
    split: str = field(default="train", metadata={"help": "Split; a single file has none."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})
    separator: str = field(default="<|endoftext|>", metadata={"help": "What stands between documents in .txt files."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where token caches are kept."})
    context_length: int = field(default=128, metadata={"help": "The teacher's context in training, the warm start."})
    rollout_steps: int = field(default=256, metadata={"help": "Steps that the student goes on its own."})
    num_windows: int = field(default=64, metadata={"help": "Validation windows."})
    batch_size: int = field(default=16, metadata={"help": "Windows at a time."})
    output_dir: str | None = field(default=None, metadata={"help": "Write evaluation.json and evaluation.png here."})
    json: bool = field(default=False, metadata={"help": "Print JSON instead of the table."})


def main(argv: Sequence[str]) -> dict:
    """Runs the command and returns the report."""
    (options,) = parse([EvaluateOptions], argv, "evaluate", DESCRIPTION, EXAMPLE)
    if options.student is None or options.dataset is None:
        missing = "student" if options.student is None else "dataset"
        raise InputError(f"{missing} is missing: give --{missing}")
    student, tokenizer = load_student(options.student).eval(), load_tokenizer(options.student)
    check_vocabulary(student, tokenizer)
    teacher = None
    if options.teacher is not None:
        teacher = load_teacher(options.teacher).eval()
        check_pair(teacher, student)
    cache = cached_tokens(
        options.dataset,
        tokenizer,
        options.cache_dir,
        split=options.split,
        config_name=options.dataset_config,
        text_column=options.text_column,
        separator=options.separator,
    )
    report = evaluate_models(
        student, cache, teacher, options.context_length, options.rollout_steps, options.num_windows, options.batch_size
    )
    report["dataset"] = public_name(options.dataset)
    report["weights"] = weights_digest(Path(options.student).expanduser())
    print(json.dumps(report) if options.json else format_table(report))
    if options.output_dir is not None:
        write_report(report, options.output_dir)
        student_folder, folder = Path(options.student).resolve(), Path(options.output_dir).resolve()
        if student_folder in (folder, folder.parent):  # where the card looks for it
            write_card(options.student)
    return report


def write_report(report: dict, folder: str) -> None:
    """Writes `evaluation.json` and, where matplotlib is installed, `evaluation.png`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "evaluation.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    try:
        plot_report(report, str(Path(folder) / "evaluation.png"))
    except ImportError:
        print("no plot was drawn: pip install 'smt-hf[plot]'")
