"""The recurrent language models rnn, gru and lstm."""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
