"""Correct plugins, and for each law of ``reviewgen.testing`` plugins that break it: a correct one
changed in a line.
"""
