"""Trained models for browsers and other runtimes.

    html       ``export_html``: one HTML page that generates without a server
    packing    a model as the page loads it
"""

from reviewgen.export.html import export_html

__all__ = ["export_html"]
