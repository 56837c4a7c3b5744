"""The lexicon: the words of the training text, so that generated texts contain no others.

A word is a run of letters and the marks on them, apostrophes between letters included, as in
"don't". All other characters are separators. Known words and separators are automata over bytes;
with the bytes of each token of a tokenizer, they become what compiled code takes: a ``Spelling``.
Must not know models. No torch.

An automaton is one array of 32-bit words. A node is a word ``2 * edges + is_end``, followed by a
word ``256 * target + byte`` for each of its edges, sorted by byte; its number, and the target of an
edge, is its offset in the array. Node 0 has no edges and is where no string can be. The minimal
automaton of a set of strings is built string by string, in order (Daciuk, Mihov, Watson & Watson
2000, "Incremental construction of minimal acyclic finite-state automata", algorithm 1).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from string import ascii_letters
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32, Int64, UInt16, UInt32
from safetensors.numpy import save_file

from reviewgen.compiled.jit import compiled
from reviewgen.compiled.spelling import HALF, Spelling
from reviewgen.errors import BrokenPlugin, BundleError, quoted, storage_errors
from reviewgen.protocols.tokenizer import SupportsTokenBytes, Tokenizer
from reviewgen.storage import open_tensors, read_vectors, safetensors_file

_HEADER = "reviewgen.lexicon"
_SCHEMA = "1"
# after the schema, since the order of several entries would vary from file to file
_MIN_TEXTS = "; min_texts="
_PARTS = "words", "separators"
_MAX_WORDS = 100_000
# of the words of the training text; in a language without spaces, few runs of letters occur again
_MIN_KNOWN = 0.85
_APOSTROPHES = "'\u2019"
_JOINERS = "\u200c\u200d"  # the zero-width ones, inside words of Persian and of Indian languages
_ASCII = "".join(
    character
    for character in map(chr, range(128))
    if not character.isalpha() and character not in _APOSTROPHES
)
_SEPARATORS = {
    *_ASCII,
    *(character for character in map(chr, range(0x3001)) if character.isspace()),
}
_AS_SPACES = bytes.maketrans(_ASCII.encode(), b" " * len(_ASCII))
_FREQUENT = (" " + ascii_letters).encode()
_PART_TOKENS = 1 << 16  # about, at a time
_END = b"\xff"  # occurs in no UTF-8
# of a saved automaton: a few of them have room in one array, whose offsets take 24 bits
_MAX_NODE_WORDS = 1 << 22

_Edges: TypeAlias = Sequence[tuple[int, int]]
"""Pairs of a byte and the node that it leads to."""


@dataclass
class WordCounts:
    """The words of some texts, and what is between them.

    Attributes:
        words: How often each word occurs, as written.
        texts: In how many texts each word occurs, in lower case.
        separators: The characters that are not in words, and apostrophes.
    """

    words: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    separators: set[str] = field(default_factory=set)

    def update(self, other: "WordCounts") -> None:
        """Add what was counted in other texts."""
        self.words.update(other.words)
        self.texts.update(other.texts)
        self.separators |= other.separators


def words_of(text: str) -> list[str]:
    """Return the words of a text, in order.

    >>> words_of("Don't say 'no', say na\u00efve.")
    ["Don't", 'say', 'no', 'say', 'naïve']
    """
    signs = () if text.isascii() else set(text)
    marks = sorted(c for c in signs if c in _JOINERS or unicodedata.category(c)[0] == "M")
    return _pattern("".join(marks)).findall(text)


def count_words(texts: Sequence[str]) -> WordCounts:
    """Count the words of texts, after each of which comes a line end.

    The runs between white space and ASCII separators are found first: most are words that come
    again and again, and are split and folded once.
    """
    import pyarrow.compute  # slow to import

    array = pyarrow.array(texts, pyarrow.large_string())
    _, offsets, values = array.buffers()
    whole = b"" if values is None else values.to_pybytes()
    plain = pyarrow.LargeStringArray.from_buffers(
        len(texts), offsets, pyarrow.py_buffer(whole.translate(_AS_SPACES))
    )
    pieces = pyarrow.compute.utf8_split_whitespace(plain)
    runs = pyarrow.compute.list_flatten(pieces).dictionary_encode()
    codes = runs.indices.to_numpy()
    owners = pyarrow.compute.list_parent_indices(pieces).to_numpy()
    written = [[run] if run.isalpha() else words_of(run) for run in runs.dictionary.to_pylist()]
    words = Counter[str]()
    for run_words, times in zip(
        written, np.bincount(codes, minlength=len(written)).tolist(), strict=True
    ):
        for word in run_words:
            words[word] += times
    numbers: dict[str, int] = {}
    folded = [
        [numbers.setdefault(word.casefold(), len(numbers)) for word in run_words]
        for run_words in written
    ]
    starts = np.cumsum([0, *map(len, folded)])
    flat = np.fromiter(
        (number for run_numbers in folded for number in run_numbers), np.int64, int(starts[-1])
    )
    in_texts = _count_texts(codes, owners, starts, flat, len(numbers))
    signs = {*whole.translate(None, _FREQUENT).decode(), *(" " if b" " in whole else ""), "\n"}
    letters = set("".join(words_of(" ".join(signs - _SEPARATORS)))).difference(_APOSTROPHES)
    return WordCounts(
        words, Counter(dict(zip(numbers, in_texts.tolist(), strict=True))), signs - letters
    )


@compiled
def _count_texts(
    codes: np.ndarray, owners: np.ndarray, starts: np.ndarray, words: np.ndarray, count: int
) -> np.ndarray:
    """Return in how many texts each of ``count`` words occurs.

    Run ``codes[i]`` of text ``owners[i]`` has the words ``words[starts[code]:starts[code + 1]]``;
    texts come one after another.
    """
    texts = np.zeros(count, np.int64)
    last = np.full(count, -1, np.int64)
    for position in range(len(codes)):
        for index in range(starts[codes[position]], starts[codes[position] + 1]):
            word = words[index]
            if last[word] != owners[position]:
                last[word] = owners[position]
                texts[word] += 1
    return texts


@lru_cache(maxsize=16)
def _pattern(marks: str) -> re.Pattern[str]:
    """Return the pattern of words, which may contain these marks."""
    letter = rf"(?:[^\W\d_]|[{re.escape(marks)}])" if marks else r"[^\W\d_]"
    return re.compile(rf"{letter}+(?:[{_APOSTROPHES}]{letter}+)*")


@dataclass(frozen=True)
class Automaton:
    """An automaton over bytes.

    Attributes:
        nodes: The nodes and their edges.
        root: The node of the empty string.
    """

    nodes: UInt32[np.ndarray, " N"]
    root: int

    def edges(self, node: int) -> list[tuple[int, int]]:
        """Return pairs of a byte that may follow at a node, and the node that it leads to."""
        words = self.nodes[node + 1 : node + 1 + (int(self.nodes[node]) >> 1)].tolist()
        return [(word & 255, word >> 8) for word in words]

    def strings(self) -> Iterator[bytes]:
        """Yield the strings of an automaton without cycles, sorted."""
        waiting = [(b"", self.root)]
        while waiting:
            string, node = waiting.pop()
            if self.nodes[node] & 1:
                yield string
            waiting += [
                (string + bytes([byte]), target) for byte, target in reversed(self.edges(node))
            ]


def minimal_automaton(strings: Iterable[bytes]) -> Automaton:
    """Return the smallest automaton that accepts some strings and no others.

    >>> list(minimal_automaton([b"gas", b"mad", b"glad"]).strings())
    [b'gas', b'glad', b'mad']
    """
    nodes: dict[tuple[bool, _Edges], int] = {(False, ()): 0}
    open_ends = [False]  # of nodes along the last string; one is complete once that is known
    last = b""  # the last string
    open_edges: list[list[tuple[int, int]]] = [[]]

    def complete(depth: int) -> None:
        """Complete the nodes below a depth."""
        while len(open_ends) > depth + 1:
            node = nodes.setdefault((open_ends.pop(), tuple(open_edges.pop())), len(nodes))
            open_edges[-1].append((last[len(open_ends) - 1], node))

    for string in sorted(set(strings)):
        complete(_common_length(last, string))
        while len(open_ends) <= len(string):
            open_ends.append(False)
            open_edges.append([])
        open_ends[-1] = True
        last = string
    complete(0)
    root = nodes.setdefault((open_ends[0], tuple(open_edges[0])), len(nodes))
    return _pack(list(nodes), root)


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many values two sequences have in common at their beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next(
        (length for length, (one, other) in pairs if one != other), min(len(first), len(second))
    )


def utf8_automaton() -> Automaton:
    """Return the automaton of all valid UTF-8 (Unicode 16, table 3-7)."""
    whole, one, two, three, after_e0, after_ed, after_f0, after_f4 = range(1, 9)
    ranges = [
        [],
        [
            *(
                (0x00, 0x7F, whole),
                (0xC2, 0xDF, one),
                (0xE0, 0xE0, after_e0),
                (0xE1, 0xEC, two),
                (0xED, 0xED, after_ed),
            ),
            *(
                (0xEE, 0xEF, two),
                (0xF0, 0xF0, after_f0),
                (0xF1, 0xF3, three),
                (0xF4, 0xF4, after_f4),
            ),
        ],
        [(0x80, 0xBF, whole)],
        [(0x80, 0xBF, one)],
        [(0x80, 0xBF, two)],
        [(0xA0, 0xBF, one)],
        [(0x80, 0x9F, one)],
        [(0x90, 0xBF, two)],
        [(0x80, 0x8F, two)],
    ]
    edges = [
        [(byte, target) for low, high, target in node for byte in range(low, high + 1)]
        for node in ranges
    ]
    return _pack([(number == whole, node) for number, node in enumerate(edges)], whole)


def _join(automata: Sequence[Automaton]) -> tuple[UInt32[np.ndarray, " N"], list[int]]:
    """Return the nodes of several automata in one array, and the root of each."""
    arrays = []
    roots = []
    start = 0
    for automaton in automata:
        moved = automaton.nodes + np.uint32(256 * start)
        offsets = _node_offsets(automaton.nodes)
        moved[offsets] = automaton.nodes[offsets]
        arrays.append(moved)
        roots.append(automaton.root + start)
        start += len(moved)
    return np.concatenate(arrays), roots


def _check_nodes(nodes: UInt32[np.ndarray, " N"]) -> Automaton | None:
    """Return the automaton of nodes that come from a file, with the last one as its root; None if
    compiled code could fail on it.

    Each node comes after those that it leads to, so there are no cycles.
    """
    if not 2 <= len(nodes) < _MAX_NODE_WORDS or nodes[0]:
        return None
    offsets = np.array(_node_offsets(nodes))
    edges = (nodes[offsets] >> 1).astype(np.int64)
    if offsets[-1] + 1 + edges[-1] != len(nodes):
        return None
    words = np.delete(nodes, offsets).astype(np.int64)
    owners = np.repeat(np.arange(len(offsets)), edges)
    leads_back = np.isin(words >> 8, offsets[1:]) & (words >> 8 < offsets[owners])
    is_sorted = (np.diff(words & 255) > 0) | (np.diff(owners) > 0)
    return Automaton(nodes, int(offsets[-1])) if leads_back.all() and is_sorted.all() else None


def _node_offsets(nodes: UInt32[np.ndarray, " N"]) -> list[int]:
    """Return where the nodes of an array begin; the last one may end behind the array."""
    words = nodes.tolist()
    offsets = []
    offset = 0
    while offset < len(words):
        offsets.append(offset)
        offset += 1 + (words[offset] >> 1)
    return offsets


def _pack(nodes: Sequence[tuple[bool, _Edges]], root: int) -> Automaton:
    """Return an automaton of nodes, each whether a string may end there, and its edges."""
    offsets = np.cumsum([0, *(1 + len(edges) for _, edges in nodes)]).tolist()
    words = [
        word
        for is_end, edges in nodes
        for word in (
            2 * len(edges) + is_end,
            *(256 * offsets[target] + byte for byte, target in edges),
        )
    ]
    return Automaton(np.array(words, np.uint32), offsets[root])


@dataclass(frozen=True)
class Symbols:
    """The UTF-8 bytes of the tokens, one after another; values from 256 on are halves of a byte.

    Attributes:
        values: The bytes, (S,).
        offsets: Where those of each token begin, and where the last ones end, (V + 1,).
    """

    values: UInt16[np.ndarray, " S"]
    offsets: Int64[np.ndarray, " V1"]

    def tokens(self) -> list[tuple[int, ...]]:
        """Return the bytes of each token."""
        values = self.values.tolist()
        return [tuple(values[start:end]) for start, end in pairwise(self.offsets.tolist())]

    def sorted_tokens(self) -> tuple[Int32[np.ndarray, " V"], Int32[np.ndarray, " V"], int]:
        """Return the tokens sorted by their bytes, how many bytes each has in common with the one
        before, and the longest's.
        """
        tokens = self.tokens()
        order = sorted(range(len(tokens)), key=tokens.__getitem__)
        common = [
            0,
            *(_common_length(tokens[one], tokens[other]) for one, other in pairwise(order)),
        ]
        return np.array(order, np.int32), np.array(common, np.int32), max(map(len, tokens))


def token_symbols(tokenizer: Tokenizer) -> Symbols | None:
    """Return the bytes of each token; None if the tokenizer does not say, and some of its tokens
    are a part of a character.
    """
    if isinstance(tokenizer, SupportsTokenBytes):
        symbols = tokenizer.token_bytes()
        is_valid = len(symbols) == tokenizer.vocab_size and all(
            0 <= value < 256 + 16 for token in symbols for value in token
        )
        if not is_valid or len(symbols[tokenizer.bos_id]) or len(symbols[tokenizer.eos_id]):
            raise BrokenPlugin(
                f"{type(tokenizer).__name__}.token_bytes must return numbers below 272 for each of"
                f" {tokenizer.vocab_size} tokens, and none for bos and eos."
            )
    else:
        pieces = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        if any("\ufffd" in piece for piece in pieces):
            return None
        symbols = [piece.encode("utf-8", "replace") for piece in pieces]
    offsets = np.cumsum([0, *map(len, symbols)])
    values = np.fromiter(
        (value for token in symbols for value in token), np.uint16, int(offsets[-1])
    )
    return Symbols(values, offsets)


def decode_texts(blocks: Iterable[np.ndarray], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield encoded texts; between two of them, empty strings may come.

    Args:
        blocks: The token ids of the texts, one after another, each between bos and eos; in blocks
            of whole texts.
        tokenizer: The tokenizer that encoded them. One that does not say which bytes its tokens are
            decodes text by text.
    """
    symbols = token_symbols(tokenizer) if isinstance(tokenizer, SupportsTokenBytes) else None
    if symbols is None:
        for block in blocks:
            for ids in np.split(block, np.flatnonzero(block == tokenizer.bos_id)):
                yield tokenizer.decode(ids.tolist())
        return
    rest: list[bytes] = []  # of a text that continues in the next part
    for ids in _in_parts(blocks, symbols):
        first, *others = _decode_bytes(ids, symbols).split(_END)
        rest.append(first)
        for other in others:
            yield b"".join(rest).decode("utf-8", "replace")
            rest = [other]
    yield b"".join(rest).decode("utf-8", "replace")


