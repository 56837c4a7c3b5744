"""Trained models for browsers and other runtimes.

    html        ``export_html``: one HTML page that generates without a server, and a model as the
                page loads it; ``push_with_space``: a model and its page on the Hub
    onnx        ``export_onnx``: a folder that runtimes of ONNX load, and from a model to a graph
    folders     ``export_transformers``: the folder of an export, and the tokenizer in it

Each name is imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
