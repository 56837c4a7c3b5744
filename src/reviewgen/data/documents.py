"""How texts are laid out: cuts txt files into lines, paragraphs, sentences or parts; joins wrapped
lines, drops repeated ones.

In a *hard-wrapped* file, as of Project Gutenberg, line ends are only where the next word would not
have fitted: its lines belong together. Each file is judged by its beginning, so that every process
cuts it in the same way.

Texts in a table can also be *wrapped*, if a mail program or editor broke lines at a fixed width. A
line was broken by a program if it fits the width but would not fit with the first word of the next
line. Lines of verse and lists, and those that a person has broken, mostly end earlier.

A line is *repeated* if it occurs in many texts, such as "Read more" or a signature: in at least 10
and 0.5 % of them, where only texts of several different lines count, each once. So neither the
refrain of a song is repeated, nor a text that is one line. It has a letter, unlike what separates
two parts of a text, and at most 1000 characters. Of film reviews, 0.3 % have the line "8/10".

A *long text*, such as a novel, is cut into parts to train on and parts to hold out. It is divided
into stretches of equal length, and the middle of each is held out: a *block*, for validation and
for test in turn. So the held-out text is spread evenly over the whole, and what lies between two
blocks is one long training text that a recurrent state is carried through. A part begins with the
blank line that separates it from the part before it, or else with a line end or a space: after a
blank line, a model continues as after any other.

A block should be so long that most of it is far from the training text, and so short that an
evaluation sees many parts of the text. So there are 32 blocks of at least 500 and at most 16,384
characters: fewer in a short text, more in a long one. Measured on a megabyte of plays with a
Kneser-Ney model of order 6: the first 250 characters of a block cost as much as the rest, so
nothing is copied over its edge. But 32 blocks of 3,500 characters cost 1.38 nats per character and
8 blocks of 14,000 cost 1.42, and the last tenth of the text, with other persons and scenes, costs
1.68.
"""

import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from reviewgen.errors import DataError
from reviewgen.sentences import sentence_ends

_HEAD = 1 << 16  # characters that a file is judged by
_MIN_PARAGRAPHS = 3  # of a hard-wrapped text
_MIN_LINES = 8  # of a hard-wrapped text, not counting the last line of each paragraph
_WIDTHS = range(30, 131)  # characters
_FULL = 0.75  # share of the lines of a hard-wrapped text that are full
_UNPUNCTUATED = 0.6  # share of these lines that do not end with the end of a sentence
_SLACK = 0.06  # of the width; not every typist fills each line
# the letter that follows speech, or an abbreviation such as U.S.
_MAY_GO_ON = re.compile(r"(?:(?<=[\"'”’»)\]])|(?<=\w\.\w\.))\s+([^\W\d_])")
_SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")
ROWS = 1024  # of a batch
_NARROWEST = 40
_WIDEST = 160
_LONGEST_WORD = 25  # characters
_MIN_BREAKS = 40  # line breaks within paragraphs that a width is found from
_MIN_SHARE = 0.8  # share of these line breaks that fit the width
_MIN_TEXTS = 10  # texts with a repeated line
_MIN_SHARE_OF_TEXTS = 0.005  # share of the texts with a repeated line, if that is more
_MAX_LINE = 1000  # characters of a repeated line
_MAX_LINES = 200  # repeated lines that are returned, the most frequent ones
T = TypeVar("T")
SPLIT_CYCLE = ("train", "validation", "train", "test")
"""The splits of the parts of a text, which recur in this order."""

_MIN_CHARACTERS = 500  # of a text that is cut
_MIN_BLOCK = 500  # characters, if that makes no block longer than _MAX_BLOCK
_MAX_BLOCK = 1 << 14  # characters
_PAIRS = 16  # of a block for validation and a block for test, if the text is long enough
# what paragraphs, lines and words end with
_SEPARATORS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s"))


def file_layout(path: Path) -> tuple[bool, bool]:
    """Return whether a file of UTF-8 is hard-wrapped, and whether blank lines separate paragraphs
    of several lines.

    It is judged by its first characters. A line counts as full if the first word of the next line
    would not have fitted.
    """
    with path.open(encoding="utf-8") as file:
        head = file.read(_HEAD)
    if len(head) == _HEAD:  # without the last line, which is cut
        head = head[: head.rfind("\n") + 1]
    paragraphs = list(_paragraphs(io.StringIO(head)))
    pairs = list(itertools.chain.from_iterable(map(itertools.pairwise, paragraphs)))
    has_paragraphs = sum(len(lines) > 1 for lines in paragraphs) > 1
    if len(paragraphs) < _MIN_PARAGRAPHS or len(pairs) < _MIN_LINES:
        return False, has_paragraphs
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[int(0.95 * (len(lengths) - 1))]  # a line with a long word may be longer
    full = sum(
        len(line) + 1 + len(after.split()[0]) > (1 - _SLACK) * width for line, after in pairs
    )
    unpunctuated = sum(_SENTENCE_END.search(line) is None for line, _ in pairs)
    is_wrapped = (
        width in _WIDTHS
        and full >= _FULL * len(pairs)
        and unpunctuated >= _UNPUNCTUATED * len(pairs)
    )
    return is_wrapped, has_paragraphs


