"""Colours, fonts and the only script. Fonts are the system's own: nothing is fetched from anywhere."""

import gradio as gr

FONT = ("ui-sans-serif", "system-ui", "sans-serif")
CSS = """
.gradio-container .main { max-width: 1180px !important; padding: .5rem 1.5rem !important; }
.gradio-container main { padding: .8rem 0 !important; }
.gradio-container .html-container { padding: 0; }
#heading h1 { font-size: 1.5rem; font-weight: 650; margin: 0 0 .15rem; }
#heading p { margin: 0; color: var(--body-text-color-subdued); }

#page, #panel { border: 1px solid var(--border-color-primary); border-radius: 10px; padding: 1rem 1.3rem; }
#page { padding: .4rem 0; }
#page .html-container { padding: .6rem 1.3rem; }
.page { padding-bottom: 1.6em; white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6; font-size: 1.05rem;
  font-family: Georgia, Charter, "DejaVu Serif", serif; }
.page .reader { font-weight: 700; color: var(--primary-700); }
.dark .page .reader { color: var(--primary-300); }
.page .hint { color: var(--body-text-color-subdued); font-style: italic; }
.page .end { text-align: center; color: var(--body-text-color-subdued); }
.page i { display: inline-block; width: .5em; height: 1.05em; vertical-align: text-bottom; background: var(--primary-500); }

.panel { font-variant-numeric: tabular-nums; }
.panel .numbers { display: grid; grid-template-columns: 1fr 1fr; margin-bottom: 1.1rem; }
.panel .numbers b { display: block; font-size: 1.9rem; font-weight: 650; line-height: 1.15; }
.panel .numbers span, .panel small, .panel figcaption { color: var(--body-text-color-subdued); font-size: .82rem; }
.panel .bar { margin-bottom: 1rem; }
.panel .bar > div:first-child { display: flex; justify-content: space-between; gap: 1rem; }
.panel .bar b { white-space: nowrap; }
.panel .track { height: 9px; margin: .3rem 0 .15rem; border-radius: 5px; background: var(--border-color-primary); }
.panel .track div { height: 100%; border-radius: 5px; background: var(--neutral-400); }
.panel .memory .track div { min-width: 4px; background: var(--primary-500); }
.panel figure { margin: 1.2rem 0 0; }
.panel img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
.panel figcaption { margin-top: .35rem; }
.panel .low { color: #2b5ca8; }
.panel .high { color: #d96b1e; }

.notice { min-height: 1.5rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.notice.refused { color: #b91c1c; }
.dark .notice.refused { color: #fca5a5; }
"""
DOWNLOAD = """(file) => {
    const link = document.createElement("a");
    link.href = "data:application/octet-stream;base64," + file;
    link.download = "memory.safetensors";
    link.click();
}"""


def theme() -> gr.Theme:
    """The theme that the app is launched with."""
    look = gr.themes.Default(
        primary_hue="teal", neutral_hue="stone", font=FONT, font_mono=("ui-monospace", "monospace")
    )
    return look.set(body_text_color_subdued="*neutral_500", button_primary_background_fill="*primary_600")
