from .charts import Chart, Panel, Series, draw_figure, refuse_chart, save_chart
from .composing import PackedModel, compose, page_for_server, static_files
from .curves import find_curves, learning_chart
from .rendering import refuse_file, render, save_text

__all__ = [
    "Chart",
    "PackedModel",
    "Panel",
    "Series",
    "compose",
    "draw_figure",
    "find_curves",
    "learning_chart",
    "page_for_server",
    "refuse_chart",
    "refuse_file",
    "render",
    "save_chart",
    "save_text",
    "static_files",
]
