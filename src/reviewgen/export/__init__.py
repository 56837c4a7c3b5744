"""Trained models for browsers and other runtimes.

html     ``export_html``: one HTML page that generates without a server, and a model as the page
         loads it; ``push_with_space``: a model and its page on the Hub
onnx     ``export_onnx``: a folder that runtimes of ONNX load, and the graph of a model
folders  ``export_transformers``; the folder of an export, and the tokenizer in it
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.export.html import export_html
    from reviewgen.export.onnx import export_onnx

__all__ = ["export_html", "export_onnx"]

__getattr__ = import_on_first_use(__name__, {"html": "export_html", "onnx": "export_onnx"})
