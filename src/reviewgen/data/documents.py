"""Handle the layout of texts: cut txt files into lines, paragraphs, sentences or blocks; join
wrapped lines; drop repeated lines.

A *hard-wrapped* file, such as one of Project Gutenberg, breaks a line only where the next word
would not have fitted, so the lines of a paragraph belong together. Whether a file is hard-wrapped
is decided from its beginning.

Texts in a table can also be *wrapped*, if a mail program or editor broke lines at a fixed width. A
line was broken by a program if it fits the width but would not fit with the first word of the next
line. Lines of verse and lists, and those that a person has broken, mostly end earlier.

A line is *repeated* if it occurs in many texts, such as "Read more" or a signature. It must occur
in at least 10 texts and in at least 0.5 % of them. Only texts with several different lines count,
and each text counts a line once: so neither the refrain of a song nor a text of a single line is a
repeated line. A repeated line has at most 1000 characters and at least one letter, unlike a line of
dashes between two sections. For comparison, 0.3 % of film reviews have the line "8/10".

A *long text*, such as a novel, is cut into parts to train on and parts to hold out. The text is
divided into stretches of equal length. The middle of each stretch is held out as a *block*,
alternately for validation and for test. So the held-out text is spread evenly over the whole. The
text between two blocks is one long training text, and a recurrent state is carried through it. Each
part begins with the blank line that separates it from the part before, or else with a line end or a
space. So a model sees the beginning of a part as a normal continuation.

A block should be long enough that most of it is far from the training text, and short enough that
an evaluation covers many places of the text. So there are 32 blocks of 500 to 16,384 characters
each: fewer blocks in a short text, more in a long one. Measured on a megabyte of plays with a
Kneser-Ney model of order 6: the first 250 characters of a block cost as many nats per character as
the rest, so the neighbouring training text gives no advantage. With 32 blocks of 3,500 characters
the cost is 1.38 nats per character, with 8 blocks of 14,000 characters 1.42. If the last tenth of
the text is held out instead, with other persons and scenes, the cost is 1.68.
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

_HEAD = 1 << 16  # characters at the beginning of a file that decide its layout
_MIN_PARAGRAPHS = 3  # min paragraphs in a hard-wrapped text
_MIN_LINES = 8  # min lines in a hard-wrapped text, not counting the last line of each paragraph
_WIDTHS = range(30, 131)  # possible widths of a hard-wrapped text, in characters
_FULL = 0.75  # min share of full lines in a hard-wrapped text
_UNPUNCTUATED = 0.6  # min share of lines in a hard-wrapped text that do not end a sentence
_SLACK = 0.06  # a full line may be shorter than the width by this share of the width
# matches up to the first letter after quoted speech or an abbreviation such as U.S.; if this letter
# is in lower case, the sentence goes on
_MAY_GO_ON = re.compile(r"(?:(?<=[\"'”’»)\]])|(?<=\w\.\w\.))\s+([^\W\d_])")
_SENTENCE_END = re.compile(r"[.!?…:;。！？][\"'”’»)\]]*$")
ROWS = 1024  # max records in a batch
_NARROWEST = 40  # smallest width of a wrapped text, in characters
_WIDEST = 160  # largest width of a wrapped text, in characters
_LONGEST_WORD = 25  # max characters of a word
_MIN_BREAKS = 40  # a width is detected only from this many line breaks within paragraphs
_MIN_SHARE = 0.8  # min share of the line breaks within paragraphs that the width explains
_MIN_TEXTS = 10  # min number of texts that a repeated line occurs in
_MIN_SHARE_OF_TEXTS = 0.005  # min share of the texts that a repeated line occurs in
_MAX_LINE = 1000  # max characters of a repeated line
_MAX_LINES = 200  # max number of repeated lines; the most frequent are returned
T = TypeVar("T")
SPLIT_CYCLE = ("train", "validation", "train", "test")
"""The splits of the consecutive parts of a long text; the cycle repeats."""

_MIN_CHARACTERS = 500  # a text must have this many to be cut
# The lengths of blocks are approximate, since the cuts are at separators.
_MIN_BLOCK = 500  # min characters of a block, if the validation split has this many
_MAX_BLOCK = 1 << 14  # max characters of a block
_PAIRS = 16  # max pairs of a validation and a test block, unless blocks would exceed _MAX_BLOCK
# the ends of paragraphs, lines and words
_SEPARATORS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s"))


def file_layout(path: Path) -> tuple[bool, bool]:
    """Return two answers about a UTF-8 file: whether it is hard-wrapped, and whether blank lines
    separate paragraphs of several lines.

    Only the first ``_HEAD`` characters of the file are examined. A line counts as full if the first
    word of the next line would not have fitted.
    """
    with path.open(encoding="utf-8") as file:
        head = file.read(_HEAD)
    if len(head) == _HEAD:  # drop the last line, which is incomplete
        head = head[: head.rfind("\n") + 1]
    paragraphs = list(_paragraphs(io.StringIO(head)))
    has_paragraphs = sum(len(lines) > 1 for lines in paragraphs) > 1
    # each line of a paragraph but the last, with the line after it
    pairs = list(itertools.chain.from_iterable(map(itertools.pairwise, paragraphs)))
    if len(paragraphs) < _MIN_PARAGRAPHS or len(pairs) < _MIN_LINES:
        return False, has_paragraphs
    lengths = sorted(len(line) for line, _ in pairs)
    # not the length of the longest line, since a line with a long word may be longer than the width
    width = lengths[int(0.95 * (len(lengths) - 1))]
    full_lines = 0
    unpunctuated_lines = 0
    for line, following in pairs:
        full_lines += len(line) + 1 + len(following.split()[0]) > (1 - _SLACK) * width
        unpunctuated_lines += _SENTENCE_END.search(line) is None
    has_full_lines = full_lines >= _FULL * len(pairs)
    breaks_sentences = unpunctuated_lines >= _UNPUNCTUATED * len(pairs)
    return width in _WIDTHS and has_full_lines and breaks_sentences, has_paragraphs


def batched(records: Iterable[T]) -> Iterator[list[T]]:
    """Yield records in lists of up to ``ROWS``."""
    iterator = iter(records)
    while chunk := list(itertools.islice(iterator, ROWS)):
        yield chunk


def read_texts(path: Path, documents: str) -> Iterator[str]:
    """Yield the texts of a UTF-8 file; any line end counts as ``\\n``.

    A paragraph ends at a blank line. Sentences are cut within paragraphs if the file has
    paragraphs, and otherwise within lines. In a hard-wrapped file, the lines of a paragraph, or of
    a sentence, are joined by spaces.

    Args:
        path: The file.
        documents: "line", "paragraph", "sentence" or "file".
    """
    is_wrapped, has_paragraphs = file_layout(path)
    join = _join if is_wrapped else "\n".join
    with path.open(encoding="utf-8") as file:
        if documents == "file":
            yield file.read()
        elif documents == "line":
            yield from (line.rstrip("\n") for line in file)
        elif documents == "paragraph":
            yield from map(join, _paragraphs(file))
        else:
            texts = map(join, _paragraphs(file)) if is_wrapped or has_paragraphs else file
            yield from itertools.chain.from_iterable(map(_sentences, texts))


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the lines of each paragraph, without line ends."""
    for is_blank, group in itertools.groupby(lines, str.isspace):
        if not is_blank:
            yield [line.rstrip("\n") for line in group]


