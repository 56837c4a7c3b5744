"""Where the JavaScript of mingru and minlstm is, for pages that generate in a browser."""

from pathlib import Path

__all__ = ["STEPPER"]

STEPPER = Path(__file__).with_name("web_stepper.js")