def _in_parts(blocks: Iterable[np.ndarray], symbols: Symbols) -> Iterator[np.ndarray]:
    """Yield blocks of ids in parts small enough for ``_decode_bytes``; none begins with half a
    byte.
    """
    # by token
    is_half = (np.append(symbols.values, 0)[symbols.offsets[:-1]] >= HALF) & (
        np.diff(symbols.offsets) > 0
    )
    for block in blocks:
        start = 0
        while start < len(block):
            end = start + _PART_TOKENS
            while end < len(block) and is_half[block[end]]:
                end += 1
            yield block[start:end]
            start = end


def _decode_bytes(ids: np.ndarray, symbols: Symbols) -> bytes:
    """Return the bytes of token ids, with the byte ``_END`` for each token that has none: bos and
    eos.
    """
    lengths = np.diff(symbols.offsets)
    is_frame = lengths == 0
    lengths = np.where(is_frame, 1, lengths)[ids]
    starts = np.where(is_frame, len(symbols.values), symbols.offsets[:-1])[ids]
    values = np.append(symbols.values, ord(_END)).astype(np.uint16)
    ends = np.cumsum(lengths)
    decoded = values[
        np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
    ]
    halves = np.flatnonzero(decoded >= HALF)
    if len(halves):
        first = halves[::2]
        second = halves[1::2]
        decoded[first[: len(second)]] = (
            16 * (decoded[first[: len(second)]] - HALF) + decoded[second] - HALF
        )
        decoded = np.delete(decoded, np.concatenate((second, first[len(second) :])))
    encoded: bytes = decoded.astype(np.uint8).tobytes()
    return encoded


