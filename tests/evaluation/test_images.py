"""Losses of images against the slow and obvious way, and what sample quality says of known samples."""

import math

import numpy as np
import pytest
import torch

from smt_hf import SmtImageProcessor, SmtRnnConfig, SmtRnnForCausalLM, SmtTeacherConfig, SmtTeacherModel
from smt_hf.data import ImageRows, build_image_cache, cached_images, open_images, processor_for
from smt_hf.errors import InputError
from smt_hf.evaluation.image_classes import evaluate_classes
from smt_hf.evaluation.image_quality import evaluate_samples, frechet_distance, precision_recall
from smt_hf.evaluation.images import evaluate_images
from smt_hf.evaluation.table import format_image_table

SIZES = {"hidden_size": 16, "num_memory_tokens": 2, "num_attention_heads": 2, "initializer_range": 0.5}


@pytest.mark.parametrize("num_classes", [0, 3])
@torch.no_grad()
def test_the_loss_is_that_of_every_pixel_from_the_memory_before_it(num_classes, tmp_path):
    torch.manual_seed(0)
    processor = SmtImageProcessor((3, 4), num_levels=4, num_classes=num_classes)
    config = SmtRnnConfig(vocab_size=processor.vocab_size, num_updater_layers=1, num_readout_layers=1, **SIZES)
    student = SmtRnnForCausalLM(config).eval()
    teacher_config = SmtTeacherConfig(
        vocab_size=processor.vocab_size, num_encoder_layers=1, num_decoder_layers=1, **SIZES
    )
    teacher = SmtTeacherModel(teacher_config).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)
    items = [(image, number % 3 if num_classes else None) for number, image in enumerate(pixels)]
    rows = ImageRows(build_image_cache(items, processor, tmp_path / "cache"))
    report = evaluate_images(student, processor, rows, teacher, batch_size=2)

    losses = []
    for image, label in items:
        memory = student.initial_memory[None]
        for token in processor.class_ids(label):
            memory = student.update(memory, torch.tensor([token]))
        losses.append([])
        for token in torch.from_numpy(processor.pixel_ids(image)):
            losses[-1].append(-student.readout(memory).log_softmax(dim=-1)[0, token].item())
            memory = student.update(memory, token[None])
    losses = np.array(losses)
    assert report["student"]["nats_per_pixel"] == pytest.approx(losses.mean(), abs=1e-4)
    assert report["student"]["bits_per_pixel"] == pytest.approx(losses.mean() / math.log(2), abs=1e-4)
    assert report["student"]["nats_per_image"] == pytest.approx(losses.sum(axis=1).mean(), abs=0.01)
    assert report["student"]["standard_error"] == pytest.approx(losses.mean(axis=1).std(ddof=1) / 5**0.5, abs=1e-4)
    assert report["student"]["by_row"] == pytest.approx(losses.reshape(5, 3, 4).mean(axis=(0, 2)), abs=1e-4)
    assert len(report["drift"]) == processor.sequence_length and len(report["teacher"]["by_row"]) == 3
    assert "bits/pixel" in format_image_table(report)


@torch.no_grad()
def test_what_is_known_of_the_class_follows_from_every_class_in_turn(tmp_path):
    torch.manual_seed(0)
    processor = SmtImageProcessor((3, 4), num_levels=4, num_classes=3)
    config = SmtRnnConfig(vocab_size=processor.vocab_size, num_updater_layers=1, num_readout_layers=1, **SIZES)
    student = SmtRnnForCausalLM(config).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 4), dtype=np.uint8)
    items = [(image, number % 3) for number, image in enumerate(pixels)]
    rows = ImageRows(build_image_cache(items, processor, tmp_path / "cache"))
    report = evaluate_classes(student, processor, rows, batch_size=3)

    posterior, right = [], []
    for image, label in items:
        likelihoods = []
        for told in range(3):
            ids = torch.from_numpy(np.concatenate([processor.class_ids(told), processor.pixel_ids(image)]))[None]
            logits = student(ids).logits.double().log_softmax(dim=-1)
            likelihoods.append(logits[:, :-1].gather(2, ids[:, 1:, None]).sum())
        chances = torch.stack(likelihoods).softmax(dim=0)
        posterior.append(math.log(chances[label]) + math.log(3))
        right.append(int(chances.argmax()) == label)
    assert report["class_information"] == pytest.approx(np.mean(posterior), abs=1e-3) and 0 < np.std(posterior)
    assert report["class_accuracy"] == pytest.approx(np.mean(right), abs=1e-4)
    assert report["class_entropy"] == pytest.approx(math.log(3), abs=1e-4) and report["num_images"] == 8
    student.model.embed_tokens.weight[4:] = student.model.embed_tokens.weight[4]  # it cannot tell the classes apart
    assert evaluate_classes(student, processor, rows, num_images=4)["class_information"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="no classes to recognize"):
        evaluate_classes(student, SmtImageProcessor((3, 4), num_levels=4), rows)


def test_the_distance_of_normal_features_is_known():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(4000, 3, generator=generator).double()
    normal = (normal - normal.mean(dim=0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(normal.T))).T
    turned = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0.5, 3]]).double()
    covariance = turned @ turned.T
    # |m|^2 + tr(1 + C - 2 C^(1/2)); the trace of the root is the sum of the roots of the eigenvalues
    expected = 3 * 0.25 + 3 + covariance.trace() - 2 * torch.linalg.eigvalsh(covariance).sqrt().sum()
    assert frechet_distance(normal, normal @ turned.T + 0.5) == pytest.approx(expected.item())
    assert frechet_distance(normal, normal) == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_see_what_is_missing_and_what_does_not_belong():
    line = torch.arange(20.0)[:, None]
    assert precision_recall(line, line) == (1.0, 1.0)
    assert precision_recall(line, line[:10]) == (1.0, 13 / 20)  # the last of these reaches three further
    assert precision_recall(line, line + 100) == (0.0, 0.0)
    half = torch.cat([line[:10], line[:10] + 100])
    assert precision_recall(line, half)[0] == 0.5


def test_real_digits_are_the_ceiling_and_noise_is_not(tmp_path):
    torch.manual_seed(0)
    source = open_images("digits")
    processor = processor_for(source, size=8, num_levels=4)
    train = ImageRows(cached_images(source, processor, tmp_path))
    validation = ImageRows(cached_images("digits", processor, tmp_path, split="validation"))
    config = SmtRnnConfig(vocab_size=processor.vocab_size, num_updater_layers=1, num_readout_layers=0, **SIZES)
    report = evaluate_samples(
        SmtRnnForCausalLM(config).eval(), processor, train, validation, num_images=200, classifier_steps=300
    )
    assert report["classifier_accuracy"] > 0.93
    assert report["real"]["label_agreement"] > 0.9 and report["real"]["precision"] > 0.8
    assert report["samples"]["label_agreement"] < 0.3
    assert report["samples"]["frechet_distance"] > 10 * report["real"]["frechet_distance"]
    with pytest.raises(InputError, match="the student has none"):
        evaluate_samples(None, SmtImageProcessor(8), train, validation)
