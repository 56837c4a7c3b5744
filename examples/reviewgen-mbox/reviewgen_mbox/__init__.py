"""A reader for reviewgen: the messages of a mailbox (RFC 4155), their plain text with subject,
sender and year.
"""

import mailbox
from collections.abc import Iterator
from email.utils import parsedate_tz
from itertools import chain
from typing import Any

__all__ = ["read"]


def read(source: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the messages of a mailbox that have a plain text; quoted lines are left out."""
    for message in mailbox.mbox(source, create=False):
        parts = [part for part in message.walk() if part.get_content_type() == "text/plain"]
        raw = chain.from_iterable(_decode(part).splitlines() for part in parts)
        lines = [line.removeprefix(">") if line.startswith(">From ") else line for line in raw]
        lines = [line for line in lines if not line.startswith(">")]
        date = parsedate_tz(message["date"] or "")
        yield [
            {
                "text": "\n".join(lines).strip(),
                "subject": str(message["subject"] or ""),
                "sender": str(message["from"] or ""),
                "year": date[0] if date else None,
            }
        ]


def _decode(part: Any) -> str:
    payload = part.get_payload(decode=True)
    try:
        return str(payload, part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):  # an unknown or a wrong charset
        return str(payload, "latin-1")
