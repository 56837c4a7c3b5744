"""The tokenizer ``char`` in the format of the library ``tokenizers``, made of steps that the
library has.

Encoding writes each byte of a text as a bar and its two digits, cuts the result into characters,
and looks each up: one in the vocabulary gives its id, any other falls apart into its digits, and
the bars, which have no id, are dropped::

    "aé"   ->   "│⑥①│⑫③│⑩⑨"   ->   "│⑥①", "│⑫③│⑩⑨"   ->   id of a, and id of é or four ids of digits

Decoding puts the bars back between each two digits that have lost them, and turns each bar and two
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
# circled numbers, which ByteLevel never gives
DIGITS = "".join(chr(0x2460 + digit) for digit in range(16))
CONTINUES = DIGITS[8:12]  # the high digits of a byte that continues a character of UTF-8
INVALID = 0xFF  # decodes to U+FFFD


def write_json(characters: str) -> str:
    """Return the ``tokenizer.json`` of a vocabulary."""
    pieces = ["".join(map(_spell, character.encode())) for character in characters]
    vocabulary = {piece: number for number, piece in enumerate([BOS, EOS, *DIGITS, *pieces])}
    tokenizer: Any = Tokenizer(BPE(vocabulary, [], ignore_merges=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.ByteLevel(), *_spelling_steps()])
    start = f"{BAR}[^{BAR}{CONTINUES}][{DIGITS}]"
    tokenizer.pre_tokenizer = Split(Regex(f"{start}(?:{BAR}[{CONTINUES}][{DIGITS}])*"), "isolated")
    tokenizer.decoder = decoders.Sequence(_decoding_steps())
    return str(tokenizer.to_str(pretty=True))


def _spell(byte: int) -> str:
    return BAR + DIGITS[byte >> 4] + DIGITS[byte & 15]


def _spelling_steps() -> list[Any]:
    """Return the steps from ByteLevel's symbols to digits: 16 insert a bar and the high digit, 16
    put in the low one.
    """
    symbols = [_escape(symbol) for symbol in _byte_symbols()]
    # the symbols with that digit
    high = ["".join(symbols[16 * digit : 16 * digit + 16]) for digit in range(16)]
    low = ["".join(symbols[digit::16]) for digit in range(16)]
    before = [
        normalizers.Replace(Regex(f"(?=[{group}])"), BAR + digit)
        for group, digit in zip(high, DIGITS, strict=True)
    ]
    after = [
        normalizers.Replace(Regex(f"[{group}]"), digit)
        for group, digit in zip(low, DIGITS, strict=True)
    ]
    return [*before, *after]


def _escape(symbol: str) -> str:
    return f"\\{symbol}" if symbol.isascii() and not symbol.isalnum() else symbol


def _decoding_steps() -> list[Decoder]:
    """Return the steps from tokens to text; bars are put back between digits once those of known
    characters are gone.
    """
    symbols = _byte_symbols()
    to_bytes = [decoders.Replace(_spell(byte), symbols[byte]) for byte in range(256)]
    return [
        *(decoders.Replace(Regex(f"^{name}$"), "") for name in (BOS, EOS)),
        decoders.Fuse(),
        *to_bytes,
        decoders.Replace(Regex(f"(?<![{DIGITS}])(?=[{DIGITS}])"), BAR),
        # \\K: the two digits are kept
        decoders.Replace(Regex(f"[{DIGITS}]{{2}}\\K(?=[{DIGITS}])"), BAR),
        *to_bytes,
        decoders.Replace(Regex(f"{BAR}[{DIGITS}]"), symbols[INVALID]),  # a single last digit
        decoders.ByteLevel(),
    ]


@lru_cache(maxsize=1)
def _byte_symbols() -> list[str]:
    """Return ByteLevel's symbol of each byte: a printable one for itself, the others from U+0100
    on.
    """
    alphabet = set(ByteLevel.alphabet())
    others = iter(sorted(symbol for symbol in alphabet if ord(symbol) > 255))
    return [chr(byte) if chr(byte) in alphabet else next(others) for byte in range(256)]
