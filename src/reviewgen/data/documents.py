"""Cuts txt files into texts: lines, paragraphs, sentences or whole files. Knows neither columns nor where files come from.

In a *hard-wrapped* file, as of Project Gutenberg, line ends are only where the next word would not have fitted: its lines belong
together. Each file is judged by its beginning, so that it is read alike in any process, and by one of several.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reviewgen.data.lines import MAX_TEXT_CHARACTERS, read_lines, too_long
from reviewgen.data.spans import Span, find_lines, open_lines
from reviewgen.sentences import sentence_ends

__all__ = ["DOCUMENTS", "MAX_FILE_CHARACTERS", "Layout", "file_layout", "read_texts", "text_layout"]

MAX_FILE_CHARACTERS = 1_000_000_000
"""The limit of a file that is one text, which is held in memory, unless ``max_text_characters`` is larger."""

DOCUMENTS = ("line", "paragraph", "sentence", "file")
_HEAD = 1 << 16  # characters that a file is judged by
_MIN_PARAGRAPHS, _MIN_LINES = 3, 8  # of a hard-wrapped text; the lines are those that another one of the paragraph follows
_WIDTHS = range(30, 131)  # characters
_FULL, _UNPUNCTUATED = 0.75, 0.6  # shares of the lines of a hard-wrapped text
_SLACK = 0.06  # of the width; not every typist fills each line
_MAY_GO_ON = re.compile(r"(?:(?<=[\"'”’»)\]])|(?<=\w\.\w\.))\s+([^\W\d_])")  # after speech, and after U.S.
_SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")


@dataclass(frozen=True)
class Layout:
    """How a text is laid out.

    Attributes:
        is_wrapped: Whether it is hard-wrapped.
        has_paragraphs: Whether blank lines separate paragraphs of several lines.
    """

    is_wrapped: bool
    has_paragraphs: bool


def text_layout(text: str) -> Layout:
    """Return the layout of a text, from its first characters.

    A line counts as full if the first word of the next line would not have fitted.
    """
    paragraphs = list(_paragraphs(io.StringIO(text)))
    pairs = [pair for lines in paragraphs for pair in itertools.pairwise(lines)]
    has_paragraphs = sum(len(lines) > 1 for lines in paragraphs) > 1
    if len(paragraphs) < _MIN_PARAGRAPHS or len(pairs) < _MIN_LINES:
        return Layout(False, has_paragraphs)
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[int(0.95 * (len(lengths) - 1))]  # a line with a long word may be longer
    full = sum(len(line) + 1 + len(after.split()[0]) > (1 - _SLACK) * width for line, after in pairs)
    unpunctuated = sum(_SENTENCE_END.search(line) is None for line, _ in pairs)
    is_wrapped = width in _WIDTHS and full >= _FULL * len(pairs) and unpunctuated >= _UNPUNCTUATED * len(pairs)
    return Layout(is_wrapped, has_paragraphs)


def file_layout(path: Path) -> Layout:
    """Return the layout of a file of UTF-8."""
    with path.open(encoding="utf-8") as file:
        head = file.read(_HEAD)
    return text_layout(head if len(head) < _HEAD else head[: head.rfind("\n") + 1])


def read_texts(
    path: Path, documents: str, name: str = "", limit: int = MAX_TEXT_CHARACTERS, span: Span | None = None
) -> Iterator[str]:
    """Yield the texts of a file of UTF-8, or of a span of it.

    A paragraph ends at a blank line. Sentences are cut within paragraphs where the file has some, and otherwise within lines. In
    a hard-wrapped file, the lines of a paragraph and those of a sentence are joined by a space.

    Args:
        path: The file.
        documents: One of ``DOCUMENTS``.
        name: The user's file, for messages; the path if empty.
        limit: The maximum number of characters of a text; a file that is one text may have ``MAX_FILE_CHARACTERS``.
        span: See ``spans_of``; None reads the whole file.

    Raises:
        DataError: A text is longer.
    """
    name = name or str(path)
    start, stop = (0, None) if span is None else find_lines(path, span, documents)
    if start:
        name += f" (from byte {start:,} on)"
    with open_lines(path, start, stop) as file:  # any line end counts as \n
        if documents == "file":
            yield _read_whole(file, name, max(limit, MAX_FILE_CHARACTERS))
        elif documents == "line":
            yield from (line.rstrip("\n") for line in read_lines(file, name, limit))
        else:
            lines = _limit_paragraphs(read_lines(file, name, limit), name, limit)
            yield from _read_parts(lines, documents, file_layout(path))


def _read_whole(file: io.TextIOBase, name: str, limit: int) -> str:
    text = file.read(limit + 1)  # characters
    if len(text) > limit:
        raise too_long(name, limit)
    return text


def _limit_paragraphs(lines: Iterable[str], name: str, limit: int) -> Iterator[str]:
    """Yield lines; raise a DataError for lines without a blank one between that have more characters than a text may have."""
    size = first = 0
    for number, line in enumerate(lines, 1):
        size, first = (0, number + 1) if line.isspace() else (size + len(line), first or number)
        if size > limit:
            raise too_long(f"The paragraph of {name} from line {first:,} on", limit)
        yield line


def _read_parts(lines: Iterable[str], documents: str, found: Layout) -> Iterator[str]:
    if documents == "sentence" and not (found.has_paragraphs or found.is_wrapped):
        paragraphs: Iterable[list[str]] = ([line.rstrip("\n")] for line in lines)
    else:
        paragraphs = _paragraphs(lines)
    texts = (_join(paragraph) if found.is_wrapped else "\n".join(paragraph) for paragraph in paragraphs)
    yield from itertools.chain.from_iterable(map(_sentences, texts)) if documents == "sentence" else texts


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each paragraph, without line ends."""
    for is_blank, group in itertools.groupby(lines, str.isspace):
        if not is_blank:
            yield [line.rstrip("\n") for line in group]


def _join(lines: list[str]) -> str:
    return " ".join(filter(None, map(str.strip, lines)))


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, and what follows the last one.

    After quoted speech and after an abbreviation such as U.S., a word in lower case belongs to the same sentence.
    """
    ends = [end for end in sentence_ends(text) if not ((after := _MAY_GO_ON.match(text, end)) and after[1].islower())]
    pieces = (text[start:end].strip() for start, end in zip([0, *ends], [*ends, len(text)], strict=True))
    yield from filter(None, pieces)
