"""Helpers for tests of saved folders: change one thing in a folder, and see how it is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import reviewgen
from reviewgen import ReviewModel
from reviewgen.errors import BundleError
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import THIS_PROCESS, register_model, register_tokenizer
from tests.support.fakes import (
    LETTERS,
    FakeConfig,
    LetterTokenizer,
    TableModel,
    review_model,
    table,
)

__all__ = ["WEIGHTS", "Table", "edit_json", "edit_tensors", "letters", "refusal"]

WEIGHTS = "model.safetensors"


def edit_json(file: Path, *path: str, value: Any) -> None:
    """Change one value inside a JSON file."""
    content = inner = json.loads(file.read_text(encoding="utf-8"))
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a saved model in place."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    # the file may be mapped
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    edit(tensors)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / WEIGHTS, metadata)


def refusal(folder: Path | str, **options: Any) -> str:
    """Return the sentence with which a saved folder is refused."""
    try:
        reviewgen.load(folder, **options)
    except BundleError as error:
        message = str(error)
        assert "\n" not in message and len(message) <= 490, message
        return message
    return "it was read"


class Table(TableModel):
    """``TableModel``, as ``load`` makes it."""

    def __init__(self, config: FakeConfig) -> None:
        super().__init__(torch.zeros(config.vocab_size, config.vocab_size))
        self.config = config


def letters(seed: int = 0, tokenizer: type[LetterTokenizer] = LetterTokenizer) -> ReviewModel:
    """Return a model whose classes are registered, so that it can be saved and loaded: it needs no
    training.
    """
    register_model("table", Table)
    register_tokenizer("letters", tokenizer)
    model = review_model(TableModel(table(LETTERS.vocab_size, seed)), tokenizer(LETTERS.characters))
    model.bundle.model_plugin = Plugin("model", "table", THIS_PROCESS, "")
    model.bundle.tokenizer_plugin = Plugin("tokenizer", "letters", THIS_PROCESS, "")
    return model
