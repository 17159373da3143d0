"""The app's display as HTML: the page, the numbers, and the picture of the memory."""

import base64
import html
import io

import numpy as np
import torch
from PIL import Image

from .writing import END, Writing

LOW, MIDDLE, HIGH = (0x2B, 0x5C, 0xA8), (0xF7, 0xF5, 0xF0), (0xD9, 0x6B, 0x1E)


def key_value_bytes(config, num_tokens: int, itemsize: int) -> int:
    """Bytes of keys and values that a Transformer as wide and as deep as the updater holds after `num_tokens` tokens.

    That is one key and one value of `hidden_size` numbers for every layer and token. The readout layers are not counted, so
    the comparison is with the smaller Transformer.
    """
    return num_tokens * 2 * config.num_updater_layers * config.hidden_size * itemsize


def readable_bytes(count: int) -> str:
    """A size in readable form, such as `2,048 bytes`, `64.0 kB` or `1.5 MB`."""
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1e3:,.1f} kB" if count < 1_000_000 else f"{count / 1e6:,.1f} MB"


def escape(text: str) -> str:
    """Escapes text for HTML, including braces and dollars, which gradio's templates would interpret."""
    return html.escape(text).translate({ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\"})


def heading_html(student) -> str:
    """The heading for a student of text."""
    config = student.config
    return f"""<div class="heading"><h1>Write with a student, watch its memory</h1>
<p>{student.num_parameters():,} parameters. All that it knows of the text is {config.num_memory_tokens} memory tokens of
{config.hidden_size} numbers: it reads every token once and never looks back.</p></div>"""


def image_heading_html(student, processor) -> str:
    """The heading for a student of images."""
    config, size = student.config, processor.size
    return f"""<div class="heading"><h1>Draw with a student, watch its memory</h1>
<p>{student.num_parameters():,} parameters, {size["height"]} &times; {size["width"]} pixels one by one, from the upper left. All
that it knows of the picture so far is {config.num_memory_tokens} memory tokens of {config.hidden_size} numbers.</p></div>"""


def notice_html(text: str, refused: bool = False) -> str:
    """The line below the buttons."""
    return f'<div class="notice{" refused" if refused else ""}" role="status">{escape(text)}</div>'


def page_html(writing: Writing, busy: bool = False) -> str:
    """The text, with the reader's words marked apart from the student's."""
    parts = []
    for author, text in writing.page.passages:
        # While busy, a text may end with the first bytes of a character that is not complete yet.
        text = escape(text.rstrip("\ufffd") if busy else text)
        parts.append(f'<span class="{author}">{text}</span>' if author != END else '<div class="end">&#8258;</div>')
    if not parts:
        parts.append(f'<span class="hint">{escape(empty_page(writing))}</span>')
    return f'<div class="page" data-busy="{int(busy)}">{"".join(parts)}{"<i></i>" if busy else ""}</div>'


def empty_page(writing: Writing) -> str:
    """The hint on a page without text."""
    if writing.num_tokens:
        return (
            f"The memory of {writing.num_tokens:,} tokens is back. Their text is not: the memory is all that the student "
            "needs to go on."
        )
    return "Type a beginning below, or leave it to the student."


def panel_html(student, writing, span: str = "however long the text") -> str:
    """The numbers and the picture of the memory.

    Args:
        student: the student that the memory belongs to.
        writing: a [`Writing`], or anything else with a `memory`, `num_tokens` and `tokens_per_second`.
        span: words for how long the memory keeps its size.
    """
    size = writing.memory.nbytes
    config, itemsize = student.config, writing.memory.element_size()
    other = key_value_bytes(config, writing.num_tokens, itemsize)
    speed = "&#8211;" if writing.tokens_per_second is None else f"{writing.tokens_per_second:,.0f}"
    tokens, width = writing.memory.shape[1:]
    return f"""<div class="panel">
<div class="numbers">
<div><b data-name="tokens" data-value="{writing.num_tokens}">{writing.num_tokens:,}</b><span>tokens read so far</span></div>
<div><b data-name="speed">{speed}</b><span>tokens per second</span></div>
</div>
{bar("memory", "Memory of this student", size, max(size, other), f"{tokens} &times; {width} numbers, {span}")}
{bar("cache", "KV cache of a Transformer", other, max(size, other), note(config, itemsize))}
<figure><img alt="the memory" src="{heat_map(writing.memory)}" style="height: {picture_height(tokens)}px">
<figcaption>{tokens} memory tokens (rows) of {width} numbers:
<span class="low">&#9632;</span> negative <span class="high">&#9632;</span> positive</figcaption></figure>
</div>"""


def note(config, itemsize: int) -> str:
    """How the size of the cache is computed."""
    return (
        "what one of the same width and layers would hold, computed:<br>"
        f"tokens &times; 2 &times; {config.num_updater_layers} layers &times; {config.hidden_size} numbers &times; {itemsize} bytes"
    )


def bar(name: str, title: str, size: int, largest: int, below: str) -> str:
    """A size as a number and a bar."""
    return f"""<div class="bar {name}"><div><span>{title}</span>
<b data-name="{name}" data-value="{size}">{readable_bytes(size)}</b></div>
<div class="track"><div style="width: {100 * size / largest:.2f}%"></div></div><small>{below}</small></div>"""


def picture_height(num_memory_tokens: int) -> int:
    """Height in pixels: at most 22 per row, and not much more than 200 in all."""
    return num_memory_tokens * max(2, min(22, 200 // num_memory_tokens))


def heat_map(memory: torch.Tensor) -> str:
    """The memory `(1, K, D)` as a PNG of K x D pixels, in a data URL; full colour at three times its root mean square."""
    numbers = memory[0].float().cpu().numpy()
    scale = 3 * np.sqrt(np.square(numbers).mean()) + 1e-12
    strength = np.clip(numbers / scale, -1, 1)[..., None]
    colours = np.where(strength < 0, LOW, HIGH)
    pixels = np.array(MIDDLE) + np.abs(strength) * (colours - np.array(MIDDLE))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
