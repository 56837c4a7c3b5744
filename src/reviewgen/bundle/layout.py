"""The layout of a saved folder: its file names, and ``Bundle``, its content in memory."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.bundle.weights import Weights
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig
from reviewgen.errors import BundleError
from reviewgen.lexicon import Lexicon
from reviewgen.novelty import Index
from reviewgen.protocols import Tokenizer
from reviewgen.registry import Plugin
from reviewgen.storage import find_same_names

if TYPE_CHECKING:
    from reviewgen.protocols import LanguageModel

SCHEMA = 1
CONFIG, WEIGHTS, GENERATION, TRAINING, NOVELTY, LEXICON, CARD, MANIFEST = (
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "training.json",
    "novelty.safetensors",
    "lexicon.safetensors",
    "README.md",
    "manifest.json",
)
PARTS = "weights"  # in config.json of a blend without a file of its own: the presets whose installed weights it shares
OWN_FILES = {CONFIG, WEIGHTS, GENERATION, TRAINING, CARD}
OPTIONAL_FILES = {NOVELTY, LEXICON, MANIFEST}
_FILE_NAME = re.compile(r"\w[\w.-]*")  # of a tokenizer file
_WITHOUT_EFFECT = {GENERATION, TRAINING}  # on the texts; receipts have the generation settings
_CODE_SUFFIXES = {".py", ".pyc", ".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin", ".so", ".dll", ".exe", ".sh"}
CURVE = "learning_curve.png"  # a picture in the card of a published model
SCRATCH = f".{GENERATION}.new"  # generation defaults that are being saved
MANIFEST_SCRATCH = f".{MANIFEST}.new"
CHANGE_LOCK = ".change.lock"  # of the process that changes a file
CLIENT_FILES = {".cache", ".git", ".gitignore"}
"""What git and the Hub's client keep beside the files of a repository; read past, and never replaced."""

TOLERATED = {".gitattributes", ".DS_Store", CURVE, SCRATCH, MANIFEST_SCRATCH, CHANGE_LOCK}  # by the Hub, by macOS, our own


@dataclass(kw_only=True)
class Bundle:
    """A trained model and everything that is saved with it.

    Attributes:
        preset: The preset that was trained, as in "lstm-word".
        weights: The trained model.
        tokenizer: The trained tokenizer.
        model_plugin: The package that provides the model.
        tokenizer_plugin: The package that provides the tokenizer.
        tokenizer_config: The settings that the tokenizer was trained with.
        generation: Default generation settings.
        training: The record of the training run, as JSON values.
        card: The model card, Markdown.
        index: The novelty index of the training text.
        lexicon: The words of the training text.
        conditions: The conditions that the model was trained with.
        folder: The saved folder that this was read from.
        digests: The SHA-256 of each file of the saved folder, as it was read.
        source: The source that the user loaded it from.
    """

    preset: str
    weights: Weights
    tokenizer: Tokenizer
    model_plugin: Plugin
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    index: Index | None = None
    lexicon: Lexicon | None = None
    conditions: Conditions | None = None
    folder: Path | None = None
    digests: dict[str, str] = field(default_factory=dict)
    source: str | None = None

    @property
    def model(self) -> "LanguageModel":
        """The torch model, built on first use."""
        return self.weights.model

    def digest(self) -> str | None:
        """Return the SHA-256 of the files that generated texts depend on; None for a model that was not read from a folder.

        It is that of the files as they were read, whatever became of the folder since.
        """
        if self.folder is None:
            return None
        lines = (f"{name} {digest}\n" for name, digest in sorted(self.digests.items()) if name not in _WITHOUT_EFFECT)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def files_of(config: Any) -> set[str]:
    """Return the names of all files that a saved model may have, as its config.json lists them.

    Raises:
        BundleError: A tokenizer file lies outside the folder, or its suffix is that of a program or a pickle, or two names differ
            only in case.
    """
    tokenizer = config.get("tokenizer") if isinstance(config, Mapping) else None
    files = tokenizer.get("files", []) if isinstance(tokenizer, Mapping) else []
    if not isinstance(files, list):
        raise BundleError(f"{CONFIG} should list the tokenizer's files; got {ascii(files)[:80]}.")
    if odd := [name for name in files if not (isinstance(name, str) and len(name) < 256 and _FILE_NAME.fullmatch(name))]:
        raise BundleError(f"{CONFIG} lists tokenizer files outside its folder: {ascii(odd[0])[:80]}.")
    if odd := [name for name in files if Path(name).suffix.lower() in _CODE_SUFFIXES]:
        raise BundleError(f"{CONFIG} lists {odd[0]} as a tokenizer file; only plain data is read, no programs or pickles.")
    if same := find_same_names([*sorted(OWN_FILES | OPTIONAL_FILES), *files]):
        raise BundleError(f"{CONFIG} lists {same[0]} and {same[1]}, which are one file on Windows and macOS.")
    own = OWN_FILES - {WEIGHTS} if isinstance(config, Mapping) and PARTS in config else OWN_FILES
    return own | OPTIONAL_FILES | set(files)


def fingerprint(training: Mapping[str, Any], tokenizer: str, tokenizer_settings: Mapping[str, Any]) -> str:
    """Return a digest of the corpus and tokenizer that a novelty index was built from, so that each model reads only its own.

    A model that was trained further has the tokenizer of its parent, so the parent's corpus counts too. The settings are those of
    ``config.json``, so that a folder stays readable when its tokenizer gets another setting.
    """
    data, parent = training.get("data", {}), training.get("parent")
    facts = [data.get("fingerprint") if isinstance(data, Mapping) else None, tokenizer, dict(tokenizer_settings)]
    if isinstance(parent, Mapping):
        facts.append(fingerprint(parent, tokenizer, tokenizer_settings))
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
