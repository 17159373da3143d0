"""`smt-hf export`: export a student to ONNX Runtime, or to a web page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..checkpoints import load_student
from ..data import iter_text_file, load_tokenizer
from ..demo.stories import generate_stories
from ..errors import InputError
from .parsing import Command, parse

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
NUM_STORIES = 8


@dataclass
class ExportOptions:
    """What to export, and how."""

    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of a student or of an SMT run."})
    output_dir: str | None = field(default=None, metadata={"help": "Folder to write to."})
    format: Literal["onnx", "web"] = field(
        default="onnx",
        metadata={"help": "onnx: a folder for ONNX Runtime; web: also a static page that runs it."},
    )
    dtype: Literal["float32", "float16", "int8"] = field(
        default="float32",
        metadata={"help": "Data type of the stored weights; the student always computes in float32."},
    )
    text_file: str | None = field(
        default=None,
        metadata={
            "help": "Text to compare the export with the student on, in the student's language; built-in stories by default."
        },
    )
    max_difference: float | None = field(
        default=None,
        metadata={"help": "Refuse an export if a logit differs by more; by default 0.001, 0.1 or 1, by dtype."},
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier export in output_dir."})


COMMAND = Command(
    name="export",
    kinds=[ExportOptions],
    description="""Export a student so that it runs without torch: two ONNX graphs with its initial memory, tokenizer and generation
settings. As a web page, it runs in any browser, from any static host or Space. The export is compared with the student on a text.""",
    example=r"""example:
  smt-hf export runs/dmt --output_dir exports/onnx
  smt-hf export runs/dmt --format web --dtype int8 --output_dir exports/page
  python -m http.server --directory exports/page""",
    positionals=["model"],
    required={"model": "the folder or Hub id of a student", "output_dir": "the folder to write"},
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    (options,) = parse(COMMAND, argv)
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"exporting needs {', '.join(missing)}: pip install 'smt-hf[onnx]'")
    from ..inference.export import export_onnx
    from ..inference.web import export_web

    if options.text_file is None:
        text = "\n".join(generate_stories(NUM_STORIES))
    else:
        text = "\n".join(iter_text_file(options.text_file))
    student, tokenizer = load_student(options.model), load_tokenizer(options.model)
    export = export_web if options.format == "web" else export_onnx
    found = export(
        student, tokenizer, options.output_dir, text, options.dtype, options.max_difference, options.overwrite
    )
    size = sum(file.stat().st_size for file in Path(options.output_dir).expanduser().rglob("*") if file.is_file())
    print(
        f"compared on {found.num_tokens} tokens: logits differ by at most {found.max_difference:.2g}; loss {found.exported_loss:.4f} "
        f"nats per token, the student's {found.loss:.4f}"
    )
    print(f"{options.output_dir} ({size / 1e6:.1f} MB)")
    if options.format == "web":
        print(f"\nopen it with:\n  python -m http.server --directory {options.output_dir}")
        print(f"share it with:\n  hf upload USER/NAME {options.output_dir} --repo-type space")
