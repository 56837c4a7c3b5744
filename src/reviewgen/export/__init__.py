"""Trained models for browsers and other runtimes.

html     ``export_html`` writes one HTML page that generates without a server; ``push_with_space``
         publishes a model and its page on the Hub
onnx     ``export_onnx`` writes a folder with the graph of a model, which ONNX runtimes load
folders  ``export_tokenizer`` writes the tokenizer for transformers; the folder of an export
pretrained
         ``export_transformers`` and ``export_gguf`` write a transformer for other programs
arpa     ``export_arpa`` writes an n-gram for KenLM and SRILM; ``arpa_line`` a text as its words
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.export.arpa import arpa_line, export_arpa
    from reviewgen.export.html import export_html
    from reviewgen.export.onnx import export_onnx

__all__ = ["arpa_line", "export_arpa", "export_html", "export_onnx"]

__getattr__ = import_on_first_use(
    __name__, {"arpa": "arpa_line export_arpa", "html": "export_html", "onnx": "export_onnx"}
)
