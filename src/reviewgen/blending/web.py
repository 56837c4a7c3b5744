"""Where the JavaScript of blends is, for pages that generate in a browser."""

from pathlib import Path

STEPPER = Path(__file__).with_name("web_stepper.js")
