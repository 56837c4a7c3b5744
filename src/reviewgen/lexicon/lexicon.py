"""The known words of a training text and the characters between them. Together with the bytes of
the tokens, they become the ``Spelling`` that compiled code takes.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt32
from safetensors.numpy import save_file

from reviewgen.compiled.spelling import Spelling
from reviewgen.errors import BundleError, quoted, storage_errors
from reviewgen.lexicon.automata import (
    Automaton,
    checked_automaton,
    join,
    minimal_automaton,
    utf8_automaton,
)
from reviewgen.lexicon.token_bytes import Symbols
from reviewgen.lexicon.words import APOSTROPHES, WordCounts
from reviewgen.storage import open_tensors, read_vectors, safetensors_file

_HEADER = "reviewgen.lexicon"
_SCHEMA = "1"
# In the file's metadata, the entry is "1; min_texts=2", for example. It is a single entry because
# the order of two entries would vary from file to file.
_MIN_TEXTS = "; min_texts="
_AUTOMATA = ("words", "separators")
_MAX_WORDS = 100_000
# Min share of the words of a training text, counted with repetitions, that occur more than once. In
# a language without spaces, where a "word" is a run of letters, few do.
_MIN_KNOWN = 0.85


@dataclass(frozen=True)
class Lexicon:
    """The words that occur in several training texts, and the characters between them.

    Attributes:
        words: An automaton of the words, in UTF-8. A closing apostrophe may follow each word.
        separators: An automaton of the separators, the characters between words.
        min_texts: The minimum number of training texts in which each word occurs; 0 if unknown, as
            in older lexicons.
    """

    words: Automaton
    separators: Automaton
    min_texts: int = 0

    @classmethod
    def of(cls, words: Iterable[str], separators: Iterable[str], min_texts: int = 0) -> "Lexicon":
        """Return the lexicon of some words and separators."""
        known = frozenset(words)
        lexicon = cls(
            # with the empty word, since separators may follow one another
            minimal_automaton([b"", *_with_quotes(known)]),
            minimal_automaton(map(str.encode, separators)),
            min_texts,
        )
        # the value of the cached property _known, which would otherwise be computed again
        vars(lexicon)["_known"] = known
        return lexicon

    def __contains__(self, word: str) -> bool:
        """Return whether a word is known, either as it is written or in lower case."""
        return word in self._known or word.lower() in self._known

    def spells(self, word: str) -> bool:
        """Return whether a word is known exactly as it is written."""
        return word in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __or__(self, other: "Lexicon") -> "Lexicon":
        """Return a lexicon with the words and separators of both."""
        pairs = (self.words, other.words), (self.separators, other.separators)
        # if both have the same words and separators, no new automata are needed
        if all(np.array_equal(own.nodes, others.nodes) for own, others in pairs):
            return min(self, other, key=lambda lexicon: lexicon.min_texts)
        min_texts = min(self.min_texts, other.min_texts)
        return Lexicon.of({*self, *other}, self.between | other.between, min_texts)

    @property
    def between(self) -> set[str]:
        """The separators, as characters."""
        return {separator.decode("utf-8", "replace") for separator in self.separators.strings()}

    @cached_property
    def _known(self) -> frozenset[str]:
        """The words, without the apostrophes that may follow them."""
        quotes = tuple(APOSTROPHES)
        words = (word.decode("utf-8", "replace") for word in self.words.strings())
        return frozenset(word for word in words if word and not word.endswith(quotes))


def _with_quotes(words: Collection[str]) -> list[bytes]:
    """Return each word in UTF-8 three times: alone, and with each of the closing apostrophes."""
    strings = list[bytes]()
    for quote in ("", *APOSTROPHES):
        strings += [(word + quote).encode() for word in words]
    return strings


def add_words(spelling: Spelling, words: Collection[str]) -> Spelling:
    """Return a spelling that also knows some other words, such as words that a text is about.

    The nodes on the paths of the new words are copied behind the existing nodes. All other nodes
    stay where they are.
    """
    known = Automaton(spelling.nodes, spelling.words)
    added = list[int]()

    def extend(node: int, strings: Collection[bytes]) -> int:
        """Copy a node with edges to further nodes, so that some strings are accepted from it, too.
        Return the offset of the copy.
        """
        edges = dict(known.edges(node))
        for byte in {string[0] for string in strings if string}:
            rests = {string[1:] for string in strings if string[:1] == bytes([byte])}
            edges[byte] = extend(edges.get(byte, 0), rests)
        offset = len(known.nodes) + len(added)
        is_end = b"" in strings or bool(known.nodes[node] & 1)
        added.append(2 * len(edges) + is_end)
        added.extend(256 * target + byte for byte, target in sorted(edges.items()))
        return offset

    root = extend(known.root, {b"", *_with_quotes(words)})
    nodes = np.concatenate((known.nodes, np.array(added, np.uint32)))
    first = spelling.first.copy()
    first[1] = Automaton(nodes, root).targets()  # row 1 is that of the known words
    return spelling._replace(nodes=nodes, words=root, first=first)


def add_signs(spelling: Spelling) -> Spelling:
    """Return a spelling in which every ASCII character that is not a letter separates words."""
    first = spelling.first.copy()
    # row 2 is that of the separators; the new ones lead to a node that is an end and has no edges
    signs = [byte for byte in range(32, 127) if not chr(byte).isalpha() and not first[2, byte]]
    first[2, signs] = len(spelling.nodes)
    return spelling._replace(nodes=np.append(spelling.nodes, np.uint32(1)), first=first)


def build_lexicon(
    counts: WordCounts, min_texts: int = 2, before: Lexicon | None = None
) -> Lexicon | None:
    """Return the lexicon of a training text, or None if too few of its words occur again, as in a
    language without spaces.

    Args:
        counts: The words of the text.
        min_texts: The minimum number of texts in which a word must occur. With the default, words
            that occur in one text only, such as names, are not generated. If the training text is a
            single text, such as a book, a word must occur this often in it.
        before: The lexicon of a model that is trained further; its words stay known.
    """
    folded: Counter[str] = Counter()
    for word, count in counts.words.items():
        folded[word.casefold()] += count
    known = before or ()
    recurring = sum(count for word, count in folded.items() if count > 1 or word in known)
    if not folded or recurring < _MIN_KNOWN * folded.total():
        return None
    lexicon = Lexicon.of(_known_words(counts, folded, min_texts), counts.separators, min_texts)
    return lexicon if before is None else before | lexicon


def _known_words(counts: WordCounts, folded: Counter[str], min_texts: int) -> set[str]:
    """Return the words that occur in enough texts, as they are written. A word in lower case is
    also added with a capital letter, as at the beginning of a sentence.

    Args:
        counts: The words of the training text.
        folded: How often each word occurs, in upper and lower case together. Only the
            ``_MAX_WORDS`` most frequent of these can be returned.
        min_texts: See ``build_lexicon``.
    """
    # if the training text is a single text, the occurrences in it are compared with ``min_texts``
    texts = counts.texts if max(counts.texts.values(), default=0) > 1 else folded
    frequent = {word for word, _ in folded.most_common(_MAX_WORDS) if texts[word] >= min_texts}
    known = {word for word in counts.words if word.casefold() in frequent}
    return known | {word[0].upper() + word[1:] for word in known if word.islower()}


def write_lexicon(lexicon: Lexicon, file: Path) -> None:
    """Write a lexicon to a file. An existing file is replaced.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    with storage_errors(file), safetensors_file(file):
        header = f"{_SCHEMA}{_MIN_TEXTS}{lexicon.min_texts}" if lexicon.min_texts else _SCHEMA
        save_file(
            {name: getattr(lexicon, name).nodes for name in _AUTOMATA},
            file,
            metadata={_HEADER: header},
        )


