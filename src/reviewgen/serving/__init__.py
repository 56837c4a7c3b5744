"""Serving: the texts of many callers at once, by one model.

engine   Engine: one thread that advances all texts together, tick by tick
jobs     a submitted request: its rows, its consumer, and which rows of all jobs take a seat in the next tick
batch    one tick: the beginnings of new rows, a token or a block of tokens for the others
outlet   from the tokens of a row to events: what each adds to the text, and what is held back
events   what an engine delivers
offline  requests that need whole texts before the first is known: beam search and ``must_include``
"""
