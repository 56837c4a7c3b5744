"""The tokenizer of an export: in the format of the library ``tokenizers``, which transformers reads, and as a JavaScript module.

A tokenizer that has neither form is written as its plugin saves it.
"""

import json
from pathlib import Path
from typing import Any

from reviewgen.config import MAX_RECORD, read_text, to_dict
from reviewgen.export.folders import write_json, write_text
from reviewgen.model import Bundle
from reviewgen.model.write import save_tokenizer
from reviewgen.protocols import SupportsTokenizerJson
from reviewgen.registry import find_web_tokenizer
from reviewgen.storage import temporary_folder

MODULE = "tokenizer.mjs"


def write_tokenizer(bundle: Bundle, folder: Path) -> bool:
    """Write the tokenizer in each form that it has; return whether ``tokenizer.json`` is one of them."""
    has_json = isinstance(bundle.tokenizer, SupportsTokenizerJson)
    if has_json:
        write_pretrained_tokenizer(bundle, folder)
    else:
        save_tokenizer(bundle.tokenizer, bundle.tokenizer_plugin.name, folder)
    if script := find_script(bundle):
        write_text(folder / MODULE, _module(bundle, read_text(script, MAX_RECORD)))
    return has_json


def find_script(bundle: Bundle) -> Path | None:
    """Return the JavaScript file of the tokenizer; None if its package has none."""
    return find_web_tokenizer(bundle.tokenizer_plugin)


def write_pretrained_tokenizer(bundle: Bundle, folder: Path) -> None:
    """Write ``tokenizer.json`` and the two files that transformers reads beside it."""
    from tokenizers import Tokenizer

    tokenizer: Any = bundle.tokenizer
    content = tokenizer.tokenizer_json()
    names = Tokenizer.from_str(content).id_to_token
    special = {"bos_token": names(tokenizer.bos_id), "eos_token": names(tokenizer.eos_id)}
    write_text(folder / "tokenizer.json", content)
    write_json(folder / "special_tokens_map.json", special)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that spells a special token is only a text
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", settings | special)


def _module(bundle: Bundle, script: str) -> str:
    """Return the tokenizer's script with its files in it, as a module that exports a tokenizer."""
    with temporary_folder() as own:
        names = save_tokenizer(bundle.tokenizer, bundle.tokenizer_plugin.name, own)
        files = {name: (own / name).read_text(encoding="utf-8") for name in names}
    values = (json.dumps(value, ensure_ascii=False) for value in (to_dict(bundle.tokenizer_config), files))
    return f"{script}\nexport const tokenizer = createTokenizer({', '.join(values)});\n"
