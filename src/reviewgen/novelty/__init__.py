"""Finds text copied from the training text: an index of the training text, built when a model is
trained.

    exact       a suffix array: every copied span and the review it comes from; several bytes per
                token, for local use
    compact     hashed sets of token windows: token copy rates and an upper bound on the longest
                copied span, in a few megabytes; stores no text, so it may be published

Both have the same methods. They work on token ids; callers pass a function that decodes ids to
text.

    index       both forms
    characters  the copy rate in characters, which needs no index
    report      what an index finds in a text, as values and as sentences
    matching    the compiled loops
    files       builds an index from the training text; an index on disk, checked when it is read
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
