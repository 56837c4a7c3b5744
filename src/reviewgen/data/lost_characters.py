"""Counts the characters of a corpus that its tokenizer loses, such as those without an id. Knows no model.

A tokenizer that keeps a character of the private use area, which no text contains, has an id for every byte or the like: of its
texts only a small sample is checked.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reviewgen.protocols import Tokenizer

_PROBE = "\ue0f1"  # private use
_CHECKED, _CHECKED_CLOSELY = 100_000, 5_000_000  # characters at most: of a tokenizer that keeps the probe, and of others
_BEFORE, _AFTER = 12, 12  # characters of an example around the first that is lost


@dataclass(frozen=True)
class LostCharacters:
    """What a tokenizer loses.

    Attributes:
        lost: The number of characters that encoding and decoding do not give back.
        checked: The number of characters that were checked.
        is_sample: Whether they are a sample of the corpus.
        example: A place with a lost character, and what it becomes.
    """

    lost: int
    checked: int
    is_sample: bool
    example: tuple[str, str]

    def describe(self, tokenizer: str) -> str:
        """Return a sentence for the user.

        >>> LostCharacters(3, 1200, False, ("a naïve film", "a nave film")).describe("letters")
        "The tokenizer letters loses 3 of 1,200 characters (0.25 %): 'a naïve film' becomes 'a nave film'."
        """
        what = "of a sample of" if self.is_sample else "of"
        before, after = (text.encode("utf-8", "backslashreplace").decode() for text in self.example)
        share = f"{100 * self.lost / self.checked:.2g} %"
        counts = f"{self.lost:,} {what} {self.checked:,} characters ({share})"
        return f"The tokenizer {tokenizer} loses {counts}: {before!r} becomes {after!r}."


def sample_step(tokenizer: Tokenizer, characters: int) -> int:
    """Return N where one in N texts of a corpus with a number of characters is checked."""
    limit = _CHECKED if tokenizer.decode(tokenizer.encode(_PROBE)) == _PROBE else _CHECKED_CLOSELY
    return -(-characters // limit) or 1


def count_lost(texts: Iterable[str], tokenizer: Tokenizer, step: int) -> LostCharacters:
    """Return what a tokenizer loses of some texts, the sample of one in ``step``; possibly nothing."""
    lost, checked, example = 0, 0, ("", "")
    for text in texts:
        checked += len(text)
        decoded = tokenizer.decode(tokenizer.encode(text))
        if decoded != text:
            example = example if lost else _find_example(text, decoded)
            lost += max(1, (Counter(text) - Counter(decoded)).total())  # at least their order
    return LostCharacters(lost, checked, step > 1, example)


def add_up_lost(counts: Sequence[LostCharacters]) -> LostCharacters | None:
    """Return what is lost of all samples, with the first example; None if nothing."""
    lost = [one for one in counts if one.lost]
    if not lost:
        return None
    return LostCharacters(sum(one.lost for one in lost), sum(one.checked for one in counts), lost[0].is_sample, lost[0].example)


def _find_example(text: str, decoded: str) -> tuple[str, str]:
    """Return the place where a text and its decoded ids first differ, in both."""
    place = next((n for n, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), min(len(text), len(decoded)))
    start = max(0, place - _BEFORE)
    return text[start : place + _AFTER], decoded[start : place + _AFTER]
