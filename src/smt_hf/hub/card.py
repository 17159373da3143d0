"""The model card of a trained folder, filled from the files in it."""

import html
import json
import re
from pathlib import Path

import xxhash
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import safe_open
from transformers import AutoConfig

from ..checkpoints import check_kind
from ..data import load_processor
from ..errors import InputError
from ..evaluation.table import format_image_table, format_table
from ..utils.digests import file_digest
from ..utils.packaged import packaged_folder
from .record import read_stages

CARD = "README.md"
SAMPLES = "samples.png"  # images that the student drew
MARK = "<!-- Written by smt-hf from the files beside it and written anew with them. Delete this line to keep your edits. -->"
TEMPLATES = {"smt_rnn": "student.md", "smt_teacher": "teacher.md", "smt": "joint.md"}
PIPELINES = {
    "student.md": "text-generation",
    "language_model.md": "text-generation",
    "image_student.md": "unconditional-image-generation",
}
LOSS_TERMS = (
    "loss decoding dynamics readout stream uniformity student grad_norm effective_rank memory_variance drift".split()
)


def write_card(folder: str, name: str | None = None, license: str | None = None) -> bool:
    """Writes `README.md` into the folder of a student, a teacher or both.

    It is filled from `config.json`, the weights, `training.json` and, if `smt-hf evaluate` wrote them to the folder or to
    `evaluation/` in it, `evaluation.json` and `evaluation.png`.

    Args:
        folder: what a training command wrote.
        name: the model's name, a Hub id if it has one; the folder's name by default.
        license: its license, as the Hub names it, such as `"apache-2.0"`.

    Returns:
        `False` if the folder has a card that somebody has edited, which is left alone.

    Raises:
        InputError: if the folder has no model of this package.
    """
    folder = Path(folder)
    text = card_text(folder, name, license)
    if text is not None:
        (folder / CARD).write_text(text, encoding="utf-8")
    return text is not None


def card_text(folder: Path, name: str | None = None, license: str | None = None) -> str | None:
    """What [`write_card`] writes, or `None` if it leaves the card alone; raises as it does."""
    if (folder / CARD).exists() and not is_own_card(folder / CARD):
        return None
    return str(make_card(folder, name, license))


def is_own_card(card: Path) -> bool:
    """Whether there is a card that this package wrote and nobody has edited."""
    return card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")


def make_card(folder: Path, name: str | None = None, license: str | None = None) -> ModelCard:
    """The card of a folder, see [`write_card`]."""
    stages = read_stages(str(folder))
    is_lm = bool(stages) and stages[-1]["command"] == "lm"
    if not is_lm:
        check_kind(str(folder), *TEMPLATES)
    config = AutoConfig.from_pretrained(folder)
    name = name or folder.resolve().name
    sizes = config if config.model_type != "smt" else config.teacher_config
    student = {"smt_rnn": config, "smt": getattr(config, "student_config", None)}.get(config.model_type)
    processor = load_processor(str(folder))
    template = "language_model.md" if is_lm else TEMPLATES[config.model_type]
    if processor is not None and config.model_type == "smt_rnn":
        template = f"image_{template}"
    report, plot = find_evaluation(folder)
    of_these_weights = report is None or report.get("weights") == weights_digest(folder)
    report, plot = (report, plot) if of_these_weights else (None, None)
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=PIPELINES.get(template),
        license=license,
        datasets=hub_datasets(stages) or None,
        tags=["smt", "supervised-memory-training", *([] if is_lm else ["recurrent", "constant-memory"])],
        model_name=name,
        eval_results=evaluation_results(stages, report) or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(packaged_folder("model_cards") / template),
        processor=processor,
        label=json.dumps(processor.class_names[0]) if processor is not None and processor.class_names else 0,
        samples=next((name for name in (SAMPLES, f"evaluation/{SAMPLES}") if (folder / name).is_file()), None),
        mark=MARK,
        name=name,
        config=sizes,
        student=student,
        num_parameters=count_parameters(folder),
        memory_numbers=0 if is_lm else sizes.num_memory_tokens * sizes.hidden_size,
        training="\n\n".join(describe_stage(stage) for stage in stages) or "No record of the training was kept.",
        evaluation=describe_evaluation(report, plot, of_these_weights),
        limits=describe_limits(stages, report, of_images=processor is not None, has_memory=not is_lm),
    )
    return card


