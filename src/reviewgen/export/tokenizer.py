"""The tokenizer of an export: in the format of the library ``tokenizers``, which transformers reads, and as a JavaScript module.

A tokenizer that has neither form is written as its plugin saves it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.config import MAX_RECORD, read_text, to_dict
from reviewgen.errors import ConfigError
from reviewgen.export.folders import TRANSFORMERS, check_target, export_folder, write_json
from reviewgen.model import Bundle, check_model
from reviewgen.model.write import save_tokenizer
from reviewgen.protocols import SupportsTokenizerJson
from reviewgen.registry import find_web_tokenizer
from reviewgen.storage import temporary_folder

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

MODULE = "tokenizer.mjs"


def export_transformers(model: "ReviewModel", folder: Path, *, overwrite: bool = False) -> None:
    """Write the tokenizer of a model as a ``PreTrainedTokenizerFast``, which transformers' ``AutoTokenizer`` loads.

    Args:
        model: The model.
        folder: The new folder.
        overwrite: Whether to replace an earlier export there.

    Raises:
        ConfigError: The tokenizer has no form that transformers reads.
        OutputExists: The folder exists, and ``overwrite`` is false or it is not an earlier export.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    folder = check_target(folder, TRANSFORMERS, overwrite)
    if not isinstance(model.tokenizer, SupportsTokenizerJson):
        raise ConfigError(
            f"The tokenizer {model.tokenizer_name!r} has no tokenizer_json(), so transformers cannot read it; word and char have."
        )
    with export_folder(folder, TRANSFORMERS, overwrite) as scratch:
        _write_pretrained(model.bundle, scratch)


def write_tokenizer(bundle: Bundle, folder: Path) -> bool:
    """Write the tokenizer in each form that it has; return whether ``tokenizer.json`` is one of them."""
    plugin = bundle.tokenizer_plugin
    has_json = isinstance(bundle.tokenizer, SupportsTokenizerJson)
    if has_json:
        _write_pretrained(bundle, folder)
    else:
        save_tokenizer(bundle.tokenizer, plugin.name, folder)
    if script := find_web_tokenizer(plugin):
        module = _module(bundle, read_text(script, MAX_RECORD))
        (folder / MODULE).write_text(module, encoding="utf-8", newline="")
    return has_json


def _write_pretrained(bundle: Bundle, folder: Path) -> None:
    """Write ``tokenizer.json`` and the two files that transformers reads beside it."""
    from tokenizers import Tokenizer

    tokenizer: Any = bundle.tokenizer
    content = tokenizer.tokenizer_json()
    names = Tokenizer.from_str(content).id_to_token
    special = {"bos_token": names(tokenizer.bos_id), "eos_token": names(tokenizer.eos_id)}
    (folder / "tokenizer.json").write_text(content, encoding="utf-8", newline="")
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
