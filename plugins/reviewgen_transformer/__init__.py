"""The transformer, a decoder of the same shape as Llama and Mistral.

    config    the settings and the presets
    network   the model: training and evaluation with torch
    stepping  packs the weights for ``kernels``
    kernels   generation without torch: one step, in compiled loops
    graph     describes the computational graph
    explain   the operations of a call, one by one, with the weights of each head

``web_stepper.js`` is ``kernels`` for a browser.

The tensors have the names and shapes of ``MistralForCausalLM`` in the library transformers, apart
from a prefix (``network.mistral_name``). ``tests/plugins/test_transformer.py`` compares the logits
with that class.
"""

from pathlib import Path

WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
