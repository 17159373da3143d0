"""The interface of a student of images: its layout, and what every button does."""

from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr

from ..errors import InputError
from ..inference import SamplingParams
from ..models import SmtImageProcessor
from .drawing import Drawing, begin, blank, go_on, likeliest_paper, num_half, read_upload, start_engine
from .interface import MAX_SEED, WRITERS, StopRequest
from .pad import build_pad, earlier_html, given_pixels, pad_value, thumbnail
from .panel import image_heading_html, notice_html, panel_html

MAX_SECONDS = 60  # the longest minimum time for a picture
NUM_EARLIER = 16  # earlier pictures that stay visible
SPAN = "from the first pixel to the last"


def build_image_app(student, processor: SmtImageProcessor) -> gr.Blocks:
    """Builds the app for one student of images. All visitors share the student; what they draw stays in their session.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode, trained on images.
        processor: the image processor that it was trained with.
    """
    engine = start_engine(student)
    with gr.Blocks(title="smt-hf", fill_width=True, analytics_enabled=False, delete_cache=(600, 600)) as app:
        connect(lay_out(student, processor), student, processor, engine)
    return app


def lay_out(student, processor: SmtImageProcessor) -> SimpleNamespace:
    """The components: the picture on the left, the memory on the right."""
    ui = SimpleNamespace(drawing=gr.State(blank(student)), stop_request=gr.State(StopRequest()), earlier=gr.State(()))
    names = processor.class_names or [str(number) for number in range(processor.num_classes)]
    gr.HTML(image_heading_html(student, processor), elem_id="heading")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=380):
            ui.pad = build_pad(processor, likeliest_paper(student, processor))
            with gr.Row():
                ui.draw = gr.Button("Draw", variant="primary", elem_id="draw", min_width=90)
                ui.stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=90)
                ui.go_on = gr.Button("Go on", interactive=False, elem_id="go_on", min_width=90)
                ui.clear = gr.Button("Clear", elem_id="clear", min_width=90)
            ui.notice = gr.HTML(notice_html(""), elem_id="notice")
            ui.row = gr.HTML(earlier_html(()), elem_id="earlier")
        with gr.Column(scale=5, min_width=340):
            ui.panel = gr.HTML(panel_html(student, blank(student), SPAN), elem_id="panel")
            with gr.Row(equal_height=False):
                ui.label = gr.Dropdown(
                    [(name, number) for number, name in enumerate(names)],
                    value=0 if names else None,
                    label="What to draw",
                    visible=bool(names),
                    elem_id="label",
                    min_width=150,
                )
                ui.upload = gr.UploadButton(
                    "Upload an upper half",
                    type="binary",
                    elem_id="upload",
                    visible=num_half(processor) > 0,
                    min_width=150,
                )
            with gr.Accordion("How it draws", open=False):
                with gr.Row():
                    temperature = gr.Slider(0, 2, 1, step=0.05, label="Temperature", min_width=120)
                    top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", min_width=120)
                with gr.Row():
                    seconds = gr.Slider(0, MAX_SECONDS, 4, step=1, label="Seconds at least", min_width=120)
                    ui.seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120)
    ui.sampling = [temperature, top_p, seconds, ui.seed]
    return ui


def connect(ui: SimpleNamespace, student, processor: SmtImageProcessor, engine) -> None:
    """Connects the buttons to what they do."""

    def show(drawing, text="", busy=False) -> dict:
        return {
            ui.drawing: drawing,
            ui.pad: pad_value(processor, drawing, busy),
            ui.panel: panel_html(student, drawing, SPAN),
            ui.notice: notice_html(text),
        }

    def allow(drawing, busy=False) -> dict:
        return {
            ui.stop: gr.update(interactive=busy),
            ui.go_on: gr.update(interactive=not busy and is_begun(drawing)),
            **{button: gr.update(interactive=not busy) for button in (ui.draw, ui.clear, ui.upload)},
        }

    def is_begun(drawing) -> bool:
        return 0 < drawing.num_tokens < processor.sequence_length

    def run(start, stop_request, earlier, temperature, top_p, seconds, seed) -> Iterator[dict]:
        if seed is None:
            raise InputError("seed is missing: enter a whole number")
        if not 0 <= seconds <= MAX_SECONDS:
            raise InputError(f"seconds={seconds} must be from 0 to {MAX_SECONDS}")
        params = SamplingParams(temperature=temperature, top_p=top_p, seed=seed)
        stop_request.made = False
        drawing = start
        yield {**show(drawing, busy=True), **allow(drawing, busy=True)}
        try:
            for drawing in go_on(engine, processor, start, params, seconds, lambda: stop_request.made):
                yield show(drawing, busy=True)
        except RuntimeError as error:  # EngineFull among them
            yield {**show(drawing), **allow(drawing), ui.notice: notice_html(str(error), refused=True)}
            return
        yield {**show(drawing, outcome(processor, drawing)), **allow(drawing)}
        if drawing.num_tokens == processor.sequence_length:
            earlier = (thumbnail(processor, drawing), *earlier)[:NUM_EARLIER]
            yield {ui.earlier: earlier, ui.row: earlier_html(earlier), ui.seed: (seed + 1) % (MAX_SEED + 1)}

    def draw(pad, label, *rest) -> Iterator[dict]:
        try:
            yield from run(begin(student, processor, label, given_pixels(processor, pad)), *rest)
        except InputError as error:
            yield {ui.notice: notice_html(str(error), refused=True)}

    def draw_on(pad, drawing, *rest) -> Iterator[dict]:
        try:
            if pad != pad_value(processor, drawing):
                raise InputError("the picture is no longer the one that was stopped: press Draw")
            yield from run(drawing, *rest)
        except InputError as error:
            yield {ui.notice: notice_html(str(error), refused=True)}

    def stop(stop_request) -> None:
        stop_request.made = True

    def clear() -> dict:
        return {**show(blank(student)), **allow(blank(student))}

    def upload(data) -> dict:
        try:
            given = read_upload(processor, data)
        except InputError as error:
            return {ui.notice: notice_html(str(error), refused=True)}
        drawing = Drawing(blank(student).memory, given, given)
        return {**show(drawing, "Its upper half is given. Draw, and the student completes it."), **allow(drawing)}

    changed = [ui.drawing, ui.pad, ui.panel, ui.notice, ui.draw, ui.stop, ui.go_on, ui.clear, ui.upload]
    finished = [ui.earlier, ui.row, ui.seed]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    together = {"concurrency_limit": WRITERS, "concurrency_id": "drawing"}
    rest = [ui.stop_request, ui.earlier, *ui.sampling]
    ui.draw.click(draw, [ui.pad, ui.label, *rest], [*changed, *finished], **together, **quiet)
    ui.go_on.click(draw_on, [ui.pad, ui.drawing, *rest], [*changed, *finished], **together, **quiet)
    ui.stop.click(stop, ui.stop_request, queue=False, **quiet)
    ui.clear.click(clear, None, changed, **quiet)
    ui.upload.upload(upload, ui.upload, changed, **quiet)


def outcome(processor: SmtImageProcessor, drawing: Drawing) -> str:
    """The notice to show when drawing has ended."""
    given = f"{len(drawing.given):,} given, " if drawing.given else ""
    drawn = max(0, drawing.num_read - len(drawing.given))
    if drawing.num_tokens < processor.sequence_length:
        return f"Stopped: {given}{drawn:,} drawn, {processor.num_pixels - drawing.num_read:,} pixels to go."
    return f"{given}{drawn:,} pixels drawn with seed {drawing.seed}."