def batched(records: Iterable[T]) -> Iterator[list[T]]:
    """Yield records in lists."""
    iterator = iter(records)
    while chunk := list(itertools.islice(iterator, ROWS)):
        yield chunk


def find_edges(path: Path, size: int, documents: str = "line") -> list[int]:
    """Return bytes that cut a file of UTF-8 into pieces of about ``size`` bytes: at line ends, or
    else at blank lines.
    """
    edges = [0]
    total = path.stat().st_size
    with path.open("rb") as file:
        while documents != "file" and edges[-1] + 2 * size <= total:
            file.seek(edges[-1] + size)
            file.readline()
            while documents != "line" and not file.readline().isspace() and file.tell() < total:
                pass
            if file.tell() == total:
                break
            edges.append(file.tell())
    return [*edges, total]


def open_lines(path: Path, start: int, stop: int) -> io.TextIOWrapper:
    """Open the bytes of a file of UTF-8 between two edges; any line end counts as ``\\n``."""
    with path.open("rb") as file:
        file.seek(start)
        return io.TextIOWrapper(io.BytesIO(file.read(stop - start)), encoding="utf-8")


def read_texts(
    path: Path, documents: str, start: int, stop: int, columns: object = None
) -> Iterator[str]:
    """Yield the texts of a file of UTF-8 between two edges.

    A paragraph ends at a blank line. Sentences are cut within paragraphs where the file has some,
    and otherwise within lines. In a hard-wrapped file, the lines of a paragraph and those of a
    sentence are joined by a space.

    Args:
        path: The file.
        documents: "line", "paragraph", "sentence" or "file".
        start: Where to start; see ``find_edges``.
        stop: Where to stop.
        columns: Not used: a text has none.
    """
    is_wrapped, has_paragraphs = file_layout(path)
    with open_lines(path, start, stop) as file:
        texts: Iterable[str] = (
            [file.read()] if documents == "file" else (line.rstrip("\n") for line in file)
        )
        if documents == "paragraph" or (documents == "sentence" and (has_paragraphs or is_wrapped)):
            texts = (
                _join(lines) if is_wrapped else "\n".join(lines) for lines in _paragraphs(file)
            )
        yield from (
            itertools.chain.from_iterable(map(_sentences, texts))
            if documents == "sentence"
            else texts
        )


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each paragraph, without line ends."""
    for is_blank, group in itertools.groupby(lines, str.isspace):
        if not is_blank:
            yield [line.rstrip("\n") for line in group]


def _join(lines: list[str]) -> str:
    return " ".join(filter(None, map(str.strip, lines)))


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text, and what follows the last one.

    After quoted speech and after an abbreviation such as U.S., a word in lower case belongs to the
    same sentence.
    """
    start = 0
    for end in [*sentence_ends(text), len(text)]:
        following = _MAY_GO_ON.match(text, end)
        if following and following[1].islower():
            continue
        if sentence := text[start:end].strip():
            yield sentence
        start = end


def cut_text(text: str, held_out: float) -> list[str]:
    """Cut a text into consecutive parts, whose splits are those of ``SPLIT_CYCLE``; joined, they
    are the text.

    Args:
        text: The text.
        held_out: The share of it for validation, and again for test.

    Raises:
        DataError: The text is too short.
    """
    if len(text) < _MIN_CHARACTERS:
        raise DataError(
            f"There is one text, of {len(text):,} characters; to hold out parts of it, it needs at"
            f" least {_MIN_CHARACTERS}. Add text, or give other texts for validation."
        )
    characters = len(text) * held_out
    stretches = 2 * max(
        1, min(_PAIRS, int(characters / _MIN_BLOCK)), math.ceil(characters / _MAX_BLOCK)
    )
    block = len(text) * 2 * held_out / stretches
    middles = (np.arange(stretches) + 0.5) / stretches * len(text)
    targets = np.stack([middles - block / 2, middles + block / 2], axis=1).flatten().tolist()
    return _cut_near(text, targets, int(block / 4))


