"""The laws of the tokenizer contract in ``reviewgen.protocols``, one function each.

A law is called with ``make``, which returns a new tokenizer, trained on ``TRAINING_TEXTS``. Below,
a law is written as a function of such a tokenizer. Laws about arbitrary text use ``NASTY_TEXTS``
and texts that hypothesis generates.

PYTEST_DONT_REWRITE: where ``CI`` is set, pytest would compare lists of thousands of ids line by
line, which takes hours.
"""

import contextlib
import functools
import json
import os
import pickletools
import pkgutil
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tokenizers

from reviewgen.protocols.checks import asserting
from reviewgen.protocols.tokenizer import (
    SupportsEncodeBatch,
    SupportsTokenizerJson,
    SupportsTrainingInParts,
    Tokenizer,
)
from reviewgen.registry.plugins import find_tokenizer
from reviewgen.saving.layout import OPTIONAL_FILES, OWN_FILES, TOLERATED, files_of
from reviewgen.storage import temporary_folder
from reviewgen.testing.installed import assert_config, assert_members
from reviewgen.testing.laws import Laws, json_round_trip, run_python

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
"""Texts that have broken tokenizers; the last one contains lone surrogates, which UTF-8 cannot
encode.
"""

ENVIRONMENTS = (
    {
        "PYTHONHASHSEED": "0",
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    },
    {
        "PYTHONHASHSEED": "1",
        "RAYON_NUM_THREADS": "4",
        "OMP_NUM_THREADS": "4",
        "TOKENIZERS_PARALLELISM": "true",
    },
)
"""Environment variables that may change the order in which a tokenizer learns."""

# the law ``any_order`` trains on words that are made from these syllables, by this code
_SYLLABLES = ("ra", "be", "li", "mon", "du", "ster", "ka", "tio", "ne", "w")
_TRAIN = """
import json, pkgutil, sys
kind, texts = pkgutil.resolve_name(sys.argv[1]), json.load(sys.stdin)
tokenizer = kind.train(iter(texts), kind.Config())
print("\\n" + json.dumps([[int(i) for i in tokenizer.encode(text)] for text in texts]))
"""

TOKENIZER_LAWS = Laws(lambda make: [(make(),)])
"""All laws of a tokenizer, in the order in which to fix broken ones."""
law = TOKENIZER_LAWS.law


