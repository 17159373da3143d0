"""What the pages say of the package holds, and nothing that they name is missing."""

import re
import subprocess
import sys

import pytest
import torch

from smt_hf import (
    BpttTrainer,
    BpttTrainingArguments,
    DmtTrainer,
    DmtTrainingArguments,
    LmTrainer,
    LmTrainingArguments,
    SmtTrainer,
    SmtTrainingArguments,
)
from smt_hf.training.resume import ASKED, DEALT
from tests.backbones import language_model, model_on
from tests.docs.pages import PAGES, ROOT, name

IMAGES = ROOT / "docs" / "images"
# Of transformers, and not explained again.
LIBRARY = re.compile(r"step|total_flos|(train|eval)_(loss|runtime|samples_per_second|steps_per_second)")


def logged(method: str, folder) -> set[str]:
    """The names of everything that two steps of a trainer log."""
    backbone = language_model(dtype=torch.float32)
    model = model_on(backbone)
    common = {"output_dir": str(folder), "logging_steps": 1, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    common |= {"report_to": "none", "save_strategy": "no", "use_cpu": True, "context_length": 16}
    if method == "smt":
        args = SmtTrainingArguments(**common, horizon=4, num_transitions=8, segment_length=4, student_weight=1.0)
        args.kd_weight, args.backbone_learning_rate = 1.0, 1e-3
        kind, models = SmtTrainer, {"model": model}
    elif method == "dmt":
        args = DmtTrainingArguments(**common, rollout_length=8, segment_length=4, num_sweeps=[1], kd_weight=1.0)
        kind, models = DmtTrainer, {"model": model.export_student(), "teacher": model.teacher}
    elif method == "lm":
        kind, args, models = LmTrainer, LmTrainingArguments(**common), {"model": backbone}
    else:
        args = BpttTrainingArguments(**common, kd_weight=1.0)
        kind, models = BpttTrainer, {"model": model.export_student(), "backbone": backbone}
    names = set()
    for column in ("labels", "shift_labels"):
        rows = [{"input_ids": ids, column: ids} for ids in torch.randint(20, (16, 24))]
        trainer = kind(args=args, train_dataset=rows, eval_dataset=rows, **models)
        trainer.train()
        names |= {key for row in trainer.state.log_history for key in row}
    return names


def test_every_setting_that_may_change_on_resuming_is_named():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.split("## Stopping and resuming")[1].split("\n## ")[0]
    assert {*ASKED, *DEALT} - {"processes"} <= set(re.findall(r"`(\w+)`", section))


@pytest.mark.parametrize("method", ["smt", "dmt", "bptt", "lm"])
def test_every_logged_metric_is_explained(method, tmp_path):
    text = (ROOT / "docs" / "trainers" / f"{method}.md").read_text(encoding="utf-8")
    section = text.split("## Logged metrics")[1].split("\n## ")[0]
    explained = set(re.findall(r"`(\w+)`", section))
    names = {each for each in logged(method, tmp_path) if not LIBRARY.fullmatch(each)}
    assert names <= explained, f"not explained: {sorted(names - explained)}"
    settings = {
        "logging_steps",
        "drift_steps",
        "collapse_variance",
        "eval_rollout_steps",
        "shift_labels",
        "transformers",
    }
    said = {each for each in explained if not each.startswith("eval_loss")} - settings
    assert said <= names, f"never logged: {sorted(said - names)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    """The site's own links are checked when it is built; here those that hold on the way to it, as in README."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?:|#|mailto:", target):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_readme_anchors_exist():
    for file, anchor in re.findall(r"\]\((docs/[^)#]+)#([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")):
        headings = re.findall(r"^#+ (.*)$", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        slugs = [
            re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings
        ]
        assert anchor in slugs, (file, anchor)


def test_every_picture_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in IMAGES.rglob("*.*"):
        assert picture.relative_to(IMAGES).as_posix() in text, picture


def test_one_command_draws_every_plot(tmp_path):
    """Those that the pages show, from the results that are stored beside them."""
    subprocess.run([sys.executable, ROOT / "scripts" / "figures.py", "--images", tmp_path], check=True)
    drawn = {file.relative_to(tmp_path) for file in tmp_path.rglob("*.png")}
    others = {
        file.relative_to(IMAGES).as_posix() for file in IMAGES.rglob("*.png") if file.relative_to(IMAGES) not in drawn
    }
    screenshots = {"app.png", "pixels/app.png"}
    students = (
        "digits",
        "mnist_teacher_first",
        "mnist_twice",
        "mnist_gru",
        "mnist_gru_taught",
        "quickdraw_teacher_first",
        "quickdraw_gru",
    )
    samples = {f"pixels/{name}.png" for name in students}
    assert others == screenshots | samples


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_rows_of_a_table_have_as_many_cells_as_its_head(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    widths = [len(re.findall(r"(?<!\\)\|", line)) if line.lstrip().startswith("|") else None for line in lines]
    uneven = [
        lines[number]
        for number in range(1, len(lines))
        if None not in widths[number - 1 : number + 1] and widths[number] != widths[number - 1]
    ]
    assert not uneven


def test_results_begin_with_their_verdict():
    for page in (ROOT / "docs" / "results").glob("*.md"):
        assert page.read_text(encoding="utf-8").split("\n\n")[1].startswith("**"), page