def divide_text(text: str) -> list[str]:
    """Cut a text of which nothing is held out, or all, into consecutive blocks of about equal
    length; joined, they are the text.

    The ends between them cost a model next to nothing, 0.0004 nats per character in the example
    above, and give it several beginnings to learn from.
    """
    blocks = math.ceil(len(text) / _MAX_BLOCK)
    return _cut_near(
        text, [number * len(text) / blocks for number in range(1, blocks)], _MAX_BLOCK // 4
    )


def _cut_near(text: str, targets: list[float], reach: int) -> list[str]:
    cuts = [0, *(_nearest_separator(text, round(target), reach) for target in targets), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def _nearest_separator(text: str, target: int, reach: int) -> int:
    """Return where the blank line that is closest to a position starts, or else a line end or white
    space; else the position.

    Args:
        text: The text.
        target: The position.
        reach: How far from it the separator may be, in characters.
    """
    for pattern in _SEPARATORS:
        starts = [match.start() for match in pattern.finditer(text, target - reach, target + reach)]
        if starts:
            return min(starts, key=lambda start: abs(start - target))
    return target


def find_width(texts: Iterable[str]) -> int | None:
    """Return the width that texts are wrapped at, in characters; None if they are not, or have few
    line breaks.

    >>> find_width(["four words to a line " * 3 + "and\\n" + "the rest of it."] * 40)
    66
    >>> find_width(["Two\\nlines."] * 40)
    """
    explained = np.zeros(_WIDEST + 2, np.int64)  # line breaks, by the width that explains them
    breaks = 0
    for line, following in itertools.chain.from_iterable(
        itertools.pairwise(text.split("\n")) for text in texts
    ):
        length = len(line.rstrip())
        word = _word_after(line, following)
        breaks += word is not None
        if word and (low := max(length, _NARROWEST)) <= (high := min(length + len(word), _WIDEST)):
            explained[low] += 1
            explained[high + 1] -= 1
    explained = explained.cumsum()
    width = int(explained.argmax())
    return width if breaks >= _MIN_BREAKS and explained[width] >= _MIN_SHARE * breaks else None


def unwrap(text: str, width: int) -> str:
    """Return a text with the lines joined that were broken at a width.

    >>> unwrap("A line that is full\\nand goes on.\\n\\nNew\\nparagraph", 20)
    'A line that is full and goes on.\\n\\nNew\\nparagraph'
    """
    lines = text.split("\n")
    pieces = lines[:1]
    for line, following in itertools.pairwise(lines):
        length = len(line.rstrip())
        word = _word_after(line, following)
        if word and length <= width < length + 1 + len(word):
            pieces[-1] = pieces[-1].rstrip()
            pieces += [" ", following]
        else:
            pieces += ["\n", following]
    return "".join(pieces)


def _word_after(line: str, following: str) -> str | None:
    """Return the first word of the next line; None if a paragraph ends between the lines.

    What is longer than a word is an address or a script without spaces, which is not wrapped at
    words: then it is "".
    """
    if not line.strip() or not following[:1].strip():
        return None
    word = following.split(None, 1)[0]
    return word if len(word) <= _LONGEST_WORD else ""


def find_repeated_lines(texts: Iterable[str]) -> dict[str, int]:
    """Return the lines that occur in many texts, without white space around, and in how many; most
    frequent first.

    >>> find_repeated_lines([f"Film {number}\\n Read more" for number in range(10)] + ["Read more"])
    {'Read more': 10}
    """
    counts = Counter[str]()
    several = 0
    for text in texts:
        lines = set(map(str.strip, text.split("\n"))) - {""}
        if len(lines) > 1:
            several += 1
            counts.update(
                line for line in lines if len(line) <= _MAX_LINE and any(map(str.isalpha, line))
            )
    least = max(_MIN_TEXTS, _MIN_SHARE_OF_TEXTS * several)
    frequent = [(line, count) for line, count in counts.items() if count >= least]
    return dict(sorted(frequent, key=lambda item: (-item[1], item[0]))[:_MAX_LINES])


def drop_lines(text: str, repeated: Collection[str]) -> tuple[str, int]:
    """Return a text without its repeated lines, and how many it had; one that mostly consists of
    them stays as it is.

    >>> drop_lines("A long review.\\n\\nRead more\\n\\nOf two parts.", {"Read more"})
    ('A long review.\\n\\nOf two parts.', 1)
    """
    kept = list[str]()
    dropped = list[str]()
    is_after = False
    for line in text.split("\n"):
        if (stripped := line.strip()) in repeated:
            dropped.append(stripped)
            is_after = True
        # of the blank lines around a dropped line, those before it stay
        elif stripped or not (is_after and kept and not kept[-1].strip()):
            kept.append(line)
            is_after = False
    is_most = sum(map(len, dropped)) > sum(len(line.strip()) for line in kept)
    return (text, 0) if is_most or not dropped else ("\n".join(kept).strip(), len(dropped))
