"""What must not be published by accident: personal details in what a model writes, too much copied text, no license.

Patterns find what looks like an e-mail address, a telephone number, an address on the web or a handle. That is a check, not a
guarantee.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from reviewgen.errors import ConfigError, did_you_mean

__all__ = ["KINDS", "NOTHING_FOUND", "Finding", "check_kinds", "find_personal_data"]

_PATTERNS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(
        r"(?:https?|ftp)://[^\s\"'<>)]+|www\.[\w-]+\.[^\s\"'<>)]+"
        r"|(?<![\w@.-])[\w-]{2,}(?:\.[\w-]+)*\.(?:com|net|org|edu|gov|info|biz|io|ly|tv|app|dev|blog|uk|de|fr|nl|ru)\b",
        re.IGNORECASE,
    ),
    "phone": re.compile(
        r"(?<![\w.,$£€-])(?!97[89])"  # no book's number
        r"(?:\+\d{1,3}[ .-]?(?:\(?\d{1,5}\)?[ .-]?){2,5}\d{2,}"
        r"|(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|[2-9]\d{2}[.-]\d{4}|0\d{1,4}(?: \d{2,4}){2,4}|\d{9,15})"
        r"(?![\w-])"
    ),
    "handle": re.compile(r"(?<![\w@./])@[A-Za-z_]\w{2,}"),
}
_WORDS = {
    "email": "e-mail addresses",
    "url": "web addresses",
    "phone": "telephone numbers",
    "handle": "handles",
}
KINDS = (*_PATTERNS, "copies", "text", "license")
"""What ``allow`` takes."""
NOTHING_FOUND = "no e-mail address, web address, telephone number or handle"


@dataclass(frozen=True)
class Finding:
    """One reason not to publish.

    Attributes:
        kind: One of KINDS.
        words: What was found, where and how often, in a clause.
    """

    kind: str
    words: str


def check_kinds(allow: Collection[str]) -> frozenset[str]:
    """Return what may be published all the same.

    Raises:
        ConfigError: A name is none of KINDS.
    """
    names = list(allow) if isinstance(allow, Collection) and not isinstance(allow, str) else [allow]
    for name in names:
        if name not in KINDS:
            raise ConfigError(f"{name!r} is nothing that is looked for before publishing. {did_you_mean(str(name), KINDS)}")
    return frozenset(names)


def find_personal_data(samples: Sequence[str], pieces: Iterable[str]) -> list[Finding]:
    """Return the personal details in texts that a model wrote, and in the pieces of its vocabulary."""
    found = []
    known = list(pieces)
    for kind, pattern in _PATTERNS.items():
        hits: Counter[str] = Counter()
        texts = 0
        for sample in samples:
            here = pattern.findall(sample)
            texts += bool(here)
            hits.update(here)
        inside = [piece for piece in known if pattern.search(piece)]
        where = []
        if texts:
            where.append(f"{texts} of {len(samples)} samples")
            example = hits.most_common(1)[0][0]
        if inside:
            where.append(f"{len(inside)} pieces of the vocabulary")
            example = example if texts else inside[0].strip()
        if where:
            found.append(Finding(kind, f"{_WORDS[kind]} in {' and '.join(where)}, as in {example[:60]!r}"))
    return found
