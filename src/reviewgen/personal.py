"""Finds what looks like an e-mail address, a web address, a telephone number or a handle in texts.
This is a check, not a guarantee.
"""

import re
from collections.abc import Iterator

_URL = (
    r"(?:https?|ftp)://[^\s\"'<>)]+|www\.[\w-]+\.[^\s\"'<>)]+"
    r"|(?<![\w@.-])[\w-]{2,}(?:\.[\w-]+)*\.(?:com|net|org|edu|gov|info|biz|io|ly|tv|app|dev|blog|uk|de|fr|nl|ru)\b"
)
_PHONE = (
    r"(?<![\w.,$£€-])(?!97[89])"  # not an ISBN
    r"(?:\+\d{1,3}[ .-]?(?:\(?\d{1,5}\)?[ .-]?){2,5}\d{2,}"
    r"|(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}|[2-9]\d{2}[.-]\d{4}|0\d{1,4}(?:"
    r" \d{2,4}){2,4}|\d{9,15})(?![\w-])"
)
PERSONAL_DATA = {
    "email": ("e-mail addresses", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")),
    "url": ("web addresses", re.compile(_URL, re.IGNORECASE)),
    "phone": ("telephone numbers", re.compile(_PHONE)),
    "handle": ("handles", re.compile(r"(?<![\w@./])@[A-Za-z_]\w{2,}")),
}
"""For each kind, what its findings are called, and the pattern that finds them."""


def find_personal_data(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the value of everything in a text that looks like personal data.

    >>> list(find_personal_data("Write to ann@example.org or call 555-867-5309."))
    [('email', 'ann@example.org'), ('phone', '555-867-5309')]
    """
    for kind, (_, pattern) in PERSONAL_DATA.items():
        for match in pattern.finditer(text):
            yield kind, match[0]


def mask(value: str) -> str:
    """Return a value with most of its characters hidden.

    >>> mask("ann.lee@example.org"), mask("555-867-5309")
    ('a…@e….org', '…09')
    """
    user, at, host = value.partition("@")
    if at and user:
        name, dot, ending = host.rpartition(".")
        return f"{user[0]}…@{name[:1]}…{dot}{ending}"
    if value[-1:].isdigit():
        return f"…{value[-2:]}"
    return f"{value[:2]}…{value[-2:]}"
