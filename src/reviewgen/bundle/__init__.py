"""Reads and writes the saved folder: one trained model as plain data, local or from the Hub.

    config.json               schema; model and tokenizer: name, package, version, config; library version; conditions
    model.safetensors         neural weights or count arrays
    tokenizer files           as the tokenizer writes them, listed in config.json
    generation_config.json    generation defaults
    training.json             record of the training run
    novelty.safetensors       novelty index of the training text (optional)
    README.md                 model card

Reading is strict: names, shapes and dtypes are checked before any memory is allocated for them. Writing is atomic: the folder
appears whole or not at all. Only safetensors, JSON and plain text are read; nothing is executed.

    layout           file names, and ``Bundle``: the content of a saved folder in memory
    weights          the two forms of a trained model: torch model and stepper, each created on first use
    read             saved folder -> Bundle
    earlier          training records of earlier versions
    tensors          compares the header of the weights with the config
    model            builds the torch model from saved tensors
    tokenizer_files  saves a tokenizer in a folder of its own, and checks what it writes
    write            Bundle -> saved folder; imports torch, so it is imported only where it is called
"""

from typing import TYPE_CHECKING

import lazy_loader

from reviewgen.bundle.layout import Bundle, fingerprint
from reviewgen.bundle.read import read_bundle
from reviewgen.bundle.tokenizer_files import check_tokenizer_files
from reviewgen.bundle.weights import Weights

if TYPE_CHECKING:
    from reviewgen.bundle.write import share_weights

__all__ = ["Bundle", "Weights", "check_tokenizer_files", "fingerprint", "read_bundle", "share_weights"]

__getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"write": ["share_weights"]})  # torch