@dataclass(frozen=True)
class Lexicon:
    """The words that occur in several training texts, and the characters between them.

    Attributes:
        words: An automaton of the words, in UTF-8; a closing apostrophe may follow each of them.
        separators: An automaton of the separators.
        min_texts: In how many training texts each word occurs, at least; 0 if unknown, as in older
            lexicons.
    """

    words: Automaton
    separators: Automaton
    min_texts: int = 0

    @classmethod
    def of(cls, words: Iterable[str], separators: Iterable[str], min_texts: int = 0) -> "Lexicon":
        """Return the lexicon of some words and separators."""
        known = frozenset(words)
        automata = (
            minimal_automaton([b"", *_with_quotes(known)]),
            minimal_automaton(map(str.encode, separators)),
        )
        lexicon = cls(*automata, min_texts)
        # the cached property: otherwise it is read from the automaton
        vars(lexicon)["_known"] = known
        return lexicon

    def __contains__(self, word: str) -> bool:
        """Return whether a word is known, as it is written or in lower case."""
        return word in self._known or word.lower() in self._known

    def spells(self, word: str) -> bool:
        """Return whether a word is known as it is written."""
        return word in self._known

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __or__(self, other: "Lexicon") -> "Lexicon":
        """Return the lexicon of the words of both."""
        if all(
            np.array_equal(getattr(self, part).nodes, getattr(other, part).nodes) for part in _PARTS
        ):
            return min(self, other, key=lambda lexicon: lexicon.min_texts)
        return Lexicon.of(
            {*self, *other}, self.between | other.between, min(self.min_texts, other.min_texts)
        )

    @property
    def between(self) -> set[str]:
        """The separators."""
        return {separator.decode("utf-8", "replace") for separator in self.separators.strings()}

    @cached_property
    def _known(self) -> frozenset[str]:
        quotes = tuple(_APOSTROPHES)
        words = (word.decode("utf-8", "replace") for word in self.words.strings())
        return frozenset(word for word in words if word and not word.endswith(quotes))


