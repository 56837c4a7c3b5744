"""Exports a transformer for the library transformers and as a GGUF file, which need no code of
reviewgen.

The weights are those of ``MistralForCausalLM``. llama.cpp's form of them, "llama", rotates
neighbouring dimensions, so the rows of queries and keys are in another order there; it has no
sliding window.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from reviewgen.config.bounded import dump_json
from reviewgen.errors import ConfigError
from reviewgen.export.folders import (
    TRANSFORMERS,
    check_target,
    export_folder,
    tokenizer_json,
    write_pretrained,
)
from reviewgen.generation.decode import SAMPLING_SETTINGS
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.protocols.migration import SupportsTransformers
from reviewgen.storage import atomic_file, safetensors_file
from reviewgen.web.rendering import refuse_file

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
---

# {preset}

A small text generator, trained and exported by reviewgen.

```python
from transformers import pipeline

print(pipeline("text-generation", "FOLDER")("")[0]["generated_text"])
```
"""


def export_transformers(
    model: ReviewModel, folder: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write a transformer as a folder that ``AutoModelForCausalLM`` of transformers loads, with
    its tokenizer and generation settings. The tokenizer puts bos in front of a text.

    Args:
        model: A transformer without n-gram vectors and conditions.
        folder: The new folder.
        overwrite: Whether to replace an earlier export there.

    Raises:
        ConfigError: transformers has no class for the model, or cannot read its tokenizer.
        OutputExists: The folder exists, and ``overwrite`` is false or it is not an earlier export.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    folder = check_target(folder, TRANSFORMERS, overwrite)
    config = _config_of(model)
    generation = model.generation_config
    ids = {"bos_token_id": model.tokenizer.bos_id, "eos_token_id": model.tokenizer.eos_id}
    settings = {
        **ids,
        "pad_token_id": model.tokenizer.eos_id,
        "do_sample": generation.do_sample is not False,
        **{name: getattr(generation, name) for name in SAMPLING_SETTINGS},
        "temperature": generation.temperatures[0],
        "max_new_tokens": generation.max_new_tokens,
        "suppress_tokens": [model.tokenizer.bos_id],
    }
    with export_folder(folder, TRANSFORMERS, overwrite) as scratch:
        write_pretrained(model.bundle, scratch, adds_bos=True)
        (scratch / "config.json").write_bytes(dump_json(config | ids))
        (scratch / "generation_config.json").write_bytes(dump_json(settings))
        (scratch / "README.md").write_text(_CARD.format(preset=model.preset), encoding="utf-8")
        file = scratch / "model.safetensors"
        with safetensors_file(file):
            save_file(_tensors(model), file, metadata={"format": "pt"})


def export_gguf(
    model: ReviewModel, file: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write a transformer with a byte-level BPE as a GGUF file, which llama.cpp runs. Texts longer
    than the model's window differ, since llama.cpp's class has no sliding window.

    Raises:
        ConfigError: The extra ``gguf`` is not installed, or GGUF has no form of the model or of its
            tokenizer.
        OutputExists: The file exists, and ``overwrite`` is false.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    path = refuse_file(Path(file), [".gguf"], overwrite)
    config = _config_of(model)
    content = json.loads(tokenizer_json(model.bundle))
    if (content["pre_tokenizer"] or {}).get("type") != "ByteLevel":
        raise ConfigError(
            f"GGUF has no form of the tokenizer {model.tokenizer_name!r}: train a model with the"
            " tokenizer word, or export with --transformers."
        )
    try:
        import gguf
    except ImportError:
        raise ConfigError(
            "GGUF needs gguf, which is not installed: pip install 'reviewgen[gguf]'."
        ) from None
    with atomic_file(path) as new:
        writer: Any = gguf.GGUFWriter(new, "llama")
        writer.add_name(model.preset)
        writer.add_context_length(config["sliding_window"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        vocabulary = content["model"]["vocab"]
        bos_id = model.tokenizer.bos_id
        eos_id = model.tokenizer.eos_id
        types = [gguf.TokenType.NORMAL] * len(vocabulary)
        types[bos_id] = types[eos_id] = gguf.TokenType.CONTROL
        writer.add_tokenizer_model("gpt2")
        # with this name, llama.cpp splits texts as for gpt-2, but keeps spaces before punctuation
        writer.add_tokenizer_pre("trillion")
        writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
        writer.add_token_types(types)
        writer.add_token_merges([" ".join(merge) for merge in content["model"]["merges"]])
        writer.add_bos_token_id(bos_id)
        writer.add_eos_token_id(eos_id)
        writer.add_add_bos_token(True)
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
        for name, array in _tensors(model).items():
            if "q_proj" in name or "k_proj" in name:
                # (heads, 2, head_dim / 2, hidden_size); swapping axes 1 and 2 makes row i of the
                # first half of a head the neighbour of row i of the second half
                halves = array.reshape(-1, 2, config["head_dim"] // 2, config["hidden_size"])
                array = halves.swapaxes(1, 2).reshape(array.shape)
            writer.add_tensor(names.get_name(name, [".weight"]), np.ascontiguousarray(array))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def _config_of(model: ReviewModel) -> dict[str, Any]:
    """Return the config of the model's class in transformers, or raise if there is none."""
    config = model.bundle.model.config
    if not isinstance(config, SupportsTransformers):
        raise ConfigError(
            f"transformers has no class for the model {model.bundle.model_plugin.name!r}: export it"
            " with --onnx FOLDER, or as a page with --out PAGE.html."
        )
    return config.to_transformers()


def _tensors(model: ReviewModel) -> dict[str, np.ndarray]:
    """Return the weights of a model as float32 arrays, by their names in transformers."""
    name_of = type(model.bundle.model.config).transformers_name
    state = model.bundle.model.state_dict().items()
    return {name_of(name): tensor.float().cpu().numpy() for name, tensor in state}
