"""A trained model for other programs.

    onnx          ``export_onnx``: a folder that runtimes of ONNX load
    transformers  ``export_transformers``: the tokenizer as transformers reads it

Each name is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.export.onnx import OnnxExport, export_onnx
    from reviewgen.export.transformers import export_transformers

__all__ = ["OnnxExport", "export_onnx", "export_transformers"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={"onnx": ["OnnxExport", "export_onnx"], "transformers": ["export_transformers"]}
)