def find_evaluation(folder: Path) -> tuple[dict | None, str | None]:
    """Finds what `smt-hf evaluate` wrote to the folder or to `evaluation/` in it: the report, and the path of its plot.

    Raises:
        InputError: if the report is damaged.
    """
    for place in (folder, folder / "evaluation"):
        if (place / "evaluation.json").is_file():
            plot = place / "evaluation.png"
            try:
                report = json.loads((place / "evaluation.json").read_text(encoding="utf-8"))
                report["student"]["nats_per_pixel"] if "student" in report else report["student_cold"][
                    "nats_per_token"
                ]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{place}/evaluation.json is not a report: run smt-hf evaluate again") from error
            return report, plot.relative_to(folder).as_posix() if plot.is_file() else None
    return None, None


def weights_digest(folder: str | Path) -> str | None:
    """A digest of the weights in a folder, or `None` without weights; an evaluation records the digest of what it measured."""
    digest, files = xxhash.xxh3_128(), sorted(Path(folder).glob("*.safetensors"))
    for file in files:
        digest.update(file_digest(file).encode())
    return digest.hexdigest() if files else None


def count_parameters(folder: Path) -> int:
    """Counts the parameters in the safetensors files of a folder."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                size = 1
                for length in file.get_slice(key).get_shape():
                    size *= length
                total += size
    return total


def hub_datasets(stages: list[dict]) -> list[str]:
    """The Hub ids among the training data, `owner/name`; local files are recorded by name only."""
    names = {str(stage["recipe"].get("dataset", "")) for stage in stages}
    return sorted(filter(is_hub_id, names))


def is_hub_id(name: str) -> bool:
    """Whether a name is `owner/name`."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def plain(value) -> str:
    """Text from elsewhere as one line, escaped for Markdown and HTML."""
    return html.escape(" ".join(str(value).split())).replace("`", "'")


def evaluation_results(stages: list[dict], report: dict | None) -> list[EvalResult]:
    """Loss, bits per byte and drift in the Hub's metadata format."""
    if report is None:
        return []
    dataset = str(report.get("dataset", "validation data"))
    results, of_images = [], "student" in report
    if of_images:
        metrics = [
            ("loss", "Loss (nats per pixel)", report["student"]["nats_per_pixel"]),
            ("bits_per_pixel", "Bits per pixel", report["student"]["bits_per_pixel"]),
        ]
        if "quality" in report:
            agreement = report["quality"]["samples"]["label_agreement"]
            metrics.append(("accuracy", "Samples that a classifier takes for their class", agreement))
    else:
        cold = report["student_cold"]
        metrics = [
            ("loss", "Loss (nats per token, cold start)", cold["nats_per_token"]),
            ("bits_per_byte", "Bits per byte (cold start)", cold["bits_per_byte"]),
        ]
    if "student_warm" in report:
        metrics.append(("loss", "Loss (nats per token, warm start)", report["student_warm"]["nats_per_token"]))
    if "drift" in report:
        metrics.append(("drift", f"Drift after {len(report['drift'])} steps", report["drift"][-1]))
    for kind, label, value in metrics:
        results.append(
            EvalResult(
                task_type=PIPELINES["image_student.md" if of_images else "student.md"],
                dataset_type=dataset if is_hub_id(dataset) else "image" if of_images else "text",
                dataset_name=dataset,
                metric_type=kind,
                metric_name=label,
                metric_value=value,
            )
        )
    return results


