"""What a table is made from: a saved model, and the name of a source of texts."""

from pathlib import Path
from typing import Any

from reviewgen.errors import ConfigError
from reviewgen.model import ReviewModel, check_model

__all__ = ["load_saved", "name_source"]


def load_saved(model: Any, weight_bits: int = 32) -> tuple[ReviewModel, str | Path | None]:
    """Return a model, and the source that it was loaded from.

    Args:
        model: A ReviewModel, or what ``load`` takes.
        weight_bits: The bits of a weight of a model that is loaded.

    Raises:
        ConfigError: It is neither, or a ReviewModel that is not saved as it is.
        ReviewgenError: It cannot be loaded; see ``load``.
    """
    if isinstance(model, str | Path):
        return ReviewModel.from_pretrained(model, weight_bits=weight_bits), model
    check_model("model", model)
    if model.digest is None:
        raise ConfigError("A table says which model it is from, and this one is not saved as it is: save and load it first.")
    folder = model.bundle.folder
    return model, model.bundle.source if folder is None else folder


def name_source(source: Any) -> str:
    """Return the name of a source of texts: its path or URL, or its type."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__
