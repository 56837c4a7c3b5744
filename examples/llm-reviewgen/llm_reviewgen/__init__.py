"""The models of reviewgen as models of the ``llm`` command.

plugin     what llm calls when it lists its models
sources    which models there are
options    the options of a prompt, and what reviewgen calls them
model      writes a text
"""