def describe_stage(stage: dict) -> str:
    """One stage of the training in Markdown: data, time, the last value of every loss term, the recipe."""
    data, losses = stage.get("data", {}), stage.get("losses", {})
    source = stage["recipe"].get("dataset", "a dataset of the caller's")
    size = ""
    if data:
        windows = stage["steps"] * stage["windows_per_step"]
        passes = windows * data["window_length"] / data["tokens"]
        size = (
            f" ({data['documents']:,} documents, {data['bytes'] / 1e6:.1f} MB, {data['tokens']:,} tokens), read "
            f"{passes:.2f} times in windows of {data['window_length']} tokens"
        )
    lines = [
        f"### {plain(stage['command']).upper()}",
        f"Data: `{plain(source)}`{size}. {stage['steps']:,} steps of {stage['windows_per_step']} windows in "
        f"{stage['seconds']:,.0f} seconds on {plain(stage['hardware'])}.",
    ]
    shown = {name: losses[name] for name in LOSS_TERMS if name in losses}
    shown |= {name: value for name, value in stage.get("evaluation", {}).items() if name in ("eval_cold_start_loss",)}
    shown = {name: value for name, value in shown.items() if isinstance(value, int | float)}
    for resumed in stage.get("resumed", ()):
        lines.append(f"Resumed with other settings: `{plain(json.dumps(resumed))}`.")
    if shown:
        head = " | ".join(shown)
        values = " | ".join(f"{float(value):.4g}" for value in shown.values())
        lines.append(f"| {head} |\n|{'---|' * len(shown)}\n| {values} |")
    recipe = yaml.safe_dump(stage["recipe"], sort_keys=True).strip()
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0))  # longer than any in the recipe
    lines.append(f"<details><summary>Recipe</summary>\n\n{fence}yaml\n{recipe}\n{fence}\n\n</details>")
    return "\n\n".join(lines)


def describe_evaluation(report: dict | None, plot: str | None, of_these_weights: bool = True) -> str:
    """The evaluation's table and plot in Markdown."""
    if not of_these_weights:
        return "The evaluation in this folder is of other weights: run `smt-hf evaluate` again."
    if report is None:
        return "Not measured yet: run `smt-hf evaluate`."
    if "student" in report:
        text = (
            f"{report['num_images']} images of `{plain(report.get('dataset', 'validation images'))}`, the student on its own states "
            f"from its initial memory:\n\n```text\n{format_image_table(report)}\n```"
        )
        return text + (f"\n\n![Loss by row]({plot})" if plot else "")
    text = (
        f"{report['num_windows']} windows of `{plain(report.get('dataset', 'validation text'))}`, {report['rollout_steps']} steps of "
        f"the student on its own states; the warm start has read {report['context_length']} tokens through the teacher:\n\n"
        f"```text\n{format_table(report)}\n```"
    )
    return text + (f"\n\n![Loss by position and drift]({plot})" if plot else "")


def describe_limits(stages: list[dict], report: dict | None, of_images: bool = False, has_memory: bool = True) -> str:
    """What a reader should not expect, as far as the record and the evaluation tell."""
    lines = []
    if of_images:
        numbers = [stage["data"]["documents"] for stage in stages if stage.get("data")]
        if numbers:
            lines.append(f"It has learned from {max(numbers):,} images and draws nothing else.")
        lines.append("It draws images of one size, pixel by pixel from the top; what is drawn stays as it is.")
        return "\n".join(f"* {line}" for line in lines)
    sizes = [stage["data"]["bytes"] for stage in stages if stage.get("data")]
    if sizes:
        lines.append(
            f"It has learned from {max(sizes) / 1e6:.1f} MB of text and knows nothing beyond it. Nothing was done to make "
            "its output true, kind or safe."
        )
    if report is not None:
        curve = report["student_cold"]["by_position"]
        quarter = max(1, len(curve) // 4)
        first, last = sum(curve[:quarter]) / quarter, sum(curve[-quarter:]) / quarter
        lines.append(
            f"Over {len(curve)} steps its loss goes from {first:.3f} (first quarter) to {last:.3f} (last quarter); longer texts "
            "were not measured."
        )
        if "cold_minus_warm" in report:
            lines.append(
                f"Reading the text itself, it is {report['cold_minus_warm']:+.3f} nats per token away from a start in the teacher's state."
            )
    if has_memory:
        lines.append("The memory has a fixed size: details of a long text are lost, however short the question.")
    return "\n".join(f"* {line}" for line in lines)
