"""The saved folder of a trained model. It contains plain data only, and may be local or from the
Hub.

    config.json               schema; model and tokenizer: name, package, version, config; library
                              version; conditions
    model.safetensors         neural weights or count arrays
    tokenizer files           as the tokenizer writes them, listed in config.json
    generation_config.json    generation defaults
    training.json             record of the training run
    novelty.safetensors       novelty index of the training text (optional)
    lexicon.safetensors       words of the training text (optional)
    bigrams.safetensors       bigrams of the training text (optional)
    manifest.json             the SHA-256 and the size of each file as it was saved
    README.md                 model card

Reading is strict: the names, shapes and dtypes of tensors are checked before memory is allocated
for them. Writing is atomic: either the complete folder appears or none. Only safetensors, JSON and
plain text are read; nothing is executed.

    layout        file names, the manifest, and ``Bundle``: the content of a saved folder in memory
    tensors       compares the header of the weights with the config
    torch_model   builds the torch model from saved tensors
    weights       the two forms of a trained model: torch model and stepper
    read          saved folder -> Bundle
    arpa          ARPA file -> Bundle
    write         Bundle -> saved folder; imports torch, so it is imported only where it is called
"""
