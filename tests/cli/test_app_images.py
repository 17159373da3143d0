"""The app of a student of images: what it draws is what `generate_images` draws, and a visit in a real browser."""

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from smt_hf import SmtImageProcessor, SmtRnnConfig, SmtRnnForCausalLM
from smt_hf.app.drawing import Drawing, begin, blank, go_on, likeliest_paper, read_upload, start_engine
from smt_hf.app.image_interface import outcome
from smt_hf.app.pad import given_pixels, pad_value, thumbnail
from smt_hf.cli.main import main
from smt_hf.errors import InputError
from smt_hf.images import generate_images
from smt_hf.inference import SamplingParams
from tests.cli.test_app import CHROMIUM, FLAGS, TIMEOUT, served


def make(num_classes: int = 3, size=(6, 4), dtype=torch.float64):
    torch.manual_seed(0)
    processor = SmtImageProcessor(size, num_levels=5, num_classes=num_classes)
    config = SmtRnnConfig(
        vocab_size=processor.vocab_size, hidden_size=16, num_memory_tokens=2, num_attention_heads=2,
        num_updater_layers=1, num_readout_layers=1, initializer_range=0.5,
    )  # fmt: skip
    return SmtRnnForCausalLM(config).to(dtype).eval(), processor


@pytest.fixture(params=[0, 3], ids=["no classes", "classes"])
def artist(request):
    student, processor = make(request.param)
    engine = start_engine(student)
    yield student, processor, partial(go_on, engine, processor)
    engine.stop()


def png(image: Image.Image, format="png") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


HALF = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 4), dtype=np.uint8))


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"seed": 7}, {"seed": 8, "temperature": 0.7}, {"seed": 7, "top_p": 0.6}]
)
def test_what_is_drawn_is_what_generate_images_draws(artist, sampling):
    student, processor, draw = artist
    label = 2 if processor.num_classes else None
    params = SamplingParams(**sampling)
    *_, free = draw(begin(student, processor, label), params)
    (expected,) = generate_images(student, processor, 1, label, **sampling)
    assert free.pixels == tuple(processor.pixel_ids(expected))
    torch.testing.assert_close(free.memory, student.read(torch.tensor([free.ids])).states, rtol=0, atol=1e-9)

    given = read_upload(processor, png(HALF))
    assert given == tuple(processor.pixel_ids(HALF)[:12])
    views = list(draw(begin(student, processor, label, given), params))
    (expected,) = generate_images(student, processor, 1, label, complete=HALF, **sampling)
    assert views[-1].pixels == tuple(processor.pixel_ids(expected)) and views[-1].pixels[:12] == given
    assert all(view.pixels[:12] == given for view in views)
    counts = [view.num_tokens for view in views]
    assert counts == sorted(set(counts)) and len(counts) > 10 and counts[-1] == processor.sequence_length


def test_a_stopped_picture_stands_still_and_goes_on_as_if_it_had_not(artist):
    student, processor, draw = artist
    start, params = begin(student, processor, 1 if processor.num_classes else None), SamplingParams(seed=3)
    *_, whole = draw(start, params)
    asked = iter([False] * 5)
    *_, part = draw(start, params, is_stopped=lambda: next(asked, True))
    assert 0 < part.num_tokens < whole.num_tokens and part.ids == whole.ids[: part.num_tokens]
    torch.testing.assert_close(part.memory, student.read(torch.tensor([part.ids])).states, rtol=0, atol=1e-9)
    assert outcome(processor, part) == f"Stopped: {part.num_read} drawn, {24 - part.num_read} pixels to go."
    *_, on = draw(part, params)
    assert on.ids == whole.ids and not list(draw(on, params))
    *_, other = draw(part, SamplingParams(seed=4))
    assert other.ids[: part.num_tokens] == part.ids and other.ids != whole.ids


def test_visitors_draw_at_once(artist):
    student, processor, draw = artist
    starts = [begin(student, processor, number if processor.num_classes else None) for number in range(3)]
    params = [SamplingParams(seed=number) for number in range(3)]
    alone = [list(draw(*each))[-1].ids for each in zip(starts, params, strict=True)]
    with ThreadPoolExecutor(3) as visitors:
        together = list(visitors.map(lambda start, params: list(draw(start, params))[-1].ids, starts, params))
    assert together == alone and len(set(alone)) == 3


def test_it_takes_its_time(artist, monkeypatch):
    student, processor, draw = artist
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    label = 1 if processor.num_classes else None
    views = list(draw(begin(student, processor, label), SamplingParams(seed=0), seconds=100.0))
    assert [view.num_tokens for view in views] == list(range(1, processor.sequence_length + 1))
    assert len(slept) == len(views) and slept == sorted(slept) and 90 < slept[-1] <= 100


def test_an_engine_that_ends_says_so(artist):
    student, processor, draw = artist
    steps = draw(begin(student, processor, 0 if processor.num_classes else None), SamplingParams(seed=0))
    next(steps)
    draw.args[0].stop()
    with pytest.raises(RuntimeError, match="stopping"):
        next(steps)


