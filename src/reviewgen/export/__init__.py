"""Trained models for browsers and other runtimes.

    html        ``export_html``: one HTML page that generates without a server
    packing     a model as the page loads it
    onnx        ``export_onnx``: a folder that runtimes of ONNX load
    onnx_graph  from a model to a graph
    tokenizer   ``export_transformers``: the tokenizer as transformers reads it, and in its other forms
    space       ``push_with_space``: a model and its page on the Hub
    folders     the folder of an export

Each name is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.export.html import export_html
    from reviewgen.export.onnx import OnnxExport, export_onnx
    from reviewgen.export.packing import pack
    from reviewgen.export.space import push_with_space
    from reviewgen.export.tokenizer import export_transformers

__all__ = ["OnnxExport", "export_html", "export_onnx", "export_transformers", "pack", "push_with_space"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "html": ["export_html"],
        "onnx": ["OnnxExport", "export_onnx"],
        "packing": ["pack"],
        "space": ["push_with_space"],
        "tokenizer": ["export_transformers"],
    },
)
