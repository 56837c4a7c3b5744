"""Where the sentences of a text end. Must not know models or tokens."""

import re

# a full stop ends a sentence before white space only, unlike that in 3.5
_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*(?=\s|$)|[。！？]+[\"'”’»)\]」』）】》]*")
_WORD_BEFORE = re.compile(r"(\w[\w.]*)\Z")
_CAPITAL_AFTER = re.compile(r"\s+[^\W\d_a-z]")
_NUMBER_AFTER = re.compile(r"\s*\d")
_OFTEN_ABBREVIATED = (
    "e.g i.e mr mrs ms dr prof jr sr messrs mme mlle vs etc cf inc ltd dept approx usw bzw evtl"
    " ggf vgl"
)
_BEFORE_NUMBERS = "no nr vol fig pp p art jan feb mar apr jun jul aug sep sept oct nov dec"
_ABBREVIATIONS = frozenset(_OFTEN_ABBREVIATED.split())
_OF_NUMBERS = frozenset(_BEFORE_NUMBERS.split())


def sentence_ends(text: str, start: int = 0) -> list[int]:
    """Return where the sentences of a text end, from a position on.

    The full stop of an abbreviation or of an initial ends none.

    >>> sentence_ends("Mr. J. Doe gave it 3.5 stars. It rained. So")
    [29, 40]
    """
    return [match.end() for match in _END.finditer(text, start) if not _is_abbreviated(text, match)]


def last_whole_sentence(text: str, start: int = 0) -> int:
    """Return the end of the last complete sentence after a position, that is, one before another
    sentence; else the position.

    >>> last_whole_sentence("It rained. So we went. "), last_whole_sentence("It rained. So")
    (10, 10)
    """
    return max((end for end in sentence_ends(text, start) if text[end:].strip()), default=start)


def _is_abbreviated(text: str, match: re.Match[str]) -> bool:
    """Return whether the full stop belongs to an abbreviation, an initial or a numbered item, and
    ends no sentence.
    """
    if match.group() != ".":
        return False
    before = _WORD_BEFORE.search(text, max(0, match.start() - 24), match.start())
    if before is None:
        return False
    word = before.group(1)
    if word.lower() in _ABBREVIATIONS:
        return True
    if word.lower() in _OF_NUMBERS and _NUMBER_AFTER.match(text, match.end()):
        return True
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial and _CAPITAL_AFTER.match(text, match.end()) is not None
