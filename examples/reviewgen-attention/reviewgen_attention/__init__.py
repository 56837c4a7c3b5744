"""A causal transformer for reviewgen, with a key-value cache of fixed size.

config     the settings; no torch
model      the model
presets    the preset, as data; no torch
"""
