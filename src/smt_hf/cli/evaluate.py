"""`smt-hf evaluate`: loss, bits per byte, loss by position and drift; for images, loss by row and sample quality."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints import check_pair, check_vocabulary, load_student, load_teacher
from ..data import ImageRows, TextOptions, check_window_length, load_processing
from ..errors import InputError
from ..evaluation import evaluate_models, format_table, plot_report
from ..evaluation.image_classes import evaluate_classes
from ..evaluation.image_quality import evaluate_samples
from ..evaluation.images import evaluate_images
from ..evaluation.plot import plot_image_report
from ..evaluation.table import format_image_table
from ..hub import SAMPLES, public_name, weights_digest, write_card
from ..images import generate_images, image_grid
from ..models import SmtImageProcessor
from .parsing import Command, parse


@dataclass
class EvaluateOptions(TextOptions):
    """The student to measure, and the data to measure it on."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    teacher: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub id of an SMT run or of a teacher, for the warm start and the drift."},
    )
    context_length: int = field(
        default=128, metadata={"help": "Tokens that the teacher encodes for the warm start, as in training."}
    )
    rollout_steps: int = field(default=256, metadata={"help": "Steps that the student runs on its own states."})
    num_windows: int = field(
        default=64, metadata={"help": "Windows or images to measure on, spread evenly over the data."}
    )
    batch_size: int = field(default=16, metadata={"help": "Windows or images per batch."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder to write evaluation.json and evaluation.png to."}
    )
    reference_split: str | None = field(
        default=None,
        metadata={
            "help": "For images with classes: also judge samples by a classifier trained on this split, usually 'train'."
        },
    )
    reference_dataset: str | None = field(
        default=None, metadata={"help": "Dataset of the reference_split, if it is not --dataset."}
    )
    quality_images: int = field(default=500, metadata={"help": "Number of samples, and of real images, to compare."})
    guidance: float = field(
        default=1.0, metadata={"help": "Guidance of the samples to judge, as in smt-hf generate; 1: none."}
    )
    class_images: int = field(
        default=0,
        metadata={
            "help": "For images with classes: read this many as each class in turn, to see whether the student knows the right one."
        },
    )
    json: bool = field(default=False, metadata={"help": "Print JSON instead of the table."})

    @property
    def reference(self) -> tuple[str, str] | None:
        """The images to judge samples by, and their split; `None` if neither option was given."""
        if self.reference_split is None and self.reference_dataset is None:
            return None
        return self.reference_dataset or self.dataset, self.reference_split or "train"

    def sources(self, tokenizer):
        return super().sources(tokenizer) + ([] if self.reference is None else [(*self.reference, "reference_split")])


# Options that only apply to text, and options that only apply to images.
OF_TEXT = ("context_length", "rollout_steps")
OF_IMAGES = ("reference_split", "reference_dataset", "quality_images", "guidance", "class_images")


COMMAND = Command(
    name="evaluate",
    kinds=[EvaluateOptions],
    description="""Measure a student on validation text: its loss by position, well past the training length, from a cold start (its
initial memory). With a teacher, also measure the loss from a warm start (a context that the teacher encoded), and how far the
student drifts from the teacher.""",
    example=r"""example:
  smt-hf evaluate runs/dmt --teacher runs/smt --dataset valid.txt \
      --output_dir runs/dmt/evaluation
  smt-hf evaluate runs/digits/dmt --dataset digits --split validation \
      --reference_split train""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student", "dataset": "the validation text"},
)


def main(argv: Sequence[str]) -> dict:
    """Runs the command and returns the report."""
    (options,) = parse(COMMAND, argv)
    student, tokenizer = load_student(options.model).eval(), load_processing(options.model)
    check_vocabulary(student, tokenizer)
    teacher = None
    if options.teacher is not None:
        teacher = load_teacher(options.teacher).eval()
        check_pair(teacher, student)
    images = isinstance(tokenizer, SmtImageProcessor)
    others, kind = (OF_TEXT, "images") if images else (OF_IMAGES, "text")
    given = [name for name in others if getattr(options, name) != getattr(EvaluateOptions, name)]
    if given:
        raise InputError(f"{', '.join(given)} cannot be used: {options.model!r} is a student trained on {kind}")
    for name in ("quality_images", "guidance"):
        if options.reference is None and getattr(options, name) != getattr(EvaluateOptions, name):
            raise InputError(
                f"{name}={getattr(options, name)} is for samples to judge: pass reference_split, or leave it out"
            )
    options.check_honoured(tokenizer)
    cache = options.tokens(tokenizer)
    if images:
        report = measure_images(student, tokenizer, ImageRows(cache), teacher, options)
        table = format_image_table(report)
    else:
        lengths = {name: getattr(options, name) for name in OF_TEXT}
        check_window_length(cache, sum(lengths.values()), f"dataset={options.dataset!r}", **lengths)
        report = evaluate_models(
            student,
            cache,
            teacher,
            options.context_length,
            options.rollout_steps,
            options.num_windows,
            options.batch_size,
        )
        table = format_table(report)
    report["dataset"] = public_name(options.dataset)
    report["weights"] = weights_digest(Path(options.model).expanduser())
    print(json.dumps(report) if options.json else table)
    if options.output_dir is not None:
        plot = plot_report
        if images:
            plot = plot_image_report
            write_samples(student, tokenizer, Path(options.output_dir))
        write_report(report, options.output_dir, plot)
        model_folder, folder = Path(options.model).resolve(), Path(options.output_dir).resolve()
        if model_folder in (folder, folder.parent):  # where the card looks for it
            write_card(options.model)
    return report


def measure_images(student, processor: SmtImageProcessor, rows: ImageRows, teacher, options: EvaluateOptions) -> dict:
    """Measures the losses of a student trained on images and, if asked for, the quality of its samples."""
    report = evaluate_images(student, processor, rows, teacher, options.num_windows, options.batch_size)
    if options.reference is not None:
        reference = ImageRows(options.tokens_of(*options.reference, processor))
        report["quality"] = evaluate_samples(
            student, processor, reference, rows, options.quality_images, guidance=options.guidance
        )
    if options.class_images:
        report["classes"] = evaluate_classes(student, processor, rows, options.class_images, options.batch_size)
    return report


def write_samples(student, processor: SmtImageProcessor, folder: Path) -> None:
    """Writes a grid of images that the student draws, with one class per column."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = min(processor.num_classes, 16) or 10
    labels = [number % columns for number in range(6 * columns)] if processor.num_classes else None
    images = generate_images(student, processor, 6 * columns, labels, seed=0)
    image_grid(images, columns).save(folder / SAMPLES)


def write_report(report: dict, folder: str, plot=plot_report) -> None:
    """Writes `evaluation.json` and, if matplotlib is installed, `evaluation.png`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "evaluation.json").write_text(json.dumps(report) + "\n", encoding="utf-8")
    try:
        plot(report, str(Path(folder) / "evaluation.png"))
    except ImportError:
        print("no plot was drawn: pip install 'smt-hf[plot]'")
