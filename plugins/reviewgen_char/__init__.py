"""The tokenizer of characters."""

from pathlib import Path

WEB_TOKENIZER = Path(__file__).with_name("web_tokenizer.js")
