"""Mojibake: text that was once read in the wrong encoding, as "cafÃ©" for "café". Finds it in a text, and mends it with ftfy."""

import re
from collections.abc import Callable

from reviewgen.errors import ConfigError

__all__ = ["encoding_fixer", "find_mojibake"]

# What the bytes 80 to BF are in Latin-1 and in Windows-1252; of those, punctuation may also stand after a capital in French.
_CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_AFTER_CAPITALS = "\x80-\x9f¡-ª¬-º¼-¿€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™šœžŸ"
_MOJIBAKE = re.compile(
    rf"Ã[{_AFTER_CAPITALS}\xa0]|Â[{_AFTER_CAPITALS}\xa0«»]|[ÄÅ][{_AFTER_CAPITALS}]"  # é, spaces, Central Europe
    rf"|â€[{_CONTINUATION}]|â[\x80-\x84][\x80-\xbf]"  # quotation marks and dashes
    rf"|ð[Ÿ\x9f][{_CONTINUATION}]|ï¸|ï»¿|ï¿½"  # emoji, byte order mark, replacement character
    rf"|(?:[ÐÑ][{_CONTINUATION}]){{2}}|(?:à[¸¹][{_CONTINUATION}]){{2}}"  # Cyrillic, Thai
    r"|[\x80-\x9f]"  # punctuation of Windows-1252 that was read as Latin-1, and is invisible
)
_AROUND = 15  # characters of an example before and after


def find_mojibake(text: str) -> str | None:
    """Return the first mojibake of a text with a few characters around it, or None if it has none.

    >>> find_mojibake("We went to the cafÃ© twice.")
    'went to the cafÃ© twice.'
    """
    match = None if text.isascii() else _MOJIBAKE.search(text)
    if match is None:
        return None
    return text[max(0, match.start() - _AROUND) : match.end() + _AROUND].strip()


def encoding_fixer() -> Callable[[str], str]:
    """Return a function that mends the mojibake of a text.

    Raises:
        ConfigError: ftfy is not installed.
    """
    try:
        from ftfy import fix_encoding  # an extra
    except ImportError:
        raise ConfigError("Mending encodings needs ftfy: pip install 'reviewgen[ftfy]'.") from None
    return lambda text: text if text.isascii() else fix_encoding(text)
