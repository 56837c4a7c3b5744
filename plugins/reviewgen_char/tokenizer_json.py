"""Writes the tokenizer ``char`` in the format of the library ``tokenizers``.

The library's own steps are combined, so no code of reviewgen is needed to use the file.

Encoding has three steps. Each byte of the text is written as a bar and two hexadecimal digits. The
result is cut into characters. Each character is looked up in the vocabulary: if it is known, it
gives one id; otherwise, it gives the ids of its digits, and its bars are dropped, since a bar has
no id::

    "aé"   ->   "│⑥①│⑫③│⑩⑨"   ->   "│⑥①", "│⑫③│⑩⑨"   ->   id of a, and id of é or four ids of digits

Decoding puts the dropped bars back in front of each pair of digits, and turns each bar with its two
digits into a byte.
"""

from functools import lru_cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers
from tokenizers.decoders import Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split

BOS = "<bos>"
EOS = "<eos>"
BAR = "\u2502"
# circled numbers, which ByteLevel never produces: the digits 0 to 15
DIGITS = "".join(chr(0x2460 + digit) for digit in range(16))
CONTINUES = DIGITS[8:12]  # high digits of the bytes that continue a character in UTF-8
INVALID = 0xFF  # a byte that decodes to U+FFFD


def write_json(characters: str) -> str:
    """Return the content of ``tokenizer.json`` for a vocabulary of characters."""
    pieces = ["".join(map(_spell, character.encode())) for character in characters]
    vocabulary = {piece: id_ for id_, piece in enumerate([BOS, EOS, *DIGITS, *pieces])}
    tokenizer: Any = Tokenizer(BPE(vocabulary, [], ignore_merges=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.ByteLevel(), *_spelling_steps()])
    # a character: a byte that does not continue another one, then all bytes that continue it
    start = f"{BAR}[^{BAR}{CONTINUES}][{DIGITS}]"
    tokenizer.pre_tokenizer = Split(Regex(f"{start}(?:{BAR}[{CONTINUES}][{DIGITS}])*"), "isolated")
    tokenizer.decoder = decoders.Sequence(_decoding_steps())
    return str(tokenizer.to_str(pretty=True))


def read_characters(vocabulary: dict[str, int]) -> str:
    """Return the characters of a vocabulary that ``write_json`` has written."""
    # the tokens in the order of their ids, without bos, eos and the digits
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)[2 + len(DIGITS) :]
    digits = "".join(pieces).replace(BAR, "")
    return bytes.fromhex("".join(f"{DIGITS.index(digit):x}" for digit in digits)).decode()


def _spell(byte: int) -> str:
    """Return a bar and the two digits of a byte."""
    return BAR + DIGITS[byte >> 4] + DIGITS[byte & 15]


def _spelling_steps() -> list[Any]:
    """Return the steps that replace ByteLevel's symbols of bytes by bars and digits.

    The first 16 steps insert the bar and the high digit in front of each symbol. The last 16 steps
    replace the symbol by the low digit.
    """
    symbols = [_escape(symbol) for symbol in _byte_symbols()]
    # for each digit, the symbols of the bytes whose high digit or low digit it is
    high = ["".join(symbols[16 * digit : 16 * digit + 16]) for digit in range(16)]
    low = ["".join(symbols[digit::16]) for digit in range(16)]
    inserting = [
        normalizers.Replace(Regex(f"(?=[{group}])"), BAR + digit)
        for group, digit in zip(high, DIGITS, strict=True)
    ]
    replacing = [
        normalizers.Replace(Regex(f"[{group}]"), digit)
        for group, digit in zip(low, DIGITS, strict=True)
    ]
    return [*inserting, *replacing]


def _escape(symbol: str) -> str:
    """Escape a symbol for a character class of a regular expression."""
    return f"\\{symbol}" if symbol.isascii() and not symbol.isalnum() else symbol


def _decoding_steps() -> list[Decoder]:
    """Return the steps that turn tokens into text.

    First, the bytes of known characters are decoded, since their tokens still have their bars. Then
    bars are put back in front of each pair of the remaining digits, and these are decoded, too.
    """
    symbols = _byte_symbols()
    to_bytes = [decoders.Replace(_spell(byte), symbols[byte]) for byte in range(256)]
    return [
        *(decoders.Replace(Regex(f"^{name}$"), "") for name in (BOS, EOS)),
        decoders.Fuse(),
        *to_bytes,
        # a bar at the beginning of each run of digits
        decoders.Replace(Regex(f"(?<![{DIGITS}])(?=[{DIGITS}])"), BAR),
        # a bar after every two digits that more digits follow; \\K means that the two are kept
        decoders.Replace(Regex(f"[{DIGITS}]{{2}}\\K(?=[{DIGITS}])"), BAR),
        *to_bytes,
        # a last digit without a partner becomes U+FFFD
        decoders.Replace(Regex(f"{BAR}[{DIGITS}]"), symbols[INVALID]),
        decoders.ByteLevel(),
    ]


@lru_cache(maxsize=1)
def _byte_symbols() -> list[str]:
    """Return ByteLevel's symbol of each byte.

    The symbol of a printable character is the character itself. The symbols of all other bytes are
    characters from U+0100 on.
    """
    alphabet = set(ByteLevel.alphabet())
    others = iter(sorted(symbol for symbol in alphabet if ord(symbol) > 255))
    return [chr(byte) if chr(byte) in alphabet else next(others) for byte in range(256)]