def _with_quotes(words: Iterable[str]) -> list[bytes]:
    """Return words in UTF-8, each also with a closing apostrophe."""
    return [word.encode() + quote.encode() for word in words for quote in ("", *_APOSTROPHES)]


def add_words(spelling: Spelling, words: Iterable[str]) -> Spelling:
    """Return a spelling that also knows some words, such as those that a text is about.

    The nodes along the new words are copies behind the others; all other nodes stay where they are.
    """
    known = Automaton(spelling.nodes, spelling.words)
    added = list[int]()

    def extend(node: int, strings: Collection[bytes]) -> int:
        """Return the place of a copy of a node that also leads to some strings."""
        edges = dict(known.edges(node))
        for byte in {string[0] for string in strings if string}:
            edges[byte] = extend(
                edges.get(byte, 0),
                {string[1:] for string in strings if string[:1] == bytes([byte])},
            )
        place = len(known.nodes) + len(added)
        added.append(2 * len(edges) + (b"" in strings or bool(known.nodes[node] & 1)))
        added.extend(256 * target + byte for byte, target in sorted(edges.items()))
        return place

    root = extend(known.root, {b"", *_with_quotes(words)})
    nodes = np.concatenate((known.nodes, np.array(added, np.uint32)))
    first = spelling.first.copy()
    for byte, target in Automaton(nodes, root).edges(root):
        first[1, byte] = target
    return spelling._replace(nodes=nodes, words=root, first=first)


