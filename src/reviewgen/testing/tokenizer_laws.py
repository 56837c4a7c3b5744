"""The laws of the tokenizer contract in ``reviewgen.protocols``, one function each.

``make`` returns a new tokenizer, trained on ``TRAINING_TEXTS``. Laws about arbitrary text use ``NASTY_TEXTS`` and texts that
hypothesis generates.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.config import from_dict, to_dict
from reviewgen.protocols import SupportsEncodeBatch, SupportsTrainingInParts, Tokenizer
from reviewgen.registry import find_tokenizer
from reviewgen.storage import temporary_folder
from reviewgen.testing.members import lacking
from reviewgen.testing.tokenizer_files_laws import FILE_LAWS, file_names, no_subfolders, own_folder, plain_data
from reviewgen.testing.tokenizer_json_law import check_tokenizer_json
from reviewgen.testing.tokenizer_order_law import any_order

__all__ = [
    "NASTY_TEXTS",
    "TOKENIZER_LAWS",
    "TRAINING_TEXTS",
    "any_ids",
    "any_order",
    "batch",
    "check_tokenizer",
    "config",
    "every_text",
    "file_names",
    "frame",
    "in_parts",
    "known_text",
    "lossless",
    "make_tokenizer",
    "no_subfolders",
    "other_programs",
    "own_folder",
    "plain_data",
    "protocol",
    "save_load",
    "stable",
    "streamed",
    "trained_again",
    "unseen_text",
]

Make = Callable[[], Any]

TRAINING_TEXTS: tuple[str, ...] = (
    "A good film. I liked it, and I'd watch it again!",
    "A bad film; the worst of 1999.\nI did not like it.",
    "The plot is thin, the actors are good, the end is the end.",
    "a good day, a good film, a good end",
)
"""The texts that ``make`` trains on."""

UNSEEN = "ж"  # does not occur in a training text
_SURROGATE = re.compile("[\ud800-\udfff]")

NASTY_TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\n",
    "  two  spaces, a tab\tand spaces at the end  ",
    "CRLF\r\nand CR\rand both kinds of Unicode line ends\u2028\u2029\x85",
    "\x00 NUL \x00\x00",
    "👍🏽 👩‍👩‍👧 🇹🇭",
    "ภาพยนตร์เรื่องนี้ดีมาก ๆ",
    "e\u0301 is not é; Z\u0351\u036b\u0343algo",
    "فيلم جيد جدا, סרט טוב \u202ebackwards\u202c",
    "映画はとても良かったです。",
    "\ufeffa byte order mark, \ufffd a replacement, \U0010ffff the last character",
    "a" * 5_000,
    " " * 3_000,
    "!?" * 2_000,
    "<s></s><bos><eos><pad><unk><|endoftext|><|begin_of_text|>[BOS][EOS][CLS][SEP]",
    "Ġ Ċ ▁ ## </w> <0x0A>",
    "\ud83d alone, \ude00 alone, \ud83d\ude00 together",
)
"""Texts that have broken tokenizers; the last one contains lone surrogates, which UTF-8 cannot encode."""


def make_tokenizer(name: str) -> Tokenizer:
    """Train an installed tokenizer by name on ``TRAINING_TEXTS``, with its defaults.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    cls, _ = find_tokenizer(name)
    tokenizer: Tokenizer = cls.train(TRAINING_TEXTS, cls.Config())
    return tokenizer


def check_tokenizer(make: Make, *, lossless: bool = False) -> None:
    """Check all laws in order, and stop at the first that the tokenizer breaks.

    Args:
        make: Returns a new tokenizer, trained on ``TRAINING_TEXTS``.
        lossless: Whether every text must decode to itself; see the law ``lossless``.

    Raises:
        AssertionError: A law is broken.
    """
    for law in TOKENIZER_LAWS:
        law(make)
    if lossless:
        _lossless(make)


def protocol(make: Make) -> None:
    """The tokenizer has the attributes and methods of Tokenizer."""
    tokenizer = make()
    assert isinstance(tokenizer, Tokenizer), (
        f"{type(tokenizer).__name__} lacks {lacking(tokenizer, Tokenizer)} of reviewgen.protocols.Tokenizer."
    )


