"""The saved folder, read and written: one trained model as plain data, local or from the Hub.

    config.json               schema; model and tokenizer: name, package, version, config; library version; conditions
    model.safetensors         neural weights or count arrays
    tokenizer files           as the tokenizer writes them, listed in config.json
    generation_config.json    generation defaults
    training.json             what is known of the training
    novelty.safetensors       the index of the training text (optional)
    README.md                 the card

Reading is strict, and looks at names, shapes and dtypes before it allocates anything. Writing is atomic: the folder
appears whole or not at all. Only safetensors, JSON and plain text are read; nothing is executed.

    layout    the names of the files, and what a folder holds in memory
    weights   a model as torch computes with it, and as it writes without torch
    read      from disk
    tensors   the header of the weights, compared with the config
    model     from disk to torch
    write     to disk; imported where it is needed, for it needs torch
"""

from reviewgen.bundle.layout import Bundle, fingerprint
from reviewgen.bundle.read import read_bundle
from reviewgen.bundle.weights import Weights

__all__ = ["Bundle", "Weights", "fingerprint", "read_bundle"]
