"""The laws of a tokenizer, one small function each. They know the contract in ``reviewgen.protocols`` and no tokenizer.

``make`` returns a tokenizer trained on ``TRAINING_TEXTS``, anew at each call. Laws about every text try the texts of
``NASTY_TEXTS`` and some that hypothesis invents.
"""

import dataclasses
import json
import pickletools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewgen.config import from_dict, to_dict
from reviewgen.protocols import SupportsEncodeBatch, Tokenizer
from reviewgen.registry import find_tokenizer

__all__ = [
    "NASTY_TEXTS",
    "TOKENIZER_LAWS",
    "TRAINING_TEXTS",
    "any_ids",
    "batch",
    "check_tokenizer",
    "config",
    "every_text",
    "frame",
    "known_text",
    "make_tokenizer",
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
"""What ``make`` trains on."""

UNSEEN = "ж"  # in no training text

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
"""Texts that have broken tokenizers; the last one holds surrogates, which no UTF-8 file can."""


def make_tokenizer(name: str) -> Tokenizer:
    """Train an installed tokenizer by name on ``TRAINING_TEXTS``, with its defaults.

    Raises:
        UnknownPlugin: Nothing of that name is installed.
    """
    cls, _ = find_tokenizer(name)
    tokenizer: Tokenizer = cls.train(TRAINING_TEXTS, cls.Config())
    return tokenizer


def check_tokenizer(make: Make) -> None:
    """Check every law.

    Raises:
        AssertionError: One is broken.
    """
    for law in TOKENIZER_LAWS:
        law(make)


def protocol(make: Make) -> None:
    """The tokenizer has the attributes and methods of Tokenizer."""
    tokenizer = make()
    assert isinstance(tokenizer, Tokenizer), f"{type(tokenizer).__name__} lacks a part of reviewgen.protocols.Tokenizer."


def config(make: Make) -> None:
    """The config is a frozen keyword-only dataclass of JSON values, and every field has a default."""
    cls = type(make()).Config
    is_dataclass = dataclasses.is_dataclass(cls)
    assert is_dataclass, f"{cls} is no dataclass."
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen."
    fields = dataclasses.fields(cls)
    assert all(field.kw_only for field in fields), f"{cls.__name__} is not keyword-only."
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    assert not required, f"The settings {required} need defaults: a tokenizer is used without a preset, too."
    values = json.loads(json.dumps(to_dict(cls())))
    assert from_dict(cls, values) == cls(), f"The config comes back from JSON as another one: {values}."


def every_text(make: Make) -> None:
    """``encode`` fails on no text and returns a list of ints from 0 to below vocab_size."""
    tokenizer = make()
    for text in _texts():
        with _no_error(f"encode({_short(text)})"):
            ids = tokenizer.encode(text)
        assert isinstance(ids, list), f"encode returns a {type(ids).__name__}, not a list."
        assert all(type(i) is int for i in ids), "encode returns a list of other things than int."
        assert all(0 <= i < tokenizer.vocab_size for i in ids), f"encode({_short(text)}) gives ids out of range: {_short(ids)}."


def frame(make: Make) -> None:
    """bos and eos are two ids that ``encode`` never emits, even for text that spells them, and that decode to nothing."""
    tokenizer = make()
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    assert bos != eos, "bos_id and eos_id are the same."
    assert {bos, eos} <= set(range(tokenizer.vocab_size)), "bos_id and eos_id must lie below vocab_size."
    for text in _texts():
        ids = tokenizer.encode(text)
        assert not {bos, eos} & set(ids), f"encode({_short(text)}) emits bos or eos."
        assert tokenizer.decode([bos, *ids, eos]) == tokenizer.decode(ids), "bos and eos must decode to nothing."


def stable(make: Make) -> None:
    """Encoding what was decoded gives the same ids again."""
    tokenizer = make()
    for text in _texts():
        ids = tokenizer.encode(text)
        again = tokenizer.encode(tokenizer.decode(ids))
        assert again == ids, f"{_short(text)} gives {_short(ids)}, and its decoded text {_short(again)}."


def known_text(make: Make) -> None:
    """Text of known symbols comes back as it was."""
    tokenizer = make()
    for text in TRAINING_TEXTS:
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded == text, f"{text!r} comes back as {decoded!r}."


def unseen_text(make: Make) -> None:
    """All or nothing: if a character that training never saw comes back, every text does (surrogates apart)."""
    tokenizer = make()
    if tokenizer.decode(tokenizer.encode(UNSEEN)) != UNSEEN:
        return  # a tokenizer without a byte fallback
    for text in _texts():
        decoded = tokenizer.decode(tokenizer.encode(text))
        assert decoded == text or _has_surrogates(text), f"{_short(text)} comes back as {_short(decoded)}."


def any_ids(make: Make) -> None:
    """``decode`` returns a str for any ids in range, whatever a model makes of them, bos and eos among them."""
    tokenizer = make()
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 50) * 20:
        ids = rng.integers(tokenizer.vocab_size, size=length).tolist()
        with _no_error(f"decode({_short(ids)})"):
            text = tokenizer.decode(ids)
        assert isinstance(text, str), f"decode returns a {type(text).__name__}."


