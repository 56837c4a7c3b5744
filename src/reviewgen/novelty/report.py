"""What an index finds in a text: copied spans and shares of known windows, for programs and, in sentences, for people.

Knows no index; counts tokens and characters.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["SHORTEST", "WINDOWS", "Novelty", "Span", "Spell", "spell_places"]

WINDOWS = (8, 12, 20)  # tokens
SHORTEST = WINDOWS[0]  # tokens of a span worth naming
_CONTEXT = 8  # tokens; a character has at most four bytes, a token at least one
_QUOTE = 80  # characters
_FEW = 1000  # tokens

Spell = Callable[[Sequence[int]], str]
"""Decodes ids to text, as ``Tokenizer.decode`` does."""


@dataclass(frozen=True)
class Span:
    """A part of a text that stands in the training text.

    Attributes:
        start: Its first character in the text.
        end: The character after its last.
        text: Its characters.
        tokens: Its length in tokens.
        review: The number of a training review that holds it, from 0 in the order of training; None where that is not known.
        excerpt: That review's text around the span, up to 60 characters on each side; None where that is not known.
    """

    start: int
    end: int
    text: str
    tokens: int
    review: int | None
    excerpt: str | None


@dataclass(frozen=True)
class Novelty:
    """What of a text stands in the training text; from the compact form, upper bounds.

    Attributes:
        form: The form of the index, "exact" or "compact".
        characters: Of the text.
        tokens: Of the text.
        longest_characters: Of the longest copied span.
        longest_tokens: Of the longest copied span; from the compact form at most so many.
        longest_text: That span.
        windows: The share, 0 to 1, of the text's windows of 8, 12 and 20 tokens that stand in the training text; None where the
            text is too short, or the compact form can judge none of them.
        spans: The copied spans of 8 tokens or more, the longest first, none of which lies in another. From the compact form only
            the longest.
        false_positive_rate: The share of new windows that the index takes for copied, at most; 0 for the exact form.
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
        """Return two to four lines for a person."""
        if not self.tokens:
            return ["The text is empty.", "There is nothing to compare with the training text."]
        lines = [self._longest(), self._shares()]
        if self.spans and self.spans[0].excerpt is not None:
            lines.append(f"It comes from training review {self.spans[0].review}: {_quote(self.spans[0].excerpt, 2 * _QUOTE)}.")
        if self.form == "compact":
            rate = f"{100 * self.false_positive_rate:.1f} %"
            lines.append(f"These are upper bounds: the compact index takes up to {rate} of all new windows for copied ones.")
        return lines

    def _longest(self) -> str:
        if not self.longest_tokens:
            return "No token of it stands in the training text."
        bound = "at most " if self.form == "compact" else ""
        sizes = f"{bound}{_count(self.longest_characters, 'character')} ({_count(self.longest_tokens, 'token')})"
        return f"The longest copied span has {sizes}: {_quote(self.longest_text, _QUOTE)}."

    def _shares(self) -> str:
        bound = "at most " if self.form == "compact" else ""
        shares = [
            f"{bound}{100 * share:.1f} % of its windows of {length} tokens"
            if share is not None
            else f"none known of {length} tokens"
            for length, share in self.windows.items()
        ]
        return f"Standing in the training text: {', '.join(shares)}."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _quote(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= limit else f'"{line[: limit - 1]}…"'


def spell_places(ids: list[int], spell: Spell) -> tuple[str, list[int]]:
    """Return the text of T ids, and the T + 1 places in it: how many characters the first i ids spell.

    Where ids spell the same alone and together, one look at each id is enough. Else, as where two ids share a character, each
    is read behind the few before it. A spelling that is neither is read from the start for each place, in quadratic time; of a
    long text, the places are then near the true ones only.
    """
    text = spell(ids)
    pieces = {token: spell([token]) for token in set(ids)}
    if "".join(pieces[token] for token in ids) == text:
        return text, _sums(len(pieces[token]) for token in ids)
    steps = []
    for place in range(len(ids)):
        before = ids[max(0, place - _CONTEXT) : place]
        steps.append(len(spell([*before, ids[place]])) - len(spell(before)))
    places = _sums(steps)
    if places[-1] != len(text):
        if len(ids) <= _FEW:
            return text, [len(spell(ids[:place])) for place in range(len(ids) + 1)]
        places = [min(place, len(text)) for place in [*places[:-1], len(text)]]
    return text, places


def _sums(steps: Iterable[int]) -> list[int]:
    return list(accumulate(steps, initial=0))
