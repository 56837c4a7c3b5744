"""The folder of an export, and the tokenizer in it.

The folder appears only once it is complete, and replaces only an earlier export. Each export
contains a list of its files, by which it is recognised. File names alone are not enough: many
folders of models from the Hugging Face Hub have a ``tokenizer_config.json``, too.

The tokenizer is written in the format of the library ``tokenizers``, which transformers reads, and
as a JavaScript module. If its plugin does not support the first format, the files that the plugin
saves are written instead.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reviewgen.config.bounded import MAX_RECORD, dump_json, read_json, read_text
from reviewgen.config.settings import check_flags, to_dict
from reviewgen.errors import BundleError, ConfigError, OutputExists, quoted, storage_errors
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.protocols.tokenizer import SupportsTokenizerJson
from reviewgen.registry.plugins import find_web_tokenizer
from reviewgen.saving.layout import Bundle
from reviewgen.saving.write import save_tokenizer
from reviewgen.storage import atomic_folder, check_output, temporary_folder, to_path
from reviewgen.version import __version__

LIST = "reviewgen-export.json"
"""The file that lists the other files of an export."""

MODULE = "tokenizer.mjs"
"""The JavaScript module with the tokenizer."""

ONNX = "onnx"
TRANSFORMERS = "transformers"
"""The kinds of exports."""


def check_target(folder: str | os.PathLike[str], kind: str, overwrite: bool) -> Path:
    """Check that an export can be written, before any work is done, and return its folder as a
    path.

    Args:
        folder: The target.
        kind: ``ONNX`` or ``TRANSFORMERS``.
        overwrite: Whether to replace an earlier export of this kind.

    Raises:
        ConfigError: The target is not a path.
        OutputExists: The target exists and ``overwrite`` is false, or the target has files that are
            not from an export of this kind.
        StorageError: The nearest existing parent is not a writable folder.
    """
    check_flags(overwrite=overwrite)
    folder = to_path("folder", folder)
    with storage_errors(folder):
        if not overwrite or not folder.is_dir() or folder.is_symlink():
            check_output(folder)  # refuses a target that exists
        elif foreign := {path.name for path in folder.iterdir()} - _own_files(folder, kind):
            raise OutputExists(
                f"{folder} has files that reviewgen --{kind} did not write, such as"
                f" {quoted(min(foreign))}: it is not replaced. Give another folder, or move them."
            )
    return folder


def _own_files(folder: Path, kind: str) -> set[str]:
    """Return the names of the files that an earlier export of this kind has written into a
    folder.
    """
    # these are raised if the list is missing, or was written by another program
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        listed = read_json(folder / LIST)
        if listed["export"] == kind:
            return {*listed["files"], LIST, ".DS_Store"}  # macOS writes .DS_Store
    return set()


@contextlib.contextmanager
def export_folder(folder: Path, kind: str, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder. When the block ends, the scratch folder gets the list of its files,
    and becomes ``folder``. If the block raises, the scratch folder is removed.

    Raises:
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    with storage_errors(folder), atomic_folder(folder, overwrite=overwrite) as scratch:
        yield scratch
        content = {
            "library": "reviewgen",
            "library_version": __version__,
            "export": kind,
            "files": sorted(path.name for path in scratch.iterdir()),
        }
        (scratch / LIST).write_bytes(dump_json(content))


def export_tokenizer(model: ReviewModel, folder: Path, *, overwrite: bool = False) -> None:
    """Write the tokenizer of a model as a ``PreTrainedTokenizerFast``, which transformers'
    ``AutoTokenizer`` loads.

    Args:
        model: The model.
        folder: The new folder.
        overwrite: Whether to replace an earlier export there.

    Raises:
        ConfigError: The tokenizer has no format that transformers reads.
        OutputExists: The folder exists, and ``overwrite`` is false or it is not an earlier export.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    folder = check_target(folder, TRANSFORMERS, overwrite)
    with export_folder(folder, TRANSFORMERS, overwrite) as scratch:
        write_pretrained(model.bundle, scratch)


def write_tokenizer(bundle: Bundle, folder: Path) -> bool:
    """Write the tokenizer into an empty folder, in each format that it supports. Return whether
    ``tokenizer.json`` was written.
    """
    plugin = bundle.tokenizer_plugin
    has_json = isinstance(bundle.tokenizer, SupportsTokenizerJson)
    if has_json:
        write_pretrained(bundle, folder)
    else:
        save_tokenizer(bundle.tokenizer, plugin.name, folder)
    script = find_web_tokenizer(plugin)
    if script is not None:
        # a JavaScript module with the tokenizer's script and files, which exports the tokenizer
        settings = json.dumps(to_dict(bundle.tokenizer_config), ensure_ascii=False)
        files = json.dumps(read_tokenizer_files(bundle), ensure_ascii=False)
        export = f"export const tokenizer = createTokenizer({settings}, {files});\n"
        module = f"{read_text(script, MAX_RECORD)}\n{export}"
        (folder / MODULE).write_text(module, encoding="utf-8", newline="")
    return has_json


def tokenizer_json(bundle: Bundle) -> str:
    """Return the tokenizer in the format of the library ``tokenizers``.

    Raises:
        ConfigError: The tokenizer does not support the format.
    """
    if not isinstance(bundle.tokenizer, SupportsTokenizerJson):
        raise ConfigError(
            f"The tokenizer {bundle.tokenizer_plugin.name!r} has no tokenizer_json(), so other"
            " programs cannot read it; use word or char."
        )
    return bundle.tokenizer.tokenizer_json()


def write_pretrained(bundle: Bundle, folder: Path, *, adds_bos: bool = False) -> None:
    """Write ``tokenizer.json``, and the two further files that transformers reads. With
    ``adds_bos``, the tokenizer puts bos in front of a text. The errors are those of
    ``tokenizer_json``.
    """
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    tokenizer = bundle.tokenizer
    content = tokenizer_json(bundle)
    parsed: Any = Tokenizer.from_str(content)
    name_of = parsed.id_to_token
    special = {"bos_token": name_of(tokenizer.bos_id), "eos_token": name_of(tokenizer.eos_id)}
    if adds_bos:
        bos = special["bos_token"]
        parsed.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_id)]
        )
        content = parsed.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(content, encoding="utf-8", newline="")
    (folder / "special_tokens_map.json").write_bytes(dump_json(special))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # the name of a special token in a text is ordinary text
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_bytes(dump_json(settings | special))


def read_tokenizer_files(bundle: Bundle) -> dict[str, str]:
    """Return the text of each file that the tokenizer saves, by the name of the file.

    Raises:
        BundleError: A file is not text.
    """
    name = bundle.tokenizer_plugin.name
    with temporary_folder() as folder:
        try:
            return {
                file: (folder / file).read_text(encoding="utf-8")
                for file in save_tokenizer(bundle.tokenizer, name, folder)
            }
        except UnicodeDecodeError:
            raise BundleError(
                f"The tokenizer {quoted(name)} saves files that are not text, which JavaScript"
                " cannot read."
            ) from None
