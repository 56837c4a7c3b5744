"""Finds what a text has copied from the training text, by an index of the training text that is
built when a model is trained.

An index has one of two forms:

    exact       A suffix array. It finds every copied span and the review that the span comes from.
                It takes several bytes per token and contains the training text, so it is for local
                use.
    compact     Hashed sets of token windows. It gives copy rates of tokens, and an upper bound on
                the longest copied span. It takes a few megabytes and stores no text, so it may be
                published.

Both forms have the same methods. They work on token ids; callers pass a function that decodes ids
to text.

    index       both forms of the index
    characters  the copy rate in characters, which needs no index
    report      what an index finds in a text, as values and as sentences
    matching    the compiled loops
    files       builds an index from the training text; writes, reads and checks index files
"""

from reviewgen.novelty.characters import COPY_CHARACTERS, TextWindows, count_copied
from reviewgen.novelty.files import build_index, check_form, read_index, write_index
from reviewgen.novelty.index import CompactIndex, CopyGuard, ExactIndex, Index, build_sets
from reviewgen.novelty.report import WINDOWS, Novelty, Span

__all__ = [
    "COPY_CHARACTERS",
    "WINDOWS",
    "CompactIndex",
    "CopyGuard",
    "ExactIndex",
    "Index",
    "Novelty",
    "Span",
    "TextWindows",
    "build_index",
    "build_sets",
    "check_form",
    "count_copied",
    "read_index",
    "write_index",
]