def read_lexicon(file: Path) -> Lexicon:
    """Read a lexicon from a file.

    Raises:
        BundleError: The file is missing, damaged, not a lexicon, or of an unknown schema.
    """
    with open_tensors(file, "lexicon") as tensors:
        schema, _, min_texts = (tensors.metadata() or {}).get(_HEADER, "").partition(_MIN_TEXTS)
        if schema != _SCHEMA:
            raise BundleError(
                f"has the schema {quoted(schema)}; this version of reviewgen reads schema"
                f" {_SCHEMA}."
            )
        arrays = read_vectors(tensors, dict.fromkeys(_AUTOMATA, ("uint32",)))
        words, separators = map(checked_automaton, arrays.values())
        if words is None or separators is None:
            raise BundleError("is damaged: its words or separators are not an automaton.")
        return Lexicon(words, separators, int(min_texts) if min_texts.isdecimal() else 0)


def joined_automata(lexicon: Lexicon | None) -> tuple[UInt32[np.ndarray, " N"], list[int], int]:
    """Put the automata of valid UTF-8 and of a lexicon into one array. Return the array; the roots
    of the automata of valid UTF-8, words and separators (the latter two only with a lexicon); and
    the offset at which the nodes of the lexicon begin.
    """
    valid = utf8_automaton()
    of_lexicon = [] if lexicon is None else [lexicon.words, lexicon.separators]
    nodes, roots = join([valid, *of_lexicon])
    return nodes, roots, len(valid.nodes)


def make_spelling(symbols: Symbols, lexicon: Lexicon | None = None) -> Spelling:
    """Return the automaton that lets a token follow only if it continues or ends a known word.
    Without a lexicon, it allows any valid UTF-8.
    """
    nodes, roots, lexicon_start = joined_automata(lexicon)
    if lexicon is None:  # any valid UTF-8 counts as a word, and there are no separators
        roots = [roots[0], roots[0], 0]
    anything, words, separators = roots
    first = np.stack([Automaton(nodes, root).targets() for root in roots])
    tokens = (symbols.values, symbols.offsets, *symbols.sorted_tokens())
    # no format: no states, and so no distances
    rules = np.zeros((0, 0), np.int32), np.zeros(0, np.int64)
    return Spelling(nodes, anything, lexicon_start, words, separators, first, *tokens, *rules)
