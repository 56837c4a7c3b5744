"""Pages for a browser: those of results, with their charts, and the page that generates. Knows no
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

The front end, ``static/app.js``, calls an *engine* with two methods, ``models()`` and
``complete(request, signal)``. A text goes from the engine to ``writing.js``, which has its tokens,
and a click from there to ``microscope.js``. ``settings.js`` has the controls, ``links.js`` their
limits and the links; ``elements.js`` has the functions that they share.

``main.js`` starts the page with ``http_engine.js`` or ``browser_engine.js``. The latter follows
``reviewgen.generation``: ``model.js`` loads, with ``tensors.js`` for the products of steppers (in
WebAssembly), ``decoder.js`` is the loop from prompt to end, and ``sampling.js``, ``random.js``,
``spelling.js`` and ``sentences.js`` are its parts. Engines touch no page and run in Node, too.
"""
