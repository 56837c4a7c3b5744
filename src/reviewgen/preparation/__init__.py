"""Prepares a token store for training, in one process or in several on one or more machines: ``reviewgen prepare``.

options          the keywords of ``reviewgen.prepare``
job              what to make, and the working folder of an unfinished store
reading          sources into parts of cleaned texts
parts            the parts on disk
duplicates       exact duplicates across all parts
near_duplicates  similar texts, on request
splitting        the split of each text
leaks            held-out texts that share long runs with training texts
encoding         parts into the shards of the store
indexing         the windows of the novelty index, collected in all processes
run              the steps, one after another
prepare          the implementation of ``reviewgen.prepare``
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from reviewgen.preparation.prepare import prepare_store

__all__ = ["prepare_store"]

__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"prepare": ["prepare_store"]})
