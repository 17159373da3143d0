"""The pad: shows the picture as it is drawn, and lets visitors draw on its upper half.

Its value is text that both sides write, `GIVEN:READ:BUSY:GREY`: the number of given pixels, the number that the memory has read, 1
while the student draws, and two hexadecimal digits for the grey of each visible pixel.
"""

import base64
import io
import re

import gradio as gr
from PIL import Image

from ..errors import InputError
from ..models import SmtImageProcessor
from .drawing import Drawing, grey_values, num_half, pixel_ids

SIDE = 420  # of the picture on the page, in pixels, approximately
CSS = """
#pad { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 1rem; }
#pad canvas { display: block; margin: 0 auto; max-width: 100%; touch-action: none; cursor: crosshair; border-radius: 4px; }
#pad small { display: block; text-align: center; margin-top: .5rem; color: var(--body-text-color-subdued); }
.earlier { display: flex; flex-wrap: wrap; gap: 6px; min-height: 48px; }
.earlier img { height: 48px; image-rendering: pixelated; border-radius: 3px; }
"""
TEMPLATE = """<canvas width="%d" height="%d" role="img" aria-label="the picture"></canvas>
<small>%s</small><i hidden data-picture="${value}"></i>"""
SCRIPT = """
const width = %(width)d, height = %(height)d, half = %(half)d, levels = %(levels)d, paper = %(paper)d;
const ink = paper < 128 ? 255 : 0, radius = Math.max(0.75, width / 25);
const shown = (grey) => Math.ceil(Math.floor(grey * levels / 256) * 255 / (levels - 1));
const picture = () => {
    const [given, read, busy, grey] = element.querySelector("[data-picture]").dataset.picture.split(":");
    const pixels = (grey.match(/../g) || []).map((pair) => parseInt(pair, 16));
    return { given: +given, read: +read, busy: busy === "1", pixels };
};
const paint = () => {
    const canvas = element.querySelector("canvas"), brush = canvas.getContext("2d"), side = canvas.width / width;
    const { read, busy, pixels } = picture();
    for (let place = 0; place < width * height; place++) {
        const x = place %% width, y = Math.floor(place / width), grey = shown(pixels[place]);
        brush.fillStyle = place < pixels.length ? `rgb(${grey}, ${grey}, ${grey})` : (x + y) %% 2 ? "#d6d1c8" : "#dedad2";
        brush.fillRect(x * side, y * side, side, side);
    }
    brush.fillStyle = brush.strokeStyle = "#0d9488";
    if (half) brush.fillRect(0, half / width * side - 1, canvas.width, 2);
    if ((busy || read < pixels.length) && read > 0 && read < width * height) {
        brush.lineWidth = Math.max(2, side / 8);
        brush.strokeRect(read %% width * side, Math.floor(read / width) * side, side, side);
    }
};
const place = (event) => {
    const box = element.querySelector("canvas").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * width, (event.clientY - box.top) / box.height * height];
};
let last = null;
const stroke = (to) => {
    const now = picture();
    const mine = now.given === half ? now.pixels.slice(0, half) : Array(half).fill(paper);
    const [x0, y0] = last, dx = to[0] - x0, dy = to[1] - y0;
    for (let pixel = 0; pixel < half; pixel++) {
        const x = pixel %% width + 0.5 - x0, y = Math.floor(pixel / width) + 0.5 - y0;
        const share = Math.min(1, Math.max(0, (x * dx + y * dy) / (dx * dx + dy * dy || 1)));
        const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x - share * dx, y - share * dy)));
        const grey = Math.round(paper + (ink - paper) * cover);
        mine[pixel] = ink ? Math.max(mine[pixel], grey) : Math.min(mine[pixel], grey);
    }
    last = to;
    props.value = `${half}:0:0:${mine.map((grey) => grey.toString(16).padStart(2, "0")).join("")}`;
};
element.addEventListener("pointerdown", (event) => {
    if (event.target.tagName !== "CANVAS" || event.button !== 0 || picture().busy) return;
    const at = place(event);
    if (Math.floor(at[1]) * width >= half) return;
    event.target.setPointerCapture(event.pointerId);
    last = at;
    stroke(at);
});
element.addEventListener("pointermove", (event) => {
    if (last !== null && !picture().busy) stroke(place(event));
});
for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => { last = null; });
new MutationObserver(paint).observe(element, { subtree: true, childList: true, attributeFilter: ["data-picture"] });
paint();
"""


def build_pad(processor: SmtImageProcessor, paper: int) -> gr.HTML:
    """Builds the pad for a student's images.

    Args:
        processor: the student's image processor.
        paper: grey value, 0 to 255, of the background that a visitor draws on.
    """
    height, width = processor.size["height"], processor.size["width"]
    side = max(1, SIDE // max(height, width))
    half = num_half(processor)
    hint = "Draw in the upper half, above the line, and the student completes it." if half else ""
    sizes = {"width": width, "height": height, "half": half, "levels": processor.num_levels, "paper": paper}
    return gr.HTML(
        "0:0:0:",
        html_template=TEMPLATE % (width * side, height * side, hint),
        js_on_load=SCRIPT % sizes,
        elem_id="pad",
    )


def pad_value(processor: SmtImageProcessor, drawing: Drawing, busy: bool = False) -> str:
    """The pad's value for a drawing."""
    grey = grey_values(processor, drawing.pixels).hex()
    return f"{len(drawing.given)}:{drawing.num_read}:{int(busy)}:{grey}"


def given_pixels(processor: SmtImageProcessor, value) -> tuple[int, ...]:
    """The pixels that a visitor has given on the pad, as ids.

    Raises:
        InputError: for a value that no pad would send.
    """
    found = re.fullmatch(r"(\d{1,7}):\d{1,7}:[01]:((?:[0-9a-f]{2})*)", value) if isinstance(value, str) else None
    grey = bytes.fromhex(found[2]) if found else b""
    count = int(found[1]) if found else -1
    if count not in (0, num_half(processor)) or not count <= len(grey) <= processor.num_pixels:
        raise InputError("the pad sent no picture of this student's size: reload the page")
    return pixel_ids(processor, grey[:count])


def thumbnail(processor: SmtImageProcessor, drawing: Drawing) -> str:
    """A whole picture as a PNG in a data URL."""
    size = (processor.size["width"], processor.size["height"])
    file = io.BytesIO()
    Image.frombytes("L", size, grey_values(processor, drawing.pixels)).save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def earlier_html(pictures: tuple[str, ...]) -> str:
    """The earlier finished pictures, newest first."""
    images = "".join(f'<img alt="an earlier picture" src="{picture}">' for picture in pictures)
    return f'<div class="earlier">{images}</div>'
