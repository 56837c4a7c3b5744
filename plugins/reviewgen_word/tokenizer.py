"""The tokenizer ``word``: byte-level byte-pair encoding (BPE) that never merges across words.

It uses the library ``tokenizers``. GPT-2's regular expression cuts the text into pieces: words,
numbers, punctuation and spaces. Each piece is a sequence of UTF-8 bytes. In training, the pair of
neighbours that occurs most often is merged into a new token, again and again, until the vocabulary
is full. Every byte has an id, so every text can be encoded and decoded without loss, including
case, line ends and emoji.

Sources: Sennrich, Haddow and Birch 2016, "Neural machine translation of rare words with subword
units" (the merges); Radford et al. 2019, "Language models are unsupervised multitask learners",
section 2.2 (bytes, and no merge across categories).

bos and eos are the two ids after those of the BPE. The BPE does not know them, so no text encodes
to them.

Batches of texts are encoded chunk by chunk, and the ids of chunks are cached. A chunk is white
space, if any, and the characters after it up to the next white space. This gives the same ids as
encoding the whole text, since a piece never extends over white space that follows other characters.
Must not know any model or import torch.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from reviewgen.config import MAX_VOCABULARY, Bound, PositiveInt, check, read_text
from reviewgen.errors import BundleError, DataError

FILE = "tokenizer.json"
FRAME = 2  # the number of ids that the BPE does not know: bos and eos
# max characters of a word in training: the time that it takes grows with the square of this length
MAX_WORD = 256
MAX_CHUNKS = 1 << 18  # maximum number of cached chunks, each of about 100 bytes
MAX_CHUNK = 64  # maximum number of characters of a cached chunk
_WHITE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space
# white space, if any, and the characters up to the next white space; or white space at the end
_CHUNK = re.compile(f"[{_WHITE}]*[^{_WHITE}]+|[{_WHITE}]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_RUN = re.compile(rf"\S{{{MAX_WORD + 1}}}|\s{{{MAX_WORD + 1}}}")


@dataclass(frozen=True, kw_only=True)
class WordConfig:
    """The settings of ``word``.

    Attributes:
        vocab_size: Number of token ids, with bos, eos and the 256 bytes; a small corpus may give
            fewer.
        min_frequency: How often a pair must occur to be merged. A token that occurs a few times is
            not learned well.
        sample_characters: Maximum number of characters that the merges are learned from, in texts
            evenly spread over the corpus; more would change few merges, and cost time and memory.
    """

    vocab_size: Annotated[int, Bound(at_least=FRAME + 256, at_most=1_000_000)] = 8_000
    min_frequency: PositiveInt = 2
    sample_characters: PositiveInt = 50_000_000

    def __post_init__(self) -> None:
        check(self)


class WordTokenizer:
    """Word-bounded byte-level BPE, lossless for all text that UTF-8 can encode.

    UTF-8 cannot encode a lone surrogate (half a character, which broken JSON leaves in a Python
    string). It is replaced by U+FFFD.

    >>> tokenizer = WordTokenizer.train(["a good film, a good day"] * 2, WordConfig(vocab_size=300))
    >>> tokenizer.decode(tokenizer.encode("Good film 👍"))
    'Good film 👍'
    """

    Config = WordConfig

    def __init__(self, bpe: Tokenizer) -> None:
        """Create a tokenizer from a BPE of the ``tokenizers`` library; use ``train`` or ``load``
        instead.
        """
        self._bpe = bpe
        self.bos_id = bpe.get_vocab_size()
        self.eos_id = self.bos_id + 1
        self.vocab_size = self.bos_id + FRAME
        self._chunks = _Chunks(bpe)

    @classmethod
    def train(cls, texts: Iterable[str], config: WordConfig) -> "WordTokenizer":
        """Return a tokenizer with merges learned from the texts. The texts are iterated once."""
        bpe = _untrained()
        trainer = BpeTrainer(
            vocab_size=config.vocab_size - FRAME,
            min_frequency=config.min_frequency,
            initial_alphabet=ByteLevel.alphabet(),
            show_progress=False,
        )
        sample = map(_well_formed, _thin_out(texts, config.sample_characters))
        bpe.train_from_iterator(chain.from_iterable(map(_pieces, sample)), trainer)
        return cls(bpe)

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        return self._bpe.encode(_well_formed(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Return the ids of each text, as arrays."""
        encoded = []
        for text in texts:
            chunks = map(self._chunks.__getitem__, _CHUNK.findall(_well_formed(text)))
            encoded.append(np.frombuffer(b"".join(chunks), np.uint32))
        return encoded

    def decode(self, ids: Sequence[int] | int) -> str:
        """Return the text of a sequence of ids, or of one id.

        bos and eos give no text. Invalid bytes give U+FFFD.

        Raises:
            DataError: An id is not in the vocabulary.
        """
        # transformers' streamers decode single ids
        id_list = [ids] if isinstance(ids, int) else list(map(int, ids))
        if max(id_list, default=0) >= self.vocab_size or min(id_list, default=0) < 0:
            wrong = next(id_ for id_ in id_list if not 0 <= id_ < self.vocab_size)
            raise DataError(
                f"{wrong} is not an id of this tokenizer: its ids are 0 to {self.vocab_size - 1}."
            )
        # five times as fast as decoding by the library
        return b"".join(map(self._bytes.__getitem__, id_list)).decode("utf-8", "replace")

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of each token; bos and eos, the last two ids, have none."""
        byte_of = _byte_symbols()
        tokens = map(self._bpe.id_to_token, range(self.bos_id))
        return [bytes(map(byte_of.__getitem__, token)) for token in tokens] + [b""] * FRAME

    def token_bytes(self) -> list[bytes]:
        """Return the UTF-8 bytes of each token; see ``reviewgen.protocols.SupportsTokenBytes``."""
        return self._bytes

    def tokenizer_json(self) -> str:
        """Return the tokenizer in the format of the library ``tokenizers``, with bos and eos.

        See ``reviewgen.protocols.SupportsTokenizerJson``.
        """
        content = json.loads(self._bpe.to_str())
        # no text encodes to these names: its tokens never join punctuation and letters
        names = {"<bos>": self.bos_id, "<eos>": self.eos_id}
        content["model"]["vocab"] |= names
        # steps of the decoder that give both an empty text
        removals = [
            {"type": "Replace", "pattern": {"Regex": f"^{name}$"}, "content": ""} for name in names
        ]
        content["decoder"] = {"type": "Sequence", "decoders": [*removals, content["decoder"]]}
        return json.dumps(content, ensure_ascii=False, indent=1)

    @classmethod
    def from_tokenizer_json(cls, text: str) -> "WordTokenizer":
        """Return the tokenizer that ``tokenizer_json`` was called on."""
        model = json.loads(text)["model"]
        # the tokens of the BPE in the order of their ids, without bos and eos
        names = sorted(model["vocab"], key=model["vocab"].__getitem__)[:-FRAME]
        bpe = _untrained()
        bpe.model = BPE(
            {name: id_ for id_, name in enumerate(names)}, list(map(tuple, model["merges"]))
        )
        _check_compatible(Path(FILE), bpe)
        return cls(bpe)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, in the format of the ``tokenizers`` library, into an existing
        folder.
        """
        (folder / FILE).write_text(self._bpe.to_str(pretty=True), encoding="utf-8", newline="")

    @classmethod
    def load(cls, folder: Path) -> "WordTokenizer":
        """Load a tokenizer from a folder that ``save`` wrote to.

        Raises:
            BundleError: ``tokenizer.json`` is missing or damaged, or another program wrote it.
        """
        path = folder / FILE
        try:
            bpe = Tokenizer.from_str(read_text(path, MAX_VOCABULARY))
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}. It contains the vocabulary of a word"
                " model."
            ) from error
        except Exception:  # the library raises bare Exceptions
            raise BundleError(
                f"{path} is damaged: it is not a tokenizer.json. Save or download the model again."
            ) from None
        _check_compatible(path, bpe)
        return cls(bpe)


