"""The tokenizer of words and pieces of words."""

from pathlib import Path

WEB_TOKENIZER = Path(__file__).with_name("web_tokenizer.js")
