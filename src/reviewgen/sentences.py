"""Finds where the sentences of a text end. This module must not know models or tokens."""

import re

# The marks ".", "!", "?" and "…" end a sentence only before white space or at the end of the text,
# so not in "3.5". The Chinese and Japanese marks always end one.
_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[\"'”’»)\]」』）】》]*")
_WORD_BEFORE = re.compile(r"(\w[\w.]*)\Z")
_CAPITAL_AFTER = re.compile(r"\s+[^\W\d_a-z]")
_NUMBER_AFTER = re.compile(r"\s*\d")
_OFTEN_ABBREVIATED = (
    "e.g i.e mr mrs ms dr prof jr sr messrs mme mlle vs etc cf inc ltd dept approx usw bzw evtl"
    " ggf vgl"
)
_BEFORE_NUMBERS = "no nr vol fig pp p art jan feb mar apr jun jul aug sep sept oct nov dec"
ABBREVIATIONS = frozenset(_OFTEN_ABBREVIATED.split())
NUMBER_ABBREVIATIONS = frozenset(_BEFORE_NUMBERS.split())


def sentence_ends(text: str, start: int = 0) -> list[int]:
    """Return, for each sentence, the index after its last character. The search begins at index
    ``start``.

    The full stop after an abbreviation or an initial does not end a sentence.

    >>> sentence_ends("Mr. J. Doe gave it 3.5 stars. It rained. So")
    [29, 40]
    """
    return [match.end() for match in _END.finditer(text, start) if not _is_abbreviated(text, match)]


def last_whole_sentence(text: str, start: int = 0) -> int:
    """Return the index after the last sentence that is followed by more text; ``start`` if there is
    no such sentence.

    >>> last_whole_sentence("It rained. So we went. "), last_whole_sentence("It rained. So")
    (10, 10)
    """
    return max((end for end in sentence_ends(text, start) if text[end:].strip()), default=start)


def _is_abbreviated(text: str, match: re.Match[str]) -> bool:
    """Return whether a full stop belongs to an abbreviation, an initial or a numbered item.

    Such a full stop does not end a sentence.
    """
    if match.group() != ".":
        return False
    # the last 24 characters are enough for all abbreviations
    before = _WORD_BEFORE.search(text, max(0, match.start() - 24), match.start())
    if before is None:
        return False
    word = before.group(1)
    if word.lower() in ABBREVIATIONS:
        return True
    if word.lower() in NUMBER_ABBREVIATIONS and _NUMBER_AFTER.match(text, match.end()):
        return True
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial and _CAPITAL_AFTER.match(text, match.end()) is not None