def build_lexicon(
    counts: WordCounts, min_texts: int = 2, before: Lexicon | None = None
) -> Lexicon | None:
    """Return the lexicon of a training text; None if few of its words occur again, as in a language
    without spaces.

    Args:
        counts: The words of the text.
        min_texts: In how many texts a word occurs, at least, so that words that occur in one text
            only, such as names, are not generated. Of a single text, as a book, a word occurs this
            often.
        before: The lexicon of a model that is trained further, whose words stay known.
    """
    folded: Counter[str] = Counter()
    for word, count in counts.words.items():
        folded[word.casefold()] += count
    again = sum(
        count
        for word, count in folded.items()
        if count > 1 or (before is not None and word in before)
    )
    if not folded or again < _MIN_KNOWN * folded.total():
        return None
    lexicon = Lexicon.of(_known_words(counts, folded, min_texts), counts.separators, min_texts)
    return lexicon if before is None else before | lexicon


def _known_words(counts: WordCounts, folded: Counter[str], min_texts: int) -> set[str]:
    """Return the words that occur in enough texts, each as it is written, and with a capital at the
    beginning of a sentence.

    Upper and lower case count together, as in ``folded``. Of too many, the most frequent ones.
    """
    texts = counts.texts if max(counts.texts.values(), default=0) > 1 else folded
    frequent = {word for word, _ in folded.most_common(_MAX_WORDS) if texts[word] >= min_texts}
    known = {word for word in counts.words if word.casefold() in frequent}
    return known | {word[0].upper() + word[1:] for word in known if word.islower()}


