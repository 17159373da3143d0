"""`smt-hf evaluate`: loss, bits per byte, loss by position, drift."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints import check_pair, check_vocabulary, load_student, load_teacher
from ..data import TextOptions, load_tokenizer
from ..evaluation import evaluate_models, format_table, plot_report
from ..hub import public_name, weights_digest, write_card
from .parsing import Command, parse


@dataclass
class EvaluateOptions(TextOptions):
    """What to measure, on what."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    teacher: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of an SMT run or of a teacher, for the warm start and the drift."},
    )
    context_length: int = field(
        default=128, metadata={"help": "Tokens that the teacher encodes for the warm start, as in training."}
    )
    rollout_steps: int = field(default=256, metadata={"help": "Steps of the student on its own states."})
    num_windows: int = field(default=64, metadata={"help": "Windows to measure, spread evenly over the text."})
    batch_size: int = field(default=16, metadata={"help": "Windows at a time."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder to write evaluation.json and evaluation.png to."}
    )
    json: bool = field(default=False, metadata={"help": "Print JSON instead of the table."})


COMMAND = Command(
    name="evaluate",
    kinds=[EvaluateOptions],
    description="""Measure a student on validation text: from a cold start (its initial memory) and, given the teacher, from a
teacher-encoded context, by position well past the training length, and how far it drifts from the teacher.""",
    example=r"""example:
  smt-hf evaluate runs/dmt --teacher runs/smt --dataset valid.txt \
      --output_dir runs/dmt/evaluation""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student", "dataset": "the validation text"},
)


def main(argv: Sequence[str]) -> dict:
    """Runs the command and returns the report."""
    (options,) = parse(COMMAND, argv)
    student, tokenizer = load_student(options.model).eval(), load_tokenizer(options.model)
    check_vocabulary(student, tokenizer)
    teacher = None
    if options.teacher is not None:
        teacher = load_teacher(options.teacher).eval()
        check_pair(teacher, student)
    cache = options.tokens(tokenizer)
    report = evaluate_models(
        student, cache, teacher, options.context_length, options.rollout_steps, options.num_windows, options.batch_size
    )
    report["dataset"] = public_name(options.dataset)
    report["weights"] = weights_digest(Path(options.model).expanduser())
    print(json.dumps(report) if options.json else format_table(report))
    if options.output_dir is not None:
        write_report(report, options.output_dir)
        model_folder, folder = Path(options.model).resolve(), Path(options.output_dir).resolve()
        if model_folder in (folder, folder.parent):  # where the card looks for it
            write_card(options.model)
    return report


def write_report(report: dict, folder: str) -> None:
    """Writes `evaluation.json` and, where matplotlib is installed, `evaluation.png`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "evaluation.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    try:
        plot_report(report, str(Path(folder) / "evaluation.png"))
    except ImportError:
        print("no plot was drawn: pip install 'smt-hf[plot]'")
