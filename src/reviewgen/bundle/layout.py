"""What a saved folder holds: the names of its files, and the same in memory."""

from dataclasses import dataclass, field
from typing import Any

from reviewgen.config import GenerationConfig
from reviewgen.protocols import LanguageModel, Tokenizer
from reviewgen.registry import Plugin

__all__ = ["CARD", "CONFIG", "GENERATION", "OWN_FILES", "SCHEMA", "TOLERATED", "TRAINING", "WEIGHTS", "Bundle"]

SCHEMA = 1
CONFIG, WEIGHTS, GENERATION, TRAINING, CARD = (
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "training.json",
    "README.md",
)
OWN_FILES = {CONFIG, WEIGHTS, GENERATION, TRAINING, CARD}
TOLERATED = {".gitattributes", ".DS_Store"}  # what the Hub and a file manager leave


@dataclass
class Bundle:
    """A trained model and all that is saved with it."""

    preset: str
    model: LanguageModel
    tokenizer: Tokenizer
    model_plugin: Plugin
    tokenizer_plugin: Plugin
    tokenizer_config: Any
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""
