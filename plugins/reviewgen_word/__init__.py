"""The tokenizer of words and parts of words (byte-level BPE)."""

from pathlib import Path

WEB_TOKENIZER = Path(__file__).with_name("web_tokenizer.js")