class _Chunks(dict[str, bytes]):
    """A cache of encoded chunks: the ids of a chunk, as the bytes of uint32 numbers.

    A missing chunk is encoded when it is looked up, and cached if the cache is not full.
    """

    def __init__(self, bpe: Tokenizer) -> None:
        super().__init__()
        self._bpe = bpe

    def __missing__(self, chunk: str) -> bytes:
        ids = np.array(self._bpe.encode(chunk, add_special_tokens=False).ids, np.uint32).tobytes()
        if len(self) < MAX_CHUNKS and len(chunk) <= MAX_CHUNK:
            self[chunk] = ids
        return ids


def _thin_out(texts: Iterable[str], max_characters: int) -> list[str]:
    """Return a sample of the texts, with at most ``max_characters`` characters, but at least one
    text. The sample has all texts; if these are too many, every second one, or every fourth, and so
    on.
    """
    sample: list[str] = []
    step = 1
    characters = 0
    for number, text in enumerate(texts):
        if number % step:
            continue
        sample.append(text)
        characters += len(text)
        while characters > max_characters and len(sample) > 1:
            sample = sample[::2]  # so it has the texts whose number is a multiple of the new step
            step *= 2
            characters = sum(map(len, sample))
    return sample


def _untrained() -> Tokenizer:
    """Return an untrained BPE. It splits by GPT-2's regular expression, has no normaliser, and adds
    no space in front of a text.
    """
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = ByteLevelDecoder()
    return bpe


