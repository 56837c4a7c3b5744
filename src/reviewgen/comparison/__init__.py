"""Several models on one scale: trained or loaded, evaluated on the same held-out texts, and reported as a table, JSON or a page.

    comparing   ``compare``: one row for each model; one that fails is a row that says why
    entries     what the user has named: a preset to train, or a trained model
    training    trains the presets, and n-grams of several orders
    held_out    the held-out texts that every model is evaluated on
    measuring   from a trained model to its row
    sampling    what a model generates: samples, speed, new words, distinct n-grams
    intervals   bootstrap over texts: bits per character, and differences between models
    rows        the results, as plain data
    folder      finished rows on disk, which ``resume`` takes
    comparison  ``Comparison``: the rows and what is made of them
    page        the HTML page

Each name is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.comparison.comparing import CompareOptions, compare, compare_each
    from reviewgen.comparison.comparison import Comparison
    from reviewgen.comparison.held_out import HeldOut
    from reviewgen.comparison.measuring import Measured
    from reviewgen.comparison.rows import CurvePoint, OrderPoint, Pair, Row, Sample

__all__ = [
    "CompareOptions",
    "Comparison",
    "CurvePoint",
    "HeldOut",
    "Measured",
    "OrderPoint",
    "Pair",
    "Row",
    "Sample",
    "compare",
    "compare_each",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparing": ["CompareOptions", "compare", "compare_each"],
        "comparison": ["Comparison"],
        "held_out": ["HeldOut"],
        "measuring": ["Measured"],
        "rows": ["CurvePoint", "OrderPoint", "Pair", "Row", "Sample"],
    },
)
