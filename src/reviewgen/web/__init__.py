"""Pages for a browser: reports with charts, and the page on which a user generates texts. Knows no
model.

    rendering  fills templates, formats numbers for people, writes pages and pictures as files
    svg        elements of a picture that follows the light or dark mode of a page
    charts     charts as plain data, and how they are drawn
    curves     learning curves as charts
    composing  ``compose``: the page that generates texts, as one self-contained file with the
               models in it; ``page_for_server`` and ``static_files``: the same page as files
               that a server delivers
    page.html  the template of both kinds of page
    static     the style and the JavaScript modules; each file begins with its purpose

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
