"""The tokenizer in JavaScript, for pages: entry point group ``reviewgen.web_tokenizers``."""

from pathlib import Path

TOKENIZER = Path(__file__).with_name("web_tokenizer.js")
