"""The web page: HTML, CSS and ES modules, and what composes them into one file or lists them for a server. Knows no model.

    composing  ``compose``: the page as one self-contained file, with packed models inside
    serving    ``page_for_server`` and ``static_files``: the same page as files that a server hands out
    modules    the ES modules as ``data:`` URLs in an import map
    page.html  the template of both
    static     the style and the modules of the front end; each opens with what it is for

The front end calls an *engine* with two methods, ``models()`` and ``complete(request, signal)``. ``offline.js`` starts the page
with the engine in the browser, ``online.js`` with the one over HTTP.
"""

from reviewgen.web.composing import PackedModel, compose
from reviewgen.web.serving import page_for_server, static_files

__all__ = ["PackedModel", "compose", "page_for_server", "static_files"]
