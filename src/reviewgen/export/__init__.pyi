from .folders import export_transformers as export_transformers
from .html import export_html as export_html
from .html import pack as pack
from .onnx import OnnxExport as OnnxExport
from .onnx import export_onnx as export_onnx
from .space import push_with_space as push_with_space