def config(make: Make) -> None:
    """The config is a frozen, keyword-only dataclass of JSON values, and all fields have defaults."""
    cls = type(make()).Config
    is_dataclass = dataclasses.is_dataclass(cls)
    assert is_dataclass, f"{cls} must be a dataclass."
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} must be frozen: @dataclass(frozen=True, kw_only=True)."
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields), f"{cls.__name__} must be keyword-only: @dataclass(frozen=True, kw_only=True)."
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    assert not required, f"The settings {required} need defaults: a tokenizer can be used without a preset."
    values = json.loads(json.dumps(to_dict(cls())))
    assert from_dict(cls, values) == cls(), f"The config must be equal after a round trip through JSON; its JSON is {values}."


def every_text(make: Make) -> None:
    """``encode`` accepts every text, and returns a list of ints from 0 to vocab_size - 1."""
    tokenizer = make()
    for text in _texts():
        with _no_error(f"encode({_shorten(text)})"):
            ids = tokenizer.encode(text)
        assert isinstance(ids, list), f"encode must return a list; got a {type(ids).__name__}."
        assert all(type(i) is int for i in ids), "encode must return a list of int; got other types in it."
        assert all(0 <= i < tokenizer.vocab_size for i in ids), (
            f"encode({_shorten(text)}) must return ids below vocab_size = {tokenizer.vocab_size}; got {_shorten(ids)}."
        )


def frame(make: Make) -> None:
    """bos and eos are two ids that decode to nothing, and that ``encode`` never returns, even for their names in a text."""
    tokenizer = make()
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert bos != eos, "bos_id and eos_id must differ."
    assert {bos, eos} <= set(range(tokenizer.vocab_size)), "bos_id and eos_id must be below vocab_size."
    for text in _texts():
        ids = tokenizer.encode(text)
        assert not {bos, eos} & set(ids), f"encode({_shorten(text)}) must not return bos_id or eos_id; got {_shorten(ids)}."
        assert tokenizer.decode([bos, *ids, eos]) == tokenizer.decode(ids), "bos_id and eos_id must decode to an empty string."


def stable(make: Make) -> None:
    """Ids survive decoding and encoding: encode(decode(encode(text))) equals encode(text)."""
    tokenizer = make()
    for text in _texts():
        ids = tokenizer.encode(text)
        again = tokenizer.encode(tokenizer.decode(ids))
        assert again == ids, f"{_shorten(text)} encodes to {_shorten(ids)}, but after decoding to {_shorten(again)}."


def known_text(make: Make) -> None:
    """The training texts are unchanged by encoding and decoding."""
    tokenizer = make()
    for text in TRAINING_TEXTS:
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded == text, f"The training text {_shorten(text)} must decode to itself. {_describe_loss(text, decoded)}"


def unseen_text(make: Make) -> None:
    """If a character that is not in the training texts survives encoding and decoding, every text must (except surrogates)."""
    tokenizer = make()
    if tokenizer.decode(tokenizer.encode(UNSEEN)) != UNSEEN:
        return  # a tokenizer without a byte fallback
    for text in _texts():
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded == text or _has_surrogates(text), (
            f"{_shorten(text)} must decode to itself, as text with unseen characters does. {_describe_loss(text, decoded)}"
        )


def lossless(make: Make) -> None:
    """Every text decodes to itself; a lone surrogate, which UTF-8 cannot encode, to itself or to U+FFFD.

    Not among ``TOKENIZER_LAWS``, since a tokenizer needs no byte fallback; ``check_tokenizer(make, lossless=True)`` adds it.
    """
    tokenizer = make()
    for text in _texts():
        decoded = tokenizer.decode(tokenizer.encode(text))
        allowed = {text, _SURROGATE.sub("\ufffd", text)}
        assert decoded in allowed, f"A lossless tokenizer must keep {_shorten(text)}. {_describe_loss(text, decoded)}"


def any_ids(make: Make) -> None:
    """``decode`` returns a str for every sequence of valid ids, also with bos and eos in it."""
    tokenizer = make()
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 50) * 20:
        ids = rng.integers(tokenizer.vocab_size, size=length).tolist()
        with _no_error(f"decode({_shorten(ids)})"):
            text = tokenizer.decode(ids)
        assert isinstance(text, str), f"decode must return a str; got a {type(text).__name__}."


