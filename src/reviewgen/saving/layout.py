"""The layout of a saved folder: its file names, its content in memory, and ``manifest.json``, by
which later changes of the files are found.

    {"files": {"model.safetensors": {"sha256": "9f86...", "size": 3962162}, ...}}

The manifest does not list the card, since users edit the card. The manifest is not a signature:
anyone who can write to the folder can also change the manifest.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.conditions import Conditions
from reviewgen.config.bounded import dump_json, read_json
from reviewgen.config.generation import GenerationConfig
from reviewgen.errors import BundleError
from reviewgen.formats.bigrams import Bigrams
from reviewgen.lexicon.lexicon import Lexicon
from reviewgen.novelty import Index
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.metadata import Plugin
from reviewgen.saving.weights import ModelWeights
from reviewgen.storage import atomic_file, digest_of

if TYPE_CHECKING:
    from reviewgen.protocols.model import LanguageModel

SCHEMA = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GENERATION = "generation_config.json"
TRAINING = "training.json"
NOVELTY = "novelty.safetensors"
LEXICON = "lexicon.safetensors"
BIGRAMS = "bigrams.safetensors"
CARD = "README.md"
TOKENIZER = "tokenizer.json"  # of a folder of the library transformers
MANIFEST = "manifest.json"
# A blend may use the installed weights of presets instead of a weights file of its own. The
# config.json of such a blend lists these presets under this key.
SHARED_WEIGHTS = "weights"
OWN_FILES = {CONFIG, WEIGHTS, GENERATION, TRAINING, CARD}
OPTIONAL_FILES = {NOVELTY, LEXICON, BIGRAMS, MANIFEST}
CURVE = "learning_curve.png"  # a picture that the card of a published model shows
RESULTS = ".eval_results/reviewgen.yaml"  # the figures of a published model, for the Hub
CLIENT_FILES = {".cache", ".git", ".gitignore"}
"""Files that git and the Hub's client keep in the folder of a repository. They are ignored when a
model is read, and are never replaced.
"""

# files that are not part of the model: they come from the Hub, from macOS or from this library
TOLERATED = {
    ".gitattributes",
    ".DS_Store",
    ".eval_results",
    CURVE,
    f".{GENERATION}.new",
    f".{MANIFEST}.new",
}
FileFacts = dict[str, str | int]  # the SHA-256 and the size of a file
_TOKENIZER_FILE = re.compile(r"\w[\w.-]{0,254}")
# files that the digest of a model leaves out: receipts have generation settings of their own, and
# texts do not depend on the training record
_WITHOUT_EFFECT = {GENERATION, TRAINING}
_CODE_SUFFIXES = {
    ".py",
    ".pyc",
    ".pkl",
    ".pickle",
    ".joblib",
    ".pt",
    ".pth",
    ".bin",
    ".so",
    ".dll",
    ".exe",
    ".sh",
}


@dataclass(kw_only=True)
class Bundle:
    """A trained model and everything that is saved with it.

    Attributes:
        preset: The preset that was trained, as in "lstm-word".
        weights: The trained model.
        tokenizer: The trained tokenizer.
        model_plugin: The plugin of the model, with the package that provides it.
        tokenizer_plugin: The plugin of the tokenizer, with the package that provides it.
        tokenizer_config: The settings that the tokenizer was trained with.
        conditions: The conditions that the model was trained with, and their token ids. Empty for a
            model without conditions.
        generation: Default generation settings.
        training: The record of the training run, as JSON values.
        card: The model card, as Markdown.
        index: The novelty index of the training text.
        lexicon: The words of the training text.
        bigrams: The bigrams of the training text.
        folder: The saved folder that the model was read from; None if it was not read from a
            folder.
        digests: The SHA-256 and the size of each file of the saved folder when the model was read.
        origin: The argument of ``reviewgen.load`` with which the user loaded the model.
    """

    preset: str
    weights: ModelWeights
    tokenizer: Tokenizer
    model_plugin: Plugin
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    conditions: Conditions
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    index: Index | None = None
    lexicon: Lexicon | None = None
    bigrams: Bigrams | None = None
    folder: Path | None = None
    digests: dict[str, FileFacts] = field(default_factory=dict)
    origin: str | None = None

    @property
    def model(self) -> "LanguageModel":
        """The torch model, built on first use."""
        return self.weights.model

    def is_saved_in(self, folder: Path) -> bool:
        """Return whether the model was read from this folder."""
        return (
            self.folder is not None
            and self.folder.exists()
            and folder.exists()
            and self.folder.samefile(folder)
        )

    def digest(self) -> str | None:
        """Return the SHA-256 over the files that affect generated texts. None for a model that was
        not read from a folder.

        The digest is that of the files when they were read. Later changes to the folder do not
        affect it.
        """
        if not self.digests:
            return None
        lines = (
            f"{name} {self.digests[name]['sha256']}\n"
            for name in sorted(self.digests.keys() - _WITHOUT_EFFECT)
        )
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def files_of(config: Any) -> set[str]:
    """Return the names of all files that a saved model may have. ``config`` is the content of its
    config.json, which lists the tokenizer's files.

    Raises:
        BundleError: The name of a tokenizer file leads outside the folder, has the suffix of a
            program or a pickle, or is the name of another file, too. Names that differ only in case
            count as the same, since Windows and macOS do not distinguish them.
    """
    config = config if isinstance(config, Mapping) else {}
    if "architectures" in config:  # a folder of the library transformers
        return {CONFIG, WEIGHTS, GENERATION, CARD, TOKENIZER}
    tokenizer = config.get("tokenizer")
    files = tokenizer.get("files", []) if isinstance(tokenizer, Mapping) else []
    if not isinstance(files, list):
        raise BundleError(f"{CONFIG} should list the tokenizer's files; got {ascii(files)[:80]}.")
    taken = {name.casefold() for name in OWN_FILES | OPTIONAL_FILES | TOLERATED}
    for name in files:
        if not isinstance(name, str) or not _TOKENIZER_FILE.fullmatch(name):
            raise BundleError(
                f"{CONFIG} lists tokenizer files outside its folder: {ascii(name)[:80]}."
            )
        if Path(name).suffix.lower() in _CODE_SUFFIXES:
            raise BundleError(
                f"{CONFIG} lists {name} as a tokenizer file; only plain data is read, no programs"
                " or pickles."
            )
        if name.casefold() in taken:
            raise BundleError(
                f"{CONFIG} lists {name} as a tokenizer file, which on Windows and macOS is the same"
                " as another."
            )
        taken.add(name.casefold())
    own = OWN_FILES - {WEIGHTS} if SHARED_WEIGHTS in config else OWN_FILES
    return own.union(files, OPTIONAL_FILES)


def fingerprint(
    training: Mapping[str, Any], tokenizer: str, tokenizer_settings: Mapping[str, Any]
) -> str:
    """Return a digest that identifies the corpus and the tokenizer of a novelty index. A model
    reads an index only if the digests match.

    If a trained model, the parent, was trained further, the new model has the parent's tokenizer,
    which depends on the parent's corpus. So the digest includes the training records of all
    parents. ``tokenizer_settings`` are taken from ``config.json``, so that a folder remains
    readable when the tokenizer class gets a new setting.
    """
    corpus = (training.get("data") or {}).get("fingerprint")
    facts = [corpus, tokenizer, dict(tokenizer_settings)]
    if training.get("parent"):
        facts.append(fingerprint(training["parent"], tokenizer, tokenizer_settings))
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> dict[str, FileFacts]:
    """Return the manifest entries of files in a folder. Files that do not exist are left out, and
    so are the card and the manifest.
    """
    files = [folder / name for name in sorted({*names} - {CARD, MANIFEST})]
    return {
        file.name: {"sha256": digest_of(file), "size": file.stat().st_size}
        for file in files
        if file.is_file()
    }


def write_manifest(folder: Path, files: Mapping[str, FileFacts] | None = None) -> None:
    """Write the manifest of a folder. ``files`` are the entries of the manifest. By default, these
    are made from the current content of all files of the model.

    Raises:
        OSError: The operating system refused a step.
    """
    if files is None:
        files = digest_files(folder, files_of(read_json(folder / CONFIG)))
    with atomic_file(folder / MANIFEST) as new:
        new.write_bytes(dump_json({"files": files}))


def read_manifest(folder: Path) -> dict[str, FileFacts] | None:
    """Return the entries of a folder's manifest; None if the folder has no manifest.

    Raises:
        BundleError: The manifest is damaged.
    """
    file = folder / MANIFEST
    if not file.exists():
        return None
    try:
        return dict(read_json(file)["files"])
    except (ValueError, LookupError, TypeError):
        raise BundleError(
            f"{file} is damaged: it should have the SHA-256 and the size of each file."
            f" {_what_to_do(folder)}"
        ) from None


def find_changes(before: Mapping[str, FileFacts], now: Mapping[str, FileFacts]) -> list[str]:
    """Compare two sets of manifest entries. Return the names of the files that have changed, are
    missing, or were added.
    """
    return [
        name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)
    ]


def check_manifest(
    folder: Path, names: Collection[str], present: Mapping[str, FileFacts], *, is_local: bool = True
) -> None:
    """Raise if the files of a folder differ from the folder's manifest. Without a manifest, no
    error is raised.

    Args:
        folder: The folder.
        names: The names of the files to compare.
        present: The manifest entries of the current files.
        is_local: Whether the folder belongs to the user; false for the cache of the Hub's client.

    Raises:
        BundleError: A file has changed, is missing, or was added; or the manifest is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return
    saved = {name: facts for name, facts in manifest.items() if name in names}
    changed = find_changes(saved, present)
    if not changed:
        return
    first, *others = changed
    if first not in present:
        problem = "is missing, but was saved with the model"
    elif first not in saved:
        problem = "was not saved with the model"
    else:
        problem = "has changed since the model was saved"
    also = f" Changed as well: {', '.join(others)}." if others else ""
    raise BundleError(f"{first} of {folder} {problem}.{also} {_what_to_do(folder, is_local)}")


def _what_to_do(folder: Path, is_local: bool = True) -> str:
    """Return the sentence that tells the user how to accept a change of a folder's files."""
    # the command accepts a relative path only if it starts with a dot
    path = str(folder) if folder.is_absolute() or folder.parts[:1] == ("..",) else f"./{folder}"
    pull = "reviewgen pull OWNER/NAME --out ./my-model --accept-changes"
    command = f"reviewgen doctor {shlex.quote(path)} --accept" if is_local else pull
    return f"Restore it, or accept the change: {command}, or load(..., accept_changes=True)."
