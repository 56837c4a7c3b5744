"""What a generated text copied from the training text: an index of the training text, made at training time, that answers.

    exact      a suffix array: every copied span, and the review that it comes from; some bytes a token, for local use
    compact    hashed sets of token windows: shares and an upper bound, in a few megabytes; holds no text, so may be published

Both have the same methods. They know token ids; the text that ids spell comes from the caller.

    report     what an index finds in a text, for programs and for people
    stream     what both forms know of the training text
    matching   the compiled loops
    build      from the training text to an index
    files      an index on disk, read strictly
"""

from typing import TypeAlias

from reviewgen.novelty.build import build_index
from reviewgen.novelty.compact import CompactIndex
from reviewgen.novelty.exact import ExactIndex
from reviewgen.novelty.files import read_index, write_index
from reviewgen.novelty.report import WINDOWS, Novelty, Span

__all__ = ["WINDOWS", "CompactIndex", "ExactIndex", "Index", "Novelty", "Span", "build_index", "read_index", "write_index"]

Index: TypeAlias = CompactIndex | ExactIndex