def batch(make: Make) -> None:
    """SupportsEncodeBatch: ``encode_batch`` returns the ids of ``encode`` for each text."""
    tokenizer = make()
    if not _can(tokenizer, SupportsEncodeBatch):
        return
    for texts in [], [""], [*NASTY_TEXTS, *TRAINING_TEXTS]:
        actual = [[int(i) for i in ids] for ids in tokenizer.encode_batch(texts)]
        expected = [tokenizer.encode(text) for text in texts]
        assert actual == expected, f"encode_batch returns other ids than encode for a list of {len(texts)} texts."


def trained_again(make: Make) -> None:
    """Training twice on the same texts gives the same ids."""
    first, second = make(), make()
    assert _fingerprint(first) == _fingerprint(second), "A tokenizer trained again on the same texts gives other ids."


def streamed(make: Make) -> None:
    """``train`` iterates over its texts once: an iterator gives the same tokenizer as a list."""
    cls = type(make())
    whole, stream = cls.train(list(TRAINING_TEXTS), cls.Config()), cls.train(iter(TRAINING_TEXTS), cls.Config())
    assert _fingerprint(whole) == _fingerprint(stream), (
        "A tokenizer trained on an iterator gives other ids than on a list; train must iterate over its texts once."
    )


def in_parts(make: Make) -> None:
    """SupportsTrainingInParts: tokenizers that were trained on parts of the texts combine to that of all texts."""
    cls = type(make())
    if not _can(cls, SupportsTrainingInParts):
        return
    half = len(TRAINING_TEXTS) // 2
    parts = [cls.train(iter(texts), cls.Config()) for texts in (TRAINING_TEXTS[:half], TRAINING_TEXTS[:0], TRAINING_TEXTS[half:])]
    whole = cls.train(iter(TRAINING_TEXTS), cls.Config())
    assert _fingerprint(cls.combine(parts)) == _fingerprint(whole), (
        "A tokenizer combined from those of parts of the texts gives other ids than one trained on all texts."
    )


def save_load(make: Make) -> None:
    """A saved and loaded tokenizer gives the same ids and texts."""
    tokenizer = make()
    with temporary_folder() as folder:
        tokenizer.save(folder)
        loaded = type(tokenizer).load(folder)
    assert _fingerprint(loaded) == _fingerprint(tokenizer), "A saved and loaded tokenizer gives other ids or texts."


def other_programs(make: Make) -> None:
    """SupportsTokenizerJson: the library ``tokenizers`` gives the same ids and texts."""
    check_tokenizer_json(make, _texts())


_lossless = lossless  # check_tokenizer has an argument of this name

TOKENIZER_LAWS: tuple[Callable[[Make], None], ...] = (
    protocol,
    config,
    every_text,
    frame,
    stable,
    known_text,
    unseen_text,
    any_ids,
    batch,
    trained_again,
    streamed,
    in_parts,
    save_load,
    other_programs,
    *FILE_LAWS,
    any_order,
)
"""All laws of a tokenizer, in the order in which to fix broken ones."""


def _can(value: Any, protocol: type) -> bool:
    """Return whether a value implements an optional protocol; unlike isinstance, does not narrow its type."""
    return isinstance(value, protocol)


def _texts() -> Iterator[str]:
    """Yield the texts that the laws about arbitrary text use."""
    yield from TRAINING_TEXTS
    yield from NASTY_TEXTS
    yield from _generated_texts()


def _generated_texts() -> list[str]:
    """Return texts generated by hypothesis, the same ones each time."""
    texts: list[str] = []

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.text())
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return texts


def _fingerprint(tokenizer: Any) -> tuple[Any, ...]:
    """Return values that are equal for equal tokenizers: the special ids, and the results of encode and decode."""
    ids = [tokenizer.encode(text) for text in (*TRAINING_TEXTS, *NASTY_TEXTS)]
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, ids, texts


@contextmanager
def _no_error(call: str) -> Iterator[None]:
    """Turn an exception into an AssertionError."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{call} must not raise; got {type(error).__name__}: {error}") from error


def _has_surrogates(text: str) -> bool:
    return _SURROGATE.search(text) is not None


def _describe_loss(text: str, decoded: str) -> str:
    """Return where a text and its decoded ids first differ, with a few characters of both."""
    place = next((n for n, (a, b) in enumerate(zip(text, decoded, strict=False)) if a != b), min(len(text), len(decoded)))
    one, other = (_shorten(part[place : place + 8]) for part in (text, decoded))
    return f"At character {place}, {one} becomes {other}; {len(text):,} characters become {len(decoded):,}."


def _shorten(value: Any) -> str:
    """Return a printable repr of at most 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
