"""The tokenizer of a model as a folder that transformers' ``AutoTokenizer.from_pretrained`` loads."""

from pathlib import Path
from typing import TYPE_CHECKING

from reviewgen.errors import ConfigError
from reviewgen.export.folders import TRANSFORMERS, check_target, export_folder
from reviewgen.export.tokenizer_files import write_pretrained_tokenizer
from reviewgen.model import check_model
from reviewgen.protocols import SupportsTokenizerJson

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel


def export_transformers(model: "ReviewModel", folder: Path, *, overwrite: bool = False) -> None:
    """Write the tokenizer of a model as a ``PreTrainedTokenizerFast``.

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
        write_pretrained_tokenizer(model.bundle, scratch)
