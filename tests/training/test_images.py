"""Images in every trainer: rows of a cache, and any `datasets` source with the processor as its transform."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from smt_hf import SmtImageProcessor
from smt_hf.data import ImageRows, build_image_cache
from tests.training.conftest import DMT, logged, model_for_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 6, 5), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]
PROCESSOR = SmtImageProcessor((6, 5), num_levels=4, num_classes=3)


def dataset():
    """As one reads `ylecun/mnist`."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    images = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(image) for image in PIXELS], "label": LABELS}, features=features
    )
    return images.with_transform(lambda batch: dict(PROCESSOR(batch["image"], labels=batch["label"])))


@pytest.mark.parametrize("kind", ["smt", "dmt", "bptt"])
def test_images_are_documents(kind, make_smt, make_dmt, make_bptt, tmp_path):
    make = {"smt": make_smt, "dmt": make_dmt, "bptt": make_bptt}[kind]
    rows = ImageRows(build_image_cache(zip(PIXELS, LABELS, strict=True), PROCESSOR, tmp_path / "cache"))
    ids = [
        {"input_ids": PROCESSOR(image, labels=label)["input_ids"][0]}
        for image, label in zip(PIXELS, LABELS, strict=True)
    ]
    losses = []
    for data in (rows, dataset(), ids):
        torch.manual_seed(0)
        # a joint model or a student of its own for every trainer, with the same weights
        model = model_for_bytes()
        given = {"smt": {"model": model}, "dmt": {"joint": model}}.get(kind) or {"student": model.export_student()}
        trainer = make(
            **given, dataset=data, context_length=31, **({**DMT, "rollout_length": 30} if kind == "dmt" else {})
        )
        trainer.train()
        losses.append(logged(trainer))
    assert len(losses[0]) == 3 and losses[0] == losses[1] == losses[2]
