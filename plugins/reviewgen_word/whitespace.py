"""The tokenizer ``whitespace``: one id per word, and words are what stands between white space, as
for KenLM. It is the tokenizer of models that are read from ARPA files.

A space between two words has no id. Other white space has an id if the training text has it, as at
a line end; otherwise it counts as a space. So training text is encoded without loss. A word that is
not in the vocabulary becomes ``<unk>``, whose text is lost. Must not know any model or import
torch.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reviewgen.config import MAX_VOCABULARY, PositiveInt, check, read_json
from reviewgen.errors import BundleError, DataError

FILE = "words.json"
SPECIAL = ("<s>", "</s>", "<unk>")
_SPACE = " \t\n\v\f\r"  # the white space of KenLM
_PARTS = re.compile(f"[{_SPACE}]+|[^{_SPACE}]+")


@dataclass(frozen=True, kw_only=True)
class WhitespaceConfig:
    """The settings of ``whitespace``.

    Attributes:
        min_frequency: How often a word must occur in the training text to get an id.
    """

    min_frequency: PositiveInt = 1

    def __post_init__(self) -> None:
        check(self)


class WhitespaceTokenizer:
    """One id per word; other words are ``<unk>``.

    >>> tokenizer = WhitespaceTokenizer(["<s>", "</s>", "<unk>", "a", "film"])
    >>> tokenizer.encode("a good film")
    [3, 2, 4]
    >>> tokenizer.decode([0, 3, 4, 1])
    'a film'
    """

    Config = WhitespaceConfig

    def __init__(self, words: Sequence[str]) -> None:
        """Create a tokenizer with a vocabulary.

        ``words`` are distinct, and have those of ``SPECIAL``.
        """
        self.words = list(words)
        self.vocab_size = len(words)
        self._ids = {word: id_ for id_, word in enumerate(words)}
        self.unknown_id = self._ids["<unk>"]
        # no text encodes to bos and eos
        self.bos_id = self._ids.pop("<s>")
        self.eos_id = self._ids.pop("</s>")

    @classmethod
    def train(cls, texts: Iterable[str], config: WhitespaceConfig) -> "WhitespaceTokenizer":
        """Return a tokenizer with the words of the texts. The texts are iterated once."""
        counts: Counter[str] = Counter()
        for text in texts:
            # a surrogate, which UTF-8 cannot encode, becomes a question mark
            counts.update(_parts(text.encode("utf-8", "replace").decode()))
        kept = (word for word, count in counts.items() if count >= config.min_frequency)
        return cls([*SPECIAL, *sorted({*kept} - {*SPECIAL})])

    def encode(self, text: str) -> list[int]:
        """Return the ids of any text."""
        ids = []
        for part in _parts(text):
            id_ = self._ids.get(part)
            if id_ is not None:
                ids.append(id_)
            # white space without an id is dropped, since decoding puts a space between two words
            elif part[0] not in _SPACE:
                ids.append(self.unknown_id)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of any ids; bos and eos give no text.

        Raises:
            DataError: An id is not in the vocabulary.
        """
        text = ""
        for id_ in ids:
            if not 0 <= id_ < self.vocab_size:
                raise DataError(
                    f"{id_} is not an id of this tokenizer: its ids are 0 to {self.vocab_size - 1}."
                )
            if id_ in (self.bos_id, self.eos_id):
                continue
            word = self.words[id_]
            follows_word = text and text[-1] not in _SPACE and word[0] not in _SPACE
            text += f" {word}" if follows_word else word
        return text

    def save(self, folder: Path) -> None:
        """Write ``words.json`` into an existing folder."""
        content = json.dumps({"words": self.words}, ensure_ascii=False)
        (folder / FILE).write_text(content, encoding="utf-8", newline="")

    @classmethod
    def load(cls, folder: Path) -> "WhitespaceTokenizer":
        """Load a tokenizer from a folder that ``save`` wrote to.

        Raises:
            BundleError: ``words.json`` is missing or damaged.
        """
        path = folder / FILE
        try:
            words = read_json(path, MAX_VOCABULARY)["words"]
            is_valid = all(isinstance(word, str) and _PARTS.fullmatch(word) for word in words)
            is_valid = is_valid and len({*words}) == len(words) and {*SPECIAL} <= {*words}
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read: {error.strerror}. It contains the vocabulary of a"
                " whitespace model."
            ) from error
        except (ValueError, LookupError, TypeError):
            is_valid = False
        if not is_valid:
            raise BundleError(
                f"{path} is damaged: it should have the key words, a list of distinct words with"
                f" {', '.join(SPECIAL)}. Save or download the model again."
            )
        return cls(words)


def _parts(text: str) -> list[str]:
    """Cut a text into words and white space, without single spaces between two words."""
    parts = _PARTS.findall(text)
    last = len(parts) - 1
    return [part for index, part in enumerate(parts) if part != " " or index in (0, last)]
