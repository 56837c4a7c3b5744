"""The report on a text: the copied spans and the shares of copied windows that an index finds in
it, as values and as sentences.

It is the same for both forms of the index. Lengths are in tokens and in characters.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from reviewgen.errors import counted

WINDOWS = (8, 12, 20)  # the window lengths, in tokens
MIN_SPAN = WINDOWS[0]  # tokens; shorter copied spans are not reported
# An id is decoded together with this many ids before it. They include the beginning of a character
# that the id continues, since a character has at most four bytes, and a token at least one.
_CONTEXT = 8
_MAX_QUOTE = 80  # characters; longer quotes are cut
_MAX_SHOWN = 5  # max spans that a notebook shows
_SHORT_TEXT = 1000  # tokens; for texts up to this length, decoding every prefix is fast enough

Decode = Callable[[Sequence[int]], str]
"""Decodes ids to text, as ``Tokenizer.decode`` does."""


@dataclass(frozen=True)
class Span:
    """A copied span: a part of a text that occurs in the training text.

    Attributes:
        start: The index of the span's first character in the text.
        end: The index after its last character.
        text: Its characters.
        tokens: Its length in tokens.
        review: The index of a training review that contains the span, counted from 0 in the order
            of training; None for the compact form.
        excerpt: The span as it occurs in that review, with up to 60 characters on each side; None
            for the compact form.
    """

    start: int
    end: int
    text: str
    tokens: int
    review: int | None
    excerpt: str | None


@dataclass(frozen=True)
class Novelty:
    """Which parts of a text occur in the training text. A compact index gives upper bounds.

    Attributes:
        form: The form of the index, "exact" or "compact".
        characters: The number of characters of the text.
        tokens: The number of tokens of the text.
        longest_characters: The number of characters of the longest copied span; an upper bound for
            the compact form.
        longest_tokens: The number of tokens of the longest copied span; an upper bound for the
            compact form.
        longest_text: The longest copied span; empty if a compact index stores too few windows to
            recognise a span of that length.
        windows: For each window length (8, 12 and 20 tokens), the share from 0 to 1 of the text's
            windows that occur in the training text. None if the text is too short, or if a compact
            index can look up none of its windows.
        spans: The copied spans of 8 tokens or more, the longest first. No span lies inside another.
            The compact form gives only the longest one.
        false_positive_rate: The share of new windows that the index takes for copied ones, for the
            window length where it is largest; 0 for the exact form.
    """

    form: str
    characters: int
    tokens: int
    longest_characters: int
    longest_tokens: int
    longest_text: str
    windows: dict[int, float | None]
    spans: tuple[Span, ...]
    false_positive_rate: float

    def describe(self) -> list[str]:
        """Return two to four lines for the user, each of one or more sentences."""
        if not self.tokens:
            return ["The text is empty.", "There is nothing to compare with the training text."]
        bound = "at most " if self.form == "compact" else ""
        lines = [self._describe_longest(bound), self._describe_windows(bound)]
        if self.spans and self.spans[0].excerpt is not None:
            excerpt = _quote(self.spans[0].excerpt, 2 * _MAX_QUOTE)
            lines.append(f"It comes from training review {self.spans[0].review}: {excerpt}.")
        if bound:
            rate = f"{100 * self.false_positive_rate:.1f} %"
            lines.append(
                f"These are upper bounds: the compact index takes up to {rate} of all new windows"
                " for copied ones, and joins spans of several training texts."
            )
        return lines

    def _describe_longest(self, bound: str) -> str:
        """Return the sentence about the longest copied span. ``bound``, "at most " or empty, is
        written before each number.
        """
        if not self.longest_tokens:
            return "No token of the text occurs in the training text."
        characters = counted(self.longest_characters, "character")
        sizes = f"{bound}{characters} ({counted(self.longest_tokens, 'token')})"
        if bound and not self.longest_text:
            return (
                "Whether it copies a span is not known: the compact index of this model cannot"
                f" exclude one of {sizes}."
            )
        return f"The longest copied span has {sizes}: {_quote(self.longest_text, _MAX_QUOTE)}."

    def _describe_windows(self, bound: str) -> str:
        """Return the sentences about windows. ``bound``, "at most " or empty, is written before
        each number.
        """
        shares = ", ".join(
            f"{bound}{100 * share:.1f} % of its windows of {length} tokens"
            for length, share in self.windows.items()
            if share is not None
        )
        unknown = [length for length, share in self.windows.items() if share is None]
        too_long = _join(length for length in unknown if length > self.tokens)
        not_stored = _join(length for length in unknown if length <= self.tokens)
        sentences = list[str]()
        if shares:
            sentences.append(f"Also in the training text: {shares}.")
        if too_long:
            sentences.append(f"The text is too short for windows of {too_long} tokens.")
        if not_stored:
            sentences.append(f"None of its windows of {not_stored} tokens can be looked up.")
        return " ".join(sentences)

    def _repr_html_(self) -> str:
        """Return the copied spans and the shares of copied windows, for notebooks."""
        from reviewgen.web.rendering import render  # imports Jinja2

        spans = [{"span": span, "parts": _split_excerpt(span)} for span in self.spans[:_MAX_SHOWN]]
        return render(
            "novelty/novelty.html", novelty=self, spans=spans, hidden=len(self.spans) - len(spans)
        )


def _split_excerpt(span: Span) -> tuple[str, str, str]:
    """Split the excerpt of a span: return the part before the span, the span, and the part after
    it.
    """
    before, match, after = (span.excerpt or span.text).partition(span.text)
    return (before, match, after) if match else ("", span.text, "")


def _join(lengths: Iterable[int]) -> str:
    """Return numbers as in "8, 12 and 20"; an empty string if there are none."""
    words = [str(length) for length in lengths]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _quote(text: str, limit: int) -> str:
    """Return a text in quotes, on one line and cut to ``limit`` characters."""
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 1]}…"'


def decode_with_offsets(ids: list[int], decode: Decode) -> tuple[str, list[int]]:
    """Return the text that T ids decode to, and T + 1 character offsets. Offset i is the number of
    characters that the first i ids decode to.

    There are three ways to find the offsets. The first one that works for the whole text is used:

    1. Each distinct id is decoded alone. This fails, for instance, if two ids share a character.
    2. Each id is decoded after the eight ids before it.
    3. Every prefix of the ids is decoded. As this takes quadratic time, it is only done for a short
       text; a long one gets the approximate offsets of the second way.
    """
    text = decode(ids)
    pieces = {token: decode([token]) for token in set(ids)}
    if "".join(pieces[token] for token in ids) == text:
        return text, list(accumulate((len(pieces[token]) for token in ids), initial=0))
    offsets = [0]
    for index, token in enumerate(ids):
        before = ids[max(0, index - _CONTEXT) : index]
        offsets.append(offsets[-1] + len(decode([*before, token])) - len(decode(before)))
    if offsets[-1] == len(text):
        return text, offsets
    if len(ids) <= _SHORT_TEXT:
        return text, [len(decode(ids[:end])) for end in range(len(ids) + 1)]
    offsets[-1] = len(text)
    return text, [min(offset, len(text)) for offset in offsets]
