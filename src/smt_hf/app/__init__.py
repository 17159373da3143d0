"""The app: write with a student in the browser and watch its memory. Needs the extra `app` (gradio)."""

from .interface import build_app
from .look import CSS, theme

__all__ = ["CSS", "build_app", "theme"]