def batch(make: Make) -> None:
    """SupportsEncodeBatch: ``encode_batch`` gives what ``encode`` gives for each text."""
    tokenizer = make()
    if not _can(tokenizer, SupportsEncodeBatch):
        return
    for texts in [], [""], [*NASTY_TEXTS, *TRAINING_TEXTS]:
        found = [[int(i) for i in ids] for ids in tokenizer.encode_batch(texts)]
        expected = [tokenizer.encode(text) for text in texts]
        assert found == expected, f"encode_batch gives other ids than encode for {len(texts)} texts."


def trained_again(make: Make) -> None:
    """Training twice on the same texts gives the same ids."""
    first, second = make(), make()
    assert _facts(first) == _facts(second), "Trained twice on the same texts, the tokenizer gives other ids."


def streamed(make: Make) -> None:
    """``train`` reads its texts once: a stream gives what a list gives."""
    cls = type(make())
    whole, stream = cls.train(list(TRAINING_TEXTS), cls.Config()), cls.train(iter(TRAINING_TEXTS), cls.Config())
    assert _facts(whole) == _facts(stream), "Trained on an iterator, the tokenizer gives other ids than trained on a list."


def save_load(make: Make) -> None:
    """``save`` and ``load`` give a tokenizer with the same ids."""
    tokenizer = make()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        loaded = type(tokenizer).load(Path(folder))
    assert _facts(loaded) == _facts(tokenizer), "The tokenizer gives other ids after it was saved and loaded."


def plain_data(make: Make) -> None:
    """What is on disk is JSON or text, in UTF-8, and no pickle."""
    with tempfile.TemporaryDirectory() as folder:
        make().save(Path(folder))
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        assert files, "save writes no file."
        for path in files:
            _assert_plain(path)


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
    save_load,
    plain_data,
)
"""Every law of a tokenizer, in the order in which a broken one is best mended."""


def _can(thing: Any, ability: type) -> bool:
    """Return whether a thing has an optional ability; keeps the type checker from forgetting what else it is."""
    return isinstance(thing, ability)


def _texts() -> Iterator[str]:
    """Yield the texts that stand for every text."""
    yield from TRAINING_TEXTS
    yield from NASTY_TEXTS
    yield from _invented_texts()


def _invented_texts() -> list[str]:
    """Return texts that hypothesis invents, the same ones each time."""
    texts: list[str] = []

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.text())
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return texts


def _facts(tokenizer: Any) -> tuple[Any, ...]:
    """Return what makes two tokenizers the same: their sizes, and ids and texts both ways."""
    ids = [tokenizer.encode(text) for text in (*TRAINING_TEXTS, *NASTY_TEXTS)]
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, ids, texts


def _assert_plain(path: Path) -> None:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            json.loads(text)
    except ValueError as error:
        raise AssertionError(f"{path.name} is no plain data: {error}.") from error
    assert path.suffix == ".json" or not _is_pickle(content), f"{path.name} is a pickle, which runs code when it is read."


def _is_pickle(content: bytes) -> bool:
    """Return whether the bytes are a whole pickle; pickletools reads them without running them."""
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:  # it raises whatever its operands make of foreign bytes
        return False


@contextmanager
def _no_error(call: str) -> Iterator[None]:
    """Turn an exception into a broken law."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{call} raises {type(error).__name__}: {error}") from error


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _short(value: Any) -> str:
    """Return a repr that fits on a line and can be printed."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
