"""Pages for a browser: reports with charts, and the page on which a user generates texts. Knows no
model.

    rendering  templates, numbers as people read them, writing a page or a picture as a file
    svg        elements of a picture that follows light and dark
    charts     charts as plain data, and drawn
    curves     learning curves as charts
    composing  ``compose``: the page that generates, as one self-contained file, with packed models
               inside; ``page_for_server`` and ``static_files``: the same page as files that a
               server hands out
    page.html  the template of both
    static     the style and the modules; each begins with its purpose

The front end, ``static/app.js``, calls an *engine*, which has two methods, ``models()`` and
``complete(request, signal)``. The engine writes a text; ``writing.js`` shows its tokens, and a
click on a token opens ``microscope.js``. ``settings.js`` has the controls, and ``links.js`` has
their limits and the links. ``elements.js`` has functions that all of these share.

``main.js`` starts the page with one of two engines, ``http_engine.js`` or ``browser_engine.js``.
The second one follows ``reviewgen.generation``: ``model.js`` loads a model, ``tensors.js`` computes
the products of steppers (in WebAssembly), and ``decoder.js`` is the loop from the prompt to the
end, with its parts ``sampling.js``, ``random.js``, ``spelling.js`` and ``sentences.js``. Engines do
not touch the page, so they also run in Node.
"""
