"""HTML pages: what all of them share. One self-contained file each: no network, no JavaScript, light and dark, printable.

    rendering  templates with Jinja2, every value escaped; writing a page
    numbers    the filters of templates: thousands, size, duration, percent, decimal
    scales     from values to positions: ticks of linear and logarithmic axes
    charts     line and scatter charts as inline SVG

How to use it: put a template beside the code of your room, name it by its path in the package, and render it::

    {# src/reviewgen/explanation/explanation.html #}
    {% extends "web/report.html" %}
    {% block title %}{{ model }}{% endblock %}
    {% block content %}<h2>Loss</h2><p>{{ parameters | thousands }} parameters</p>{{ chart }}{% endblock %}

    html = render("explanation/explanation.html", model="lstm-char", parameters=12_345, chart=draw_chart(...))
    save_page(html, Path("page.html"))            # refuse_page(file) checks the same file before hours of work

``render(template, **values)`` escapes each value and raises where a template uses a value that was not given. Only what a
function here has built, such as a chart, is inserted as it is; never wrap what
comes from a user, a file or a model. For ``_repr_html_`` extend "web/fragment.html" instead, whose style applies only inside
it.

The style (``page.css``) has classes for what pages need: ``table.stacks`` is a table whose rows become cards on a phone (each
``td`` has a ``data-label``), ``.scrolls`` a box with its own scroll bar (give it ``tabindex="0" role="region"
aria-label="..."``), ``.charts`` a grid of charts, ``.sample`` a generated text, ``.copied`` a copied span, ``.note`` small
text, ``.failed`` what went wrong. Colours are the variables ``--text --muted --back --panel --line --accent --warning`` and
``--series-0`` to ``--series-7``; use them in inline SVG too, and it follows light and dark. The charts are our own code:
matplotlib's SVG has fixed colours and outlined text, and the libraries whose charts follow the page draw them with JavaScript.
"""

from reviewgen.pages.charts import Series, draw_chart
from reviewgen.pages.rendering import refuse_page, render, save_page

__all__ = ["Series", "draw_chart", "refuse_page", "render", "save_page"]
