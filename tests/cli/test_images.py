"""Images through every command: training, drawing, measuring, and what the model card says."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from smt_hf import SmtImageProcessor
from smt_hf.checkpoints import load_student
from smt_hf.cli import bptt, dmt, evaluate, generate, smt
from smt_hf.data import ImageRows, TokenWindows, load_processor
from smt_hf.errors import InputError
from smt_hf.images import generate_images, image_grid

SIZES = {
    "hidden_size": 8,
    "num_memory_tokens": 2,
    "num_attention_heads": 2,
    "num_updater_layers": 1,
    "num_readout_layers": 0,
}
MODEL = {**SIZES, "image_size": 4, "num_levels": 4, "class_conditional": True}
TRAINING = {
    "dataset": "digits", "max_documents": 20, "eval_split": "validation", "num_eval_windows": 4, "max_steps": 2,
    "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "use_cpu": True, "report_to": "none", "save_strategy": "no",
}  # fmt: skip
SMT = {"num_encoder_layers": 1, "context_length": 17, "horizon": 4, "num_transitions": 8, "segment_length": 4}
DMT = {"context_length": 17, "rollout_length": 16, "segment_length": 4}


def words(*options, **more):
    given = {name: value for each in (*options, more) for name, value in each.items()}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    more = {"cache_dir": folder / "cache"}
    smt.main(words(MODEL, TRAINING, SMT, more, output_dir=folder / "smt"))
    trainer = dmt.main([str(folder / "smt"), *words(TRAINING, DMT, more, output_dir=folder / "dmt")])
    assert isinstance(trainer.train_dataset, ImageRows) and len(trainer.train_dataset) == 20
    return folder


def test_every_trainer_takes_images(runs):
    more = words(TRAINING, cache_dir=runs / "cache", output_dir=runs / "bptt")
    trainer = bptt.main([str(runs / "dmt"), *more])
    assert trainer.state.global_step == 2 and isinstance(trainer.processing_class, SmtImageProcessor)
    for name in ("smt", "dmt", "bptt"):
        saved = SmtImageProcessor.from_pretrained(runs / name)
        assert saved.class_names == [str(digit) for digit in range(10)] and saved.sequence_length == 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_conditional": True}, "class_conditional=True: without image_size, the model learns text"),
        ({"num_levels": 4, "class_conditional": True}, "num_levels=4, class_conditional=True: without image_size,"),
    ],
)
def test_options_of_images_alone(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        smt.main(words(SIZES, TRAINING, SMT, changes, output_dir=tmp_path / "smt"))


def test_a_short_context_reads_windows_and_the_memory_can_be_carried_on(runs):
    carried = {"context_length": 8, "bptt_horizon": 4, "carry_memory": True, "eval_split": "validation"}
    more = words(MODEL, {**TRAINING, **carried}, cache_dir=runs / "cache", output_dir=runs / "carried")
    trainer = bptt.main(more)
    assert trainer.state.global_step == 2 and isinstance(trainer.eval_dataset.dataset, TokenWindows)


def test_drawing(runs, tmp_path, capsys):
    output = tmp_path / "new" / "grid.png"
    generate.main([str(runs / "dmt"), *words(images=20, output=output)])
    assert "20 images of 4 x 4 pixels" in capsys.readouterr().out
    with Image.open(output) as grid:
        assert grid.size == (10 * (4 * 14 + 2) + 2, 2 * (4 * 14 + 2) + 2)
        drawn = generate_images(load_student(str(runs / "dmt")).eval(), load_processor(str(runs / "dmt")), 20, seed=0)
        assert np.array_equal(np.asarray(grid), np.asarray(image_grid(drawn, 10)))  # as likely as the student says
    Image.fromarray(np.full((8, 8), 255, dtype=np.uint8)).save(tmp_path / "half.png")
    generate.main([str(runs / "dmt"), *words(images=2, label=3, complete=tmp_path / "half.png", output=output)])
    with Image.open(output) as grid:
        assert np.asarray(grid)[2:30, 2:58].min() == 255  # the upper half as it was given
    for options, message in (
        ({"label": 11}, "label '11' is not a class: pass a number from 0 to 9"),
        ({"prompt": "Once"}, "is a student trained on images"),
        ({"memory": "m"}, "is a student trained on images"),
        ({"max_new_tokens": 5}, "max_new_tokens=5 does not apply"),
        ({"num_samples": 2}, "num_samples=2 does not apply"),
        ({"complete": tmp_path / "new"}, "is not a readable image"),
    ):
        with pytest.raises(InputError, match=message):
            generate.main([str(runs / "dmt"), *words(options)])


@pytest.mark.parametrize(
    "given, message",
    [
        ({"rollout_steps": 5}, "rollout_steps cannot be used: .* is a student trained on images"),
        ({"context_length": 5}, "context_length cannot be used: .* is a student trained on images"),
        ({"quality_images": 5}, "quality_images=5 is for samples to judge: pass reference_split"),
    ],
)
def test_measures_that_images_do_not_have(given, message, runs):
    with pytest.raises(InputError, match=message):
        evaluate.main([str(runs / "dmt"), *words({"dataset": "digits", **given})])


def test_measuring_and_the_model_card(runs):
    folder = runs / "dmt" / "evaluation"
    data = {"dataset": "digits", "split": "validation", "cache_dir": runs / "cache", "output_dir": folder}
    data |= {
        "num_windows": 8,
        "reference_split": "train",
        "quality_images": 40,
        "class_images": 5,
        "teacher": runs / "smt",
    }
    report = evaluate.main([str(runs / "dmt"), *words(data)])
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(report))
    assert report["classes"]["num_images"] == 5 and report["classes"]["class_information"] < math.log(10)
    assert len(report["student"]["by_row"]) == 4 and 0 <= report["quality"]["samples"]["label_agreement"] <= 1
    card = (runs / "dmt" / "README.md").read_text()
    for said in (
        "4 x 4 pixels of 4 grey levels, 10 classes",
        "](evaluation/samples.png)",
        "nats/pixel",
        'labels="0"',
        "It has learned from 20 images",
        "pipeline_tag: unconditional-image-generation",
    ):
        assert said in card, said
    with Image.open(folder / "samples.png") as grid:
        assert grid.size[0] == 10 * (4 * 14 + 2) + 2
