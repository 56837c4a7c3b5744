"""Finds installed plugins, presets and trained weights. Standard library only.

metadata  what the metadata of installed packages says: names, versions, and what is wrong with them
plugins   finds, lists and registers plugins saved     the plugin that a model was saved with; the
size and bits per character of a preset's trained weights
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
