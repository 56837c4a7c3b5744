"""Finds personal data in generated texts, and names the kinds of findings that block publishing.

Patterns match what looks like an e-mail address, a telephone number, a web address or a handle. That is a check, not a guarantee.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from reviewgen.config import check_list
from reviewgen.errors import ConfigError, did_you_mean, quoted

_PATTERNS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(
        r"(?:https?|ftp)://[^\s\"'<>)]+|www\.[\w-]+\.[^\s\"'<>)]+"
        r"|(?<![\w@.-])[\w-]{2,}(?:\.[\w-]+)*\.(?:com|net|org|edu|gov|info|biz|io|ly|tv|app|dev|blog|uk|de|fr|nl|ru)\b",
        re.IGNORECASE,
    ),
    "phone": re.compile(
        r"(?<![\w.,$£€-])(?!97[89])"  # not an ISBN
        r"(?:\+\d{1,3}[ .-]?(?:\(?\d{1,5}\)?[ .-]?){2,5}\d{2,}"
        r"|(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|[2-9]\d{2}[.-]\d{4}|0\d{1,4}(?: \d{2,4}){2,4}|\d{9,15})"
        r"(?![\w-])"
    ),
    "handle": re.compile(r"(?<![\w@./])@[A-Za-z_]\w{2,}"),
}
_PLURALS = {
    "email": "e-mail addresses",
    "url": "web addresses",
    "phone": "telephone numbers",
    "handle": "handles",
}
KINDS = (*_PATTERNS, "copies", "text", "license")
"""The kinds of findings, which are the values of ``allow``."""
NOTHING_FOUND = "no e-mail address, web address, telephone number or handle"


@dataclass(frozen=True)
class Finding:
    """A reason not to publish a model.

    Attributes:
        kind: One of KINDS.
        description: What was found, where and how often, as part of a sentence.
    """

    kind: str
    description: str


def check_kinds(allow: Collection[str]) -> frozenset[str]:
    """Return the kinds of findings that do not block publishing.

    Raises:
        ConfigError: A name is not one of KINDS.
    """
    names = check_list("allow", allow, "['copies']") if isinstance(allow, Collection) and not isinstance(allow, str) else [allow]
    for name in names:
        if not isinstance(name, str) or name not in KINDS:
            raise ConfigError(f"{quoted(name)} is not a kind of finding that allow accepts. {did_you_mean(str(name), KINDS)}")
    return frozenset(names)


def find_personal_data(samples: Sequence[str], pieces: Iterable[str]) -> list[Finding]:
    """Return the personal data in generated texts and in the pieces of a vocabulary, one finding per kind."""
    findings = []
    vocabulary = list(pieces)
    for kind, pattern in _PATTERNS.items():
        matches: Counter[str] = Counter()
        texts = 0
        for sample in samples:
            in_sample = pattern.findall(sample)
            texts += bool(in_sample)
            matches.update(in_sample)
        matching_pieces = [piece for piece in vocabulary if pattern.search(piece)]
        where = []
        if texts:
            where.append(f"{texts} of {len(samples)} samples")
            example = matches.most_common(1)[0][0]
        if matching_pieces:
            where.append(f"{len(matching_pieces)} pieces of the vocabulary")
            example = example if texts else matching_pieces[0].strip()
        if where:
            findings.append(Finding(kind, f"{_PLURALS[kind]} in {' and '.join(where)}, as in {example[:60]!r}"))
    return findings
