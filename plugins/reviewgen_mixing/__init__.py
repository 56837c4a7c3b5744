"""Context mixing: many contexts predict each symbol, and a mixer learns which of them to trust."""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
