"""reviewgen trains small text generators on a corpus of reviews, from scratch and in minutes.

    import reviewgen
    model = reviewgen.train("lstm-word", "reviews.csv", budget="2m")
    print(model.generate_one("the "))

Importing this package loads neither torch nor any plugin: each name is imported on first use.
"""

import lazy_loader

from reviewgen.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
