"""The app: write or draw with a student in the browser, and watch its memory. Needs the extra `app` (gradio)."""

from .image_interface import build_image_app
from .interface import build_app
from .look import CSS, theme
from .pad import CSS as PAD_CSS

__all__ = ["CSS", "PAD_CSS", "build_app", "build_image_app", "theme"]