def _join(lines: list[str]) -> str:
    """Join lines by spaces, without the white space around each."""
    return " ".join(filter(None, map(str.strip, lines)))


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text; the last one may be incomplete.

    After quoted speech and after an abbreviation such as U.S., a word in lower case belongs to the
    same sentence.
    """
    start = 0
    for end in [*sentence_ends(text), len(text)]:
        following = _MAY_GO_ON.match(text, end)
        if following and following[1].islower():
            continue  # the sentence goes on
        if sentence := text[start:end].strip():
            yield sentence
        start = end


def cut_text(text: str, held_out: float) -> list[str]:
    """Cut a long text into consecutive parts for the splits of ``SPLIT_CYCLE``. The parts joined
    are the text.

    Args:
        text: The text.
        held_out: The share of the text for validation; test gets the same share.

    Raises:
        DataError: The text is too short.
    """
    if len(text) < _MIN_CHARACTERS:
        raise DataError(
            f"There is one text, of {len(text):,} characters; to hold out parts of it, it needs at"
            f" least {_MIN_CHARACTERS}. Add text, or give other texts for validation."
        )
    held = len(text) * held_out  # characters of each held-out split
    # the number of stretches, each with one block: two for each pair of blocks
    stretches = 2 * max(1, min(_PAIRS, int(held / _MIN_BLOCK)), math.ceil(held / _MAX_BLOCK))
    block = len(text) * 2 * held_out / stretches  # characters of a block
    middles = (np.arange(stretches) + 0.5) / stretches * len(text)
    # the start and the end of each block, in the order of the text
    targets = np.stack([middles - block / 2, middles + block / 2], axis=1).flatten().tolist()
    return _cut_near(text, targets, int(block / 4))


def divide_text(text: str) -> list[str]:
    """Cut a long text into consecutive blocks of about equal length. The blocks joined are the
    text.

    This is for a text that is used as a whole, for training or for validation. The cuts cost a
    model next to nothing, 0.0004 nats per character in the example of the module docstring, and
    give it several beginnings to learn from.
    """
    blocks = math.ceil(len(text) / _MAX_BLOCK)
    return _cut_near(
        text, [number * len(text) / blocks for number in range(1, blocks)], _MAX_BLOCK // 4
    )


def _cut_near(text: str, targets: list[float], reach: int) -> list[str]:
    """Cut a text at the separators that are closest to some target positions. ``reach`` is the max
    distance of a separator from its target, in characters.
    """
    cuts = [0, *(_nearest_separator(text, round(target), reach) for target in targets), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(cuts)]


def _nearest_separator(text: str, target: int, reach: int) -> int:
    """Return the position of the separator that is closest to a target.

    The separator is a blank line if one is within reach, or else a line end, or else white space.
    Without any, the target is returned.

    Args:
        text: The text.
        target: The target position.
        reach: The max distance of the separator from the target, in characters.
    """
    for pattern in _SEPARATORS:
        starts = [match.start() for match in pattern.finditer(text, target - reach, target + reach)]
        if starts:
            return min(starts, key=lambda start: abs(start - target))
    return target


def find_width(texts: Iterable[str]) -> int | None:
    """Return the width that texts are wrapped at, in characters; None if they are not wrapped, or
    have too few line breaks to tell.

    >>> find_width(["four words to a line " * 3 + "and\\n" + "the rest of it."] * 40)
    66
    >>> find_width(["Two\\nlines."] * 40)
    """
    explained = np.zeros(_WIDEST + 1, np.int64)  # number of line breaks that each width explains
    breaks = 0
    for text in texts:
        for line, following in itertools.pairwise(text.split("\n")):
            word = _word_after(line, following)
            breaks += word is not None
            if word:  # neither None, at the end of a paragraph, nor "", for a word too long to tell
                length = len(line.rstrip())
                # a width explains the break if the line fits it, but not with this word
                explained[max(length, _NARROWEST) : length + len(word) + 1] += 1
    width = int(explained.argmax())
    return width if breaks >= _MIN_BREAKS and explained[width] >= _MIN_SHARE * breaks else None


def unwrap(text: str, width: int) -> str:
    """Join the lines of a text that a program has broken at a width.

    >>> unwrap("A line that is full\\nand goes on.\\n\\nNew\\nparagraph", 20)
    'A line that is full and goes on.\\n\\nNew\\nparagraph'
    """
    lines = text.split("\n")
    pieces = lines[:1]
    for line, following in itertools.pairwise(lines):
        length = len(line.rstrip())
        word = _word_after(line, following)
        if word and length <= width < length + 1 + len(word):  # a program has broken the line
            pieces[-1] = pieces[-1].rstrip()
            pieces += [" ", following]
        else:
            pieces += ["\n", following]
    return "".join(pieces)


def _word_after(line: str, following: str) -> str | None:
    """Return the first word of the next line; None if a paragraph ends between the lines.

    Return "" if the word has more than ``_LONGEST_WORD`` characters: then it is a URL, or text in a
    script without spaces, which is not wrapped at words.
    """
    if not line.strip() or not following[:1].strip():
        return None
    word = following.split(None, 1)[0]
    return word if len(word) <= _LONGEST_WORD else ""


def find_repeated_lines(texts: Iterable[str]) -> dict[str, int]:
    """Return the repeated lines, stripped, with the number of texts that have each; most frequent
    first.

    >>> find_repeated_lines([f"Film {number}\\n Read more" for number in range(10)] + ["Read more"])
    {'Read more': 10}
    """
    counts = Counter[str]()
    counted_texts = 0  # number of texts with several different lines
    for text in texts:
        lines = {line.strip() for line in text.split("\n")} - {""}
        if len(lines) > 1:
            counted_texts += 1
            counts.update(
                line for line in lines if len(line) <= _MAX_LINE and any(map(str.isalpha, line))
            )
    min_count = max(_MIN_TEXTS, _MIN_SHARE_OF_TEXTS * counted_texts)
    repeated = [(line, count) for line, count in counts.items() if count >= min_count]
    return dict(sorted(repeated, key=lambda item: (-item[1], item[0]))[:_MAX_LINES])


def drop_lines(text: str, repeated: Collection[str]) -> tuple[str, int]:
    """Return a text without its repeated lines, and the number of lines dropped.

    A text that mostly consists of repeated lines is returned unchanged.

    >>> drop_lines("A long review.\\n\\nRead more\\n\\nOf two parts.", {"Read more"})
    ('A long review.\\n\\nOf two parts.', 1)
    """
    kept = list[str]()
    dropped = list[str]()
    is_after_dropped = False
    for line in text.split("\n"):
        if (stripped := line.strip()) in repeated:
            dropped.append(stripped)
            is_after_dropped = True
            continue
        # if a blank line precedes the dropped line, drop the blank lines that follow it
        if is_after_dropped and not stripped and kept and not kept[-1].strip():
            continue
        kept.append(line)
        is_after_dropped = False
    is_mostly_repeated = sum(map(len, dropped)) > sum(len(line.strip()) for line in kept)
    if is_mostly_repeated or not dropped:
        return text, 0
    return "\n".join(kept).strip(), len(dropped)