@lru_cache(maxsize=1)
def _byte_symbols() -> Mapping[str, int]:
    """Map each symbol of GPT-2's alphabet to the byte that it stands for.

    The symbol of a printable character is the character itself. The symbols of all other bytes are
    characters from U+0100 on.
    """
    symbols = ByteLevel.alphabet()
    printable = {symbol: ord(symbol) for symbol in symbols if ord(symbol) < 256}
    # the bytes that are not printable; in ascending order, they have the other symbols in ascending
    # order
    others = sorted(set(range(256)) - set(printable.values()))
    return printable | dict(zip(sorted(set(symbols) - set(printable)), others, strict=True))


def _well_formed(text: str) -> str:
    """Replace each surrogate of a text by U+FFFD. The library uses UTF-8, which has no
    surrogates.
    """
    try:
        text.encode("utf-8")  # faster than a search for surrogates
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def _pieces(text: str) -> list[str]:
    """Return a text as a list for the trainer: whole, or cut into parts of ``MAX_WORD`` characters.

    A text is cut if it has a run of more than ``MAX_WORD`` characters without white space, or of
    white space only: the trainer could take such a run for one word.
    """
    if _LONG_RUN.search(text) is None:
        return [text]
    return [text[start : start + MAX_WORD] for start in range(0, len(text), MAX_WORD)]


def _check_compatible(path: Path, bpe: Tokenizer) -> None:
    """Raise unless ``train`` could have made the BPE.

    It must have the settings of ``train``, and ids without gaps. Its vocabulary must have all bytes
    and only tokens made of bytes.

    Raises:
        BundleError: One of these conditions is not met.
    """
    if _settings(bpe) != _settings(_untrained()):
        raise BundleError(
            f"{path} is not the file of a word tokenizer: its settings or special tokens differ"
            " from those of reviewgen."
        )
    vocabulary = bpe.get_vocab()
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise BundleError(f"{path} is damaged: its ids are not 0 to {len(vocabulary) - 1}.")
    symbols = set(ByteLevel.alphabet())
    if not vocabulary.keys() >= symbols or not symbols.issuperset("".join(vocabulary)):
        raise BundleError(
            f"{path} is damaged: its vocabulary does not have all 256 bytes, or has tokens that are"
            " not bytes."
        )


def _settings(bpe: Tokenizer) -> dict[str, Any]:
    """Return all settings of a BPE, without its vocabulary and merges, to compare them.

    They are in the format of the installed version of the library.
    """
    settings = json.loads(bpe.to_str())
    settings["model"] |= {"vocab": {}, "merges": []}
    return settings
