"""What a saved folder holds: the names of its files, and the same in memory."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.bundle.weights import Weights
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig, to_dict
from reviewgen.errors import BundleError
from reviewgen.novelty import Index
from reviewgen.protocols import Tokenizer
from reviewgen.registry import Plugin

if TYPE_CHECKING:
    from reviewgen.protocols import LanguageModel

__all__ = [
    "CARD",
    "CONFIG",
    "CURVE",
    "GENERATION",
    "NOVELTY",
    "OPTIONAL_FILES",
    "OWN_FILES",
    "SCHEMA",
    "TOLERATED",
    "TRAINING",
    "WEIGHTS",
    "Bundle",
    "files_of",
    "fingerprint",
]

SCHEMA = 1
CONFIG, WEIGHTS, GENERATION, TRAINING, NOVELTY, CARD = (
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "training.json",
    "novelty.safetensors",
    "README.md",
)
OWN_FILES = {CONFIG, WEIGHTS, GENERATION, TRAINING, CARD}
OPTIONAL_FILES = {NOVELTY}
_NAME = re.compile(r"\w[\w.-]*")  # of a tokenizer's file
_NO_DATA = {".py", ".pyc", ".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".so", ".dll", ".exe", ".sh"}
CURVE = "learning_curve.png"  # beside the card of a published model
TOLERATED = {".gitattributes", ".DS_Store", CURVE}  # the first two are left by the Hub and by a file manager


@dataclass(kw_only=True)
class Bundle:
    """A trained model and all that is saved with it."""

    preset: str
    weights: Weights
    tokenizer: Tokenizer
    model_plugin: Plugin
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    index: Index | None = None  # of the training text
    conditions: Conditions | None = None  # that it was trained to obey
    folder: Path | None = None  # that it was read from
    source: str | None = None  # as somebody named it who loaded it

    @property
    def model(self) -> "LanguageModel":
        """The model, loaded when it is first asked for."""
        return self.weights.model

    def digest(self) -> str | None:
        """Return what tells this model from others: SHA-256 of the files that texts depend on; None where it was never read."""
        if self.folder is None:
            return None
        config = json.loads((self.folder / CONFIG).read_text(encoding="utf-8"))
        names = sorted({CONFIG, WEIGHTS, NOVELTY, *config["tokenizer"]["files"]})
        whole = hashlib.sha256()
        for name in names:
            file = self.folder / name
            if file.is_file():
                with file.open("rb") as stream:
                    whole.update(f"{name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return f"sha256:{whole.hexdigest()}"


def files_of(config: Any) -> set[str]:
    """Return the names of all files that a saved model may have, by what its config.json says.

    Raises:
        BundleError: A tokenizer's file would lie outside the folder, or is a program or a pickle by its name.
    """
    tokenizer = config.get("tokenizer") if isinstance(config, Mapping) else None
    files = tokenizer.get("files", []) if isinstance(tokenizer, Mapping) else []
    if not isinstance(files, list):
        raise BundleError(f"{CONFIG} should list the tokenizer's files; found {ascii(files)[:80]}.")
    if odd := [name for name in files if not (isinstance(name, str) and len(name) < 256 and _NAME.fullmatch(name))]:
        raise BundleError(f"{CONFIG} names tokenizer files outside its folder: {ascii(odd[0])[:80]}.")
    if odd := [name for name in files if Path(name).suffix.lower() in _NO_DATA]:
        raise BundleError(f"{CONFIG} names {odd[0]} as a tokenizer file, which is no plain data.")
    return OWN_FILES | OPTIONAL_FILES | set(files)


def fingerprint(training: Mapping[str, Any], tokenizer: str, tokenizer_config: Any) -> str:
    """Return what tells the novelty index of one model from others: it is made of the tokens of one corpus.

    Where a model was trained further, its tokenizer was trained on the corpus of the first training.
    """
    data, parent = training.get("data", {}), training.get("parent")
    facts = [data.get("fingerprint") if isinstance(data, Mapping) else None, tokenizer, to_dict(tokenizer_config)]
    if isinstance(parent, Mapping):
        facts.append(fingerprint(parent, tokenizer, tokenizer_config))
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