def write_lexicon(lexicon: Lexicon, file: Path) -> None:
    """Write a lexicon; an existing file is replaced.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    with storage_errors(file), safetensors_file(file):
        header = f"{_SCHEMA}{_MIN_TEXTS}{lexicon.min_texts}" if lexicon.min_texts else _SCHEMA
        save_file(
            {part: getattr(lexicon, part).nodes for part in _PARTS},
            file,
            metadata={_HEADER: header},
        )


def read_lexicon(file: Path) -> Lexicon:
    """Read a lexicon.

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
        words, separators = map(
            _check_nodes, read_vectors(tensors, dict.fromkeys(_PARTS, ("uint32",))).values()
        )
        if words is None or separators is None:
            raise BundleError("is damaged: its words or separators are not an automaton.")
        return Lexicon(words, separators, int(min_texts) if min_texts.isdecimal() else 0)


def joined_automata(lexicon: Lexicon | None) -> tuple[UInt32[np.ndarray, " N"], list[int], int]:
    """Return the automata of UTF-8 and of a lexicon: their nodes in one array, the roots, and where
    the lexicon's begin.
    """
    valid = utf8_automaton()
    nodes, roots = _join([valid] if lexicon is None else [valid, lexicon.words, lexicon.separators])
    return nodes, roots, len(valid.nodes)


def make_spelling(symbols: Symbols, lexicon: Lexicon | None = None) -> Spelling:
    """Return the automaton that lets a token only continue or end a known word; without a lexicon,
    any valid UTF-8.
    """
    nodes, roots, known = joined_automata(lexicon)
    anything, words, separators = (roots[0], roots[0], 0) if lexicon is None else roots
    first = np.zeros((3, 256), np.int32)
    for row, root in zip(first, (anything, words, separators), strict=True):
        for byte, target in Automaton(nodes, root).edges(root):
            row[byte] = target
    pieces = (symbols.values, symbols.offsets, *symbols.sorted_tokens())
    return Spelling(nodes, anything, known, words, separators, first, *pieces)