def make_tokenizer(name: str) -> Tokenizer:
    """Train an installed tokenizer by name on ``TRAINING_TEXTS``, with its defaults.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    kind, _ = find_tokenizer(name)
    tokenizer: Tokenizer = kind.train(TRAINING_TEXTS, kind.Config())
    return tokenizer


def check_tokenizer(make: Callable[[], Any], *, lossless: bool = False) -> None:
    """Check all laws in order, and stop at the first that the tokenizer breaks.

    Args:
        make: Returns a new tokenizer, trained on ``TRAINING_TEXTS``.
        lossless: Whether every text must decode to itself. A lone surrogate, which UTF-8 cannot
            encode, may also decode to U+FFFD. This is not a law, since a tokenizer need not have a
            byte fallback.

    Raises:
        AssertionError: A law is broken.
    """
    TOKENIZER_LAWS.check(make)
    if not lossless:
        return
    tokenizer = make()
    for text in _texts():
        decoded = tokenizer.decode(tokenizer.encode(text))
        if decoded != _SURROGATE.sub("\ufffd", text):
            _assert_kept(text, decoded)


@law()
def protocol(tokenizer: Any) -> None:
    """The tokenizer has the attributes and methods of Tokenizer."""
    assert_members(tokenizer, Tokenizer)


@law()
def config(tokenizer: Any) -> None:
    """The config is a frozen, keyword-only dataclass of JSON values, and all fields have
    defaults.
    """
    assert_config(type(tokenizer).Config)
    default = type(tokenizer).Config()
    assert json_round_trip(default) == default, "JSON changes it."


@law()
def every_text(tokenizer: Any) -> None:
    """``encode`` accepts every text, and returns a list of ints from 0 to vocab_size - 1."""
    for text in _texts():
        with asserting(f"encode({text!a:.60}):"):
            ids = tokenizer.encode(text)
            size = tokenizer.vocab_size
            is_list = isinstance(ids, list) and all(type(i) is int for i in ids)
            assert is_list and all(0 <= i < size for i in ids), (
                f"It returns a {type(ids).__name__}, {ids!r:.80}."
            )


@law()
def frame(tokenizer: Any) -> None:
    """bos and eos are two ids that decode to nothing, and that ``encode`` must not return, even for
    their names in a text.
    """
    bos = tokenizer.bos_id
    eos = tokenizer.eos_id
    assert bos != eos and {bos, eos} <= {*range(tokenizer.vocab_size)}, f"They are {bos} and {eos}."
    for text in _texts():
        ids = tokenizer.encode(text)
        assert not {bos, eos} & set(ids), f"encode({text!a:.60}) returns {ids!r:.60}."
        assert tokenizer.decode([bos, *ids, eos]) == tokenizer.decode(ids), (
            f"In the ids of {text!a:.60} they decode to text."
        )


@law()
def stable(tokenizer: Any) -> None:
    """Ids survive decoding and encoding: encode(decode(encode(text))) equals encode(text)."""
    for text in _texts():
        ids = tokenizer.encode(text)
        again = tokenizer.encode(tokenizer.decode(ids))
        assert again == ids, (
            f"{text!a:.60} encodes to {ids!r:.60}, but after decoding to {again!r:.60}."
        )


@law()
def known_text(tokenizer: Any) -> None:
    """A training text must decode to itself."""
    for text in TRAINING_TEXTS:
        _assert_kept(text, tokenizer.decode(tokenizer.encode(text)))


# A tokenizer with a byte fallback keeps characters outside its training texts. Then it must keep
# every text without surrogates. The law does not apply to other tokenizers.
@law(lambda tokenizer: tokenizer.decode(tokenizer.encode(UNSEEN)) == UNSEEN)
def unseen_text(tokenizer: Any) -> None:
    """If a character that is not in the training texts decodes to itself, every text must (except
    surrogates).
    """
    for text in _texts():
        if not _SURROGATE.search(text):
            _assert_kept(text, tokenizer.decode(tokenizer.encode(text)))


@law()
def any_ids(tokenizer: Any) -> None:
    """``decode`` returns a str for every sequence of valid ids, also with bos and eos in it."""
    rng = np.random.default_rng(0)
    for length in (0, 1, 2, 3, 50) * 20:
        ids = rng.integers(tokenizer.vocab_size, size=length).tolist()
        with asserting(f"decode({ids!r:.60}):"):
            assert isinstance(tokenizer.decode(ids), str), "It returns a different type."


@law(SupportsEncodeBatch)
def batch(tokenizer: Any) -> None:
    """SupportsEncodeBatch: encode_batch returns the ids of ``encode`` for each text."""
    for texts in [], [""], [*NASTY_TEXTS, *TRAINING_TEXTS]:
        actual = [[int(i) for i in ids] for ids in tokenizer.encode_batch(texts)]
        assert actual == [tokenizer.encode(text) for text in texts], (
            f"It returns different ids for {len(texts)} texts."
        )


@law()
def trained_again(tokenizer: Any) -> None:
    """Training twice on the same texts gives the same ids."""
    once = _train_like(tokenizer, TRAINING_TEXTS)
    again = _train_like(tokenizer, TRAINING_TEXTS)
    assert _results(again) == _results(once)


@law()
def streamed(tokenizer: Any) -> None:
    """``train`` must iterate over its texts once: an iterator gives the same ids as a list."""
    whole = _train_like(tokenizer, TRAINING_TEXTS)
    assert _results(_train_like(tokenizer, iter(TRAINING_TEXTS))) == _results(whole)


@law(lambda tokenizer: isinstance(type(tokenizer), SupportsTrainingInParts))
def in_parts(tokenizer: Any) -> None:
    """SupportsTrainingInParts: a tokenizer combined from parts gives the same ids as one trained on
    all texts.
    """
    shares = (TRAINING_TEXTS[:2], (), TRAINING_TEXTS[2:])
    tokenizers = [_train_like(tokenizer, iter(texts)) for texts in shares]
    whole = _train_like(tokenizer, TRAINING_TEXTS)
    assert _results(type(tokenizer).combine(tokenizers)) == _results(whole)


@law()
def save_load(tokenizer: Any) -> None:
    """A saved and loaded tokenizer gives the same ids and texts."""
    with _saved(tokenizer) as folder:
        assert _results(type(tokenizer).load(folder)) == _results(tokenizer)


@law(SupportsTokenizerJson)
def other_programs(tokenizer: Any) -> None:
    """SupportsTokenizerJson: the library ``tokenizers`` gives the same ids and texts."""
    from_json: Any = tokenizers.Tokenizer.from_str(tokenizer.tokenizer_json())
    assert from_json.get_vocab_size() == tokenizer.vocab_size, (
        "tokenizer.json must have as many ids as the tokenizer."
    )
    for text in _texts():
        if _SURROGATE.search(text):  # the library does not accept surrogates
            continue
        ids = tokenizer.encode(text)
        assert from_json.encode(text).ids == ids, (
            f"tokenizer.json must encode {text!a:.60} as the tokenizer does."
        )
        framed = [tokenizer.bos_id, *ids, tokenizer.eos_id]
        decoded = from_json.decode(framed, skip_special_tokens=False)
        assert decoded == tokenizer.decode(ids), (
            f"tokenizer.json must decode the ids of {text!a:.60} as the tokenizer does."
        )


@law()
def plain_data(tokenizer: Any) -> None:
    """``save`` writes JSON or text files in UTF-8, not pickles, which can run code when they are
    loaded.
    """
    with _saved(tokenizer) as folder:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files, "It writes no file."
        for path in files:
            with asserting(f"{path.name}:"):
                content = path.read_bytes()
                text = content.decode("utf-8")
                if path.suffix == ".json":
                    json.loads(text)
                else:
                    assert not _is_pickle(content), "It is a pickle."


@law()
def no_subfolders(tokenizer: Any) -> None:
    """``save`` writes plain files into the folder: no subfolders and no links."""
    with _saved(tokenizer) as folder:
        others = [
            path.name
            for path in sorted(folder.iterdir())
            if path.is_symlink() or not path.is_file()
        ]
    assert not others, f"It writes {', '.join(others)}."


@law()
def file_names(tokenizer: Any) -> None:
    """``save`` uses no name of the saved model's own files, and only names and suffixes that
    loading accepts.
    """
    with _saved(tokenizer) as folder:
        names = sorted(path.name for path in folder.iterdir())
    reserved = {name.casefold() for name in OWN_FILES | OPTIONAL_FILES | TOLERATED}
    used = [name for name in names if name.casefold() in reserved]
    assert not used, f"A saved model has {', '.join(used)} itself."
    files_of({"tokenizer": {"files": names}})  # raises for a name that loading does not accept


@law()
def own_folder(tokenizer: Any) -> None:
    """Training, encoding, saving and loading write nothing outside the folder that ``save`` is
    passed.
    """
    with temporary_folder() as root:
        parent = root.resolve() / "parent"
        work = root.resolve() / "work"
        home = root.resolve() / "home"
        target = parent / "tokenizer"
        for folder in target, work, home:
            folder.mkdir(parents=True)
        variables = {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "XDG_CACHE_HOME": str(home / ".cache"),
        }
        with mock.patch.dict(os.environ, variables), contextlib.chdir(work):
            trained = _train_like(tokenizer, iter(TRAINING_TEXTS))
            trained.decode(trained.encode("A good film."))
            trained.save(target)
            saved = {*target.rglob("*")}
            type(trained).load(target)
        assert {*target.rglob("*")} == saved, (
            "load writes into the folder that it reads, which may be read-only."
        )
        for folder, where in (
            (parent, "beside its folder"),
            (work, "into the working directory"),
            (home, "into HOME"),
        ):
            written = sorted({*folder.rglob("*")} - saved - {target})
            assert not written, f"The tokenizer writes {written[0].name} {where}."


@law(lambda tokenizer: _is_importable(type(tokenizer)))
def any_order(tokenizer: Any) -> None:
    """Training gives the same ids in any process: sort what comes from a set or from threads before
    it gets an id.
    """
    kind = type(tokenizer)
    syllables = product(_SYLLABLES, _SYLLABLES, _SYLLABLES[:3])
    texts = [f"{a}{b} {b}{a} {c}{a}." for a, b, c in syllables]
    here = _train_like(tokenizer, iter(texts))
    for environment in ENVIRONMENTS:
        settings = " ".join(f"{name}={value}" for name, value in environment.items())
        path = f"{kind.__module__}:{kind.__qualname__}"
        line = run_python(_TRAIN, path, stdin=json.dumps(texts), variables=environment)
        for text, ids in zip(texts, json.loads(line), strict=True):
            assert ids == here.encode(text), (
                f"With {settings}, {text!r:.30} encodes to {ids!r:.60}, and here differently."
            )


def _is_importable(kind: type) -> bool:
    """Return whether another process can import a class, unlike one that a notebook defines."""
    try:
        resolved = pkgutil.resolve_name(f"{kind.__module__}:{kind.__qualname__}")
    except (ImportError, AttributeError, ValueError):
        return False
    return resolved is kind and kind.__module__ != "__main__"


@functools.cache
def _texts() -> list[str]:
    """Return the texts that the laws about arbitrary text use. hypothesis generates the same texts
    each time.
    """
    # hypothesis is in the extra reviewgen[testing]; doctor imports this module without it
    from hypothesis import given, settings, strategies

    texts = [*TRAINING_TEXTS, *NASTY_TEXTS]

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(strategies.text())
    def collect(text: str) -> None:
        texts.append(text)

    collect()
    return texts


def _train_like(tokenizer: Any, texts: Any) -> Any:
    """Return a tokenizer of the same class, with its default settings, trained on texts."""
    return type(tokenizer).train(texts, type(tokenizer).Config())


@contextlib.contextmanager
def _saved(tokenizer: Any) -> Iterator[Path]:
    """Context manager that saves a tokenizer into a temporary folder, and yields the folder."""
    with temporary_folder() as folder:
        tokenizer.save(folder)
        yield folder


def _is_pickle(content: bytes) -> bool:
    """Return whether the bytes are a whole pickle; pickletools parses them without running them."""
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:  # other data may cause many kinds of errors
        return False


def _assert_kept(text: str, decoded: str) -> None:
    """Raise AssertionError unless a text was decoded to itself. The message has the position of the
    first difference.
    """
    pairs = enumerate(zip(text, decoded, strict=False))
    shorter = min(len(text), len(decoded))
    position = next((index for index, (a, b) in pairs if a != b), shorter)
    after = text[position : position + 8]
    instead = decoded[position : position + 8]
    assert decoded == text, f"{text!a:.60}: at character {position}, {after!a} becomes {instead!a}."


def _results(tokenizer: Any) -> tuple[Any, ...]:
    """Return values that are equal for equal tokenizers: the special ids, and the results of encode
    and decode.
    """
    ids = [tokenizer.encode(text) for text in (*TRAINING_TEXTS, *NASTY_TEXTS)]
    texts = [tokenizer.decode([id_]) for id_ in range(tokenizer.vocab_size)]
    return tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, ids, texts
