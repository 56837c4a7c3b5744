"""The transformer, a decoder of the same shape as Llama and Mistral.

    config    the settings and the presets
    network   the model: training and evaluation with torch
    stepping  packs the weights for ``kernels``
    kernels   generation without torch: one step, in compiled loops
    graph     describes the computational graph

The tensors have the names and shapes of ``MistralForCausalLM`` in the library transformers, apart
from a prefix (``network.mistral_name``). ``tests/plugins/test_transformer.py`` compares the logits
with that class.
"""
