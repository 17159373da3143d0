"""The interface: its layout, and what every button does."""

import base64
from collections.abc import Iterator
from types import SimpleNamespace

import gradio as gr

from ..errors import InputError
from ..inference import SamplingParams
from .look import DOWNLOAD
from .memory_file import restore, save
from .panel import heading_html, notice_html, page_html, panel_html
from .writing import END, Writing, begin, go_on, start_engine

MAX_CHARACTERS = 100_000  # that a visitor may send at once
WRITERS = 32  # visitors for whom the student writes at once; others wait for their turn
MAX_SEED = 2**32 - 1
BEGIN_HINT = "A beginning, such as: Once upon a time"
GO_ON_HINT = "Words of your own to go on from, or none"


class StopRequest:
    """Whether a visitor has pressed Stop: one object for each visitor, seen by the call that writes for them."""

    def __init__(self):
        self.made = False


def build_app(student, tokenizer) -> gr.Blocks:
    """Builds the app for one student. All visitors share it and nobody changes it; what they write stays in their session.

    Args:
        student: an [`SmtRnnForCausalLM`] in evaluation mode.
        tokenizer: its tokenizer.
    """
    blank, engine = begin(student), start_engine(student, tokenizer)
    with gr.Blocks(title="smt-hf", fill_width=True, analytics_enabled=False, delete_cache=(600, 600)) as app:
        connect(lay_out(student, blank), student, tokenizer, engine, blank)
    return app


def lay_out(student, blank: Writing) -> SimpleNamespace:
    """The components: the text on the left, the memory on the right."""
    ui = SimpleNamespace(writing=gr.State(blank), stop_request=gr.State(StopRequest()))
    gr.HTML(heading_html(student), elem_id="heading")
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=380):
            ui.page = gr.HTML(page_html(blank), elem_id="page", autoscroll=True, min_height=400, max_height=400)
            ui.words = gr.Textbox(
                show_label=False,
                container=False,
                placeholder=BEGIN_HINT,
                max_lines=6,
                max_length=MAX_CHARACTERS,
                elem_id="words",
            )
            with gr.Row():
                ui.write = gr.Button("Write", variant="primary", elem_id="write", min_width=90)
                ui.stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=90)
                ui.over = gr.Button("Start over", elem_id="over", min_width=90)
            ui.notice = gr.HTML(notice_html(""), elem_id="notice")
        with gr.Column(scale=5, min_width=340):
            ui.panel = gr.HTML(panel_html(student, blank), elem_id="panel")
            with gr.Row():
                ui.save = gr.Button("Save memory", elem_id="save", min_width=150)
                ui.restore = gr.UploadButton("Restore memory", type="binary", elem_id="restore", min_width=150)
            with gr.Accordion("How it writes", open=False):
                with gr.Row():
                    temperature = gr.Slider(0, 2, 0.7, step=0.05, label="Temperature", min_width=120)
                    top_p = gr.Slider(0.05, 1, 0.95, step=0.05, label="Top-p", min_width=120)
                with gr.Row():
                    max_new_tokens = gr.Slider(1, 10_000, 300, step=1, label="New tokens", min_width=120)
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120)
    ui.sampling = [temperature, top_p, max_new_tokens, seed]
    ui.file = gr.Textbox(visible=False)
    return ui


def connect(ui: SimpleNamespace, student, tokenizer, engine, blank: Writing) -> None:
    """Connects the buttons to what they do."""

    def show(writing, text="", busy=False) -> dict:
        return {
            ui.writing: writing,
            ui.page: page_html(writing, busy),
            ui.panel: panel_html(student, writing),
            ui.notice: notice_html(text),
        }

    def allow(writing, busy=False) -> dict:
        begun = writing.num_tokens > 0 or busy
        return {
            ui.words: gr.update(placeholder=GO_ON_HINT if begun else BEGIN_HINT),
            ui.write: gr.update(value="Go on" if begun else "Write", interactive=not busy),
            ui.stop: gr.update(interactive=busy),
            **{button: gr.update(interactive=not busy) for button in (ui.over, ui.save, ui.restore)},
        }

    def write(words, writing, stop_request, temperature, top_p, max_new_tokens, seed) -> Iterator[dict]:
        num_before = writing.num_tokens
        try:
            if len(words) > MAX_CHARACTERS:  # clients other than the page may send more
                raise InputError(f"{len(words):,} characters are too many: enter at most {MAX_CHARACTERS:,} at a time")
            params = SamplingParams(max_new_tokens, temperature, top_p=top_p, seed=seed)
            steps = go_on(engine, tokenizer, writing, words, params, lambda: stop_request.made)
            stop_request.made = False
            yield {**show(writing, busy=True), **allow(writing, busy=True)}
            yield {ui.words: ""}
            for writing in steps:
                yield show(writing, busy=True)
            yield {**show(writing, outcome(writing, num_before, stop_request.made)), **allow(writing)}
            if writing.unread:
                yield {ui.words: writing.unread}
        except (InputError, RuntimeError) as error:  # EngineFull among them
            yield {**show(writing), **allow(writing), ui.notice: notice_html(str(error), refused=True)}

    def stop(stop_request) -> None:
        stop_request.made = True

    def start_over() -> dict:
        return {**show(blank), **allow(blank)}

    def save_memory(writing) -> str:
        return base64.b64encode(save(student, writing)).decode()

    def restore_memory(data) -> dict:
        try:
            writing = restore(student, data)
        except InputError as error:
            return {ui.notice: notice_html(str(error), refused=True)}
        return {**show(writing), **allow(writing)}

    changed = [ui.writing, ui.page, ui.panel, ui.notice, ui.words, ui.write, ui.stop, ui.over, ui.save, ui.restore]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    gr.on(
        [ui.write.click, ui.words.submit],
        write,
        [ui.words, ui.writing, ui.stop_request, *ui.sampling],
        changed,
        concurrency_limit=WRITERS,
        **quiet,
    )
    ui.stop.click(stop, ui.stop_request, queue=False, **quiet)
    ui.over.click(start_over, None, changed, **quiet)
    ui.save.click(save_memory, ui.writing, ui.file, **quiet).then(None, ui.file, js=DOWNLOAD, **quiet)
    ui.restore.upload(restore_memory, ui.restore, changed, **quiet)


def outcome(writing: Writing, num_before: int, stopped: bool) -> str:
    """The notice to show when writing has ended."""
    count = f"{writing.num_tokens - num_before:,} tokens read"
    if writing.page.passages and writing.page.passages[-1].author == END:
        return f"{count}. The student ended the text here; go on, and it begins another."
    return f"{count}, then stopped." if stopped else f"{count}."