def test_the_pad_brings_back_what_it_was_given(artist):
    student, processor, draw = artist
    assert pad_value(processor, blank(student)) == "0:0:0:" and given_pixels(processor, "0:0:0:") == ()
    given = read_upload(processor, png(HALF))
    drawing = Drawing(blank(student).memory, given, given)
    assert given_pixels(processor, pad_value(processor, drawing)) == given
    *_, whole = draw(begin(student, processor, 0 if processor.num_classes else None, given), SamplingParams(seed=0))
    value = pad_value(processor, whole, busy=True)
    assert value.startswith("12:24:1:") and given_pixels(processor, value) == given
    assert thumbnail(processor, whole).startswith("data:image/png;base64,")
    assert likeliest_paper(student, processor) in (0, 64, 128, 192, 255)
    for value in (None, 3, "", "12:0:0:ff", "11:0:0:" + "00" * 11, "0:0:0:" + "00" * 25, "0:0:0:f", "<b>", "-1:0:0:"):
        with pytest.raises(InputError, match="reload the page"):
            given_pixels(processor, value)


@pytest.mark.parametrize(
    "data, reason",
    [
        (None, "no file was chosen"),
        (b"", "of no known format"),
        (b"%PDF no image", "of no known format"),
        (png(HALF)[:50], "is not a readable image"),
        (png(Image.new("I;16", (4, 4))), "more than 8 bits per channel"),
        (png(Image.new("1", (6000, 5000))), "6000 x 5000 pixels"),
    ],
)
def test_bad_uploads_are_refused_in_one_line(data, reason):
    with pytest.raises(InputError, match=reason) as caught:
        read_upload(make()[1], data)
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_wrong_classes_are_refused_in_one_line():
    student, processor = make()
    for label, reason in ((3, "label 3 is not a class"), (None, "label None is not a class")):
        with pytest.raises(InputError, match=reason):
            begin(student, processor, label)


def test_a_student_of_fewer_levels(tmp_path, capsys):
    make()[0].save_pretrained(tmp_path)
    SmtImageProcessor(6, num_levels=9).save_pretrained(tmp_path)
    assert main(["app", "--model", str(tmp_path)]) == 2
    assert "the image processor has 9 ids but the student's vocab_size is 8" in capsys.readouterr().err


def stroke(page, *places):
    """Draws on the pad with the mouse; places in shares of its width and height."""
    box = page.locator("#pad canvas").bounding_box()
    for number, (x, y) in enumerate(places):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def picture(page) -> tuple[int, int, bytes]:
    """What the pad shows: pixels given, pixels read, and the grey of all."""
    given, read, _, grey = page.get_attribute("[data-picture]", "data-picture").split(":")
    return int(given), int(read), bytes.fromhex(grey)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_visit(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path / "student"
    student, processor = make(dtype=torch.float32)
    student.save_pretrained(folder)
    processor.save_pretrained(folder)
    (tmp_path / "half.png").write_bytes(png(HALF))
    (tmp_path / "notes.txt").write_text("no image")
    pictures = Path(os.environ.get("SMT_HF_ARTIFACTS", tmp_path))
    with served(folder) as url, playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            pages, errors = [browser.new_context().new_page() for _ in range(2)], []
            for page in pages:
                page.set_default_timeout(TIMEOUT * 1000)
                page.on("pageerror", lambda error: errors.append(str(error)))
                page.goto(url)
                page.wait_for_selector("#draw:enabled")
                page.click("text=How it draws")
                page.get_by_label("Seconds at least").first.fill("60")
                page.keyboard.press("Tab")
            first, second = pages
            first.click("#draw")
            second.click("#draw")  # while the first one's picture is being drawn
            for page in pages:
                page.wait_for_function("Number(document.querySelector('[data-name=tokens]').dataset.value) > 1")
                page.click("#stop")
                page.wait_for_selector("#notice :has-text('Stopped:')")
            given, read, grey = picture(first)
            assert given == 0 and 0 < read == len(grey) < 24
            first.get_by_label("Seconds at least").first.fill("0")
            first.keyboard.press("Tab")
            first.click("#go_on")
            first.wait_for_selector("#notice :has-text('drawn with seed 0')")
            (expected,) = generate_images(student, processor, 1, 0, seed=0)
            assert picture(first) == (0, 24, expected.tobytes())

            stroke(first, (0.1, 0.1), (0.9, 0.4))
            given, read, grey = picture(first)
            assert (given, read, len(grey)) == (12, 0, 12) and len(set(grey)) > 1
            upper = tuple(processor.pixel_ids(np.frombuffer(grey + bytes(12), np.uint8).reshape(6, 4))[:12])
            first.click("#draw")
            first.wait_for_selector("#notice :has-text('12 given, 12 pixels drawn with seed 1')")
            given, read, grey = picture(first)
            assert (given, read) == (12, 24) and given_pixels(processor, f"12:24:0:{grey.hex()}") == upper
            first.wait_for_function("document.querySelectorAll('#earlier img').length == 2")
            first.screenshot(path=pictures / "app_images.png")

            second.set_input_files("#upload input[type=file], input[type=file]", tmp_path / "notes.txt")
            second.wait_for_selector("#notice .refused:has-text('of no known format')")
            second.set_input_files("#upload input[type=file], input[type=file]", tmp_path / "half.png")
            second.wait_for_selector("#notice :has-text('upper half is given')")
            second.click("#clear")
            second.wait_for_function("document.querySelector('[data-picture]').dataset.picture == '0:0:0:'")
            assert not errors
        finally:
            browser.close()
