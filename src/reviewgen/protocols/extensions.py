"""The contracts of logits processors, metrics and readers of files, which extend generation,
training and reading. Imports no torch, although a logits processor gets torch tensors.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.sentences import sentence_ends

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from jaxtyping import Bool, Int32
    from torch import Tensor

Records: TypeAlias = "pyarrow.RecordBatch | Sequence[Mapping[str, Any]]"
"""Some records: an Arrow batch, or a list of mappings of column to value."""


@runtime_checkable
class LogitsProcessor(Protocol):
    """Changes the scores of the next token of one text. It has the signature of the logits
    processors of transformers.

    It is called at every token of every text. Its result must depend on its two arguments only, so
    that a text is the same whether it is generated alone or with others. Processors of transformers
    that depend on nothing else can be used, such as ``SuppressTokensLogitsProcessor``.
    """

    def __call__(self, ids: "Tensor", scores: "Tensor") -> "Tensor":
        """Return the scores (1, V) of the next token.

        Args:
            ids: All tokens so far (1, T), int64: bos, the ids of conditions, then the text with its
                prompt. They must not be changed.
            scores: Logits (1, V), float32, after the penalties, before temperature and filters.
                They may be changed in place. V is at least the tokenizer's vocab_size. Ids from
                vocab_size on stand for conditions, and are never sampled.

        Returns:
            Scores of the same shape. -inf rules a token out. NaN and plus infinity are errors, and
            so is ruling out every token.
        """
        ...


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """What a text must look like, as an automaton over tokens. Instead of a function, a
    ``LogitsProcessorFactory`` may return one.

    It is a format like ``include``: texts are steered so that they fit, each ends where it may end,
    and a text that cannot fit has a ``problem``. The states are numbered from 0. State 0 is that of
    a text that cannot fit any more, state 1 that of a text that fits whatever follows, and a text
    begins in state 2. The prompt is read, too.

    S states, V vocabulary.

    Attributes:
        next: int32 (S, V), the state after each token in each state.
        is_end: bool (S,), whether a text may end in each state.
    """

    next: "Int32[np.ndarray, 'S V']"
    is_end: "Bool[np.ndarray, ' S']"


@runtime_checkable
class LogitsProcessorFactory(Protocol):
    """Makes a logits processor, or a ``TokenAutomaton``, for a tokenizer. Each entry point in the
    group ``reviewgen.logits_processors`` names such a factory.

    It is a function, or a class whose constructor takes the tokenizer. It is called once for each
    call of ``generate``::

        class NoDigits:
            def __init__(self, tokenizer):
                texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
                digits = [any(map(str.isdigit, text)) for text in texts]
                self.banned = [token for token, is_number in enumerate(digits) if is_number]

            def __call__(self, ids, scores):
                scores[:, self.banned] = float("-inf")
                return scores
    """

    def __call__(self, tokenizer: Tokenizer) -> LogitsProcessor | TokenAutomaton:
        """Return a processor or an automaton for texts of a tokenizer."""
        ...


@dataclass(frozen=True)
class TextSample:
    """Some texts and their words, with the counts that metrics share. Words are compared in lower
    case (``str.casefold``).

    Sources: Li et al. 2016, "A diversity-promoting objective function for neural conversation
    models" (distinct-n); Welleck et al. 2020, "Neural text generation with unlikelihood training"
    (repetition within a text).

    Attributes:
        texts: The texts.
        words: The words of each text, as they are written: runs of letters, apostrophes between
            letters included.
        training_words: The set of words in the first 200 million characters of the training text,
            in lower case. If the training continues from a trained model, the words that this model
            knows are in the set, too.
    """

    texts: Sequence[str]
    words: Sequence[Sequence[str]]
    training_words: Set[str] = frozenset()

    def ngrams(self, n: int) -> list[list[tuple[str, ...]]]:
        """Return the n-grams of the words of each text, in lower case and in order."""
        return [
            [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
            for words in self._folded
        ]

    def distinct(self, n: int) -> float:
        """Return the number of different n-grams divided by the number of all n-grams; 0 if there
        are none. The value falls as the number of words grows.
        """
        ngrams = list(chain.from_iterable(self.ngrams(n)))
        return len(set(ngrams)) / max(1, len(ngrams))

    def repetition(self, n: int) -> float:
        """Return the share of a text's n-grams that have occurred before in the same text, averaged
        over the texts that have n-grams; 0 if no text has any.
        """
        shares = [1 - len(set(ngrams)) / len(ngrams) for ngrams in self.ngrams(n) if ngrams]
        return fmean(shares) if shares else 0.0

    def repeated_sentences(self) -> float:
        """Return the share of texts in which a sentence of three words or more occurs twice,
        ignoring case.
        """
        count = 0
        for text in self.texts:
            bounds = pairwise([0, *sentence_ends(text), len(text)])
            pieces = [text[start:end].strip().casefold() for start, end in bounds]
            sentences = [piece for piece in pieces if len(piece.split()) > 2]
            if len(set(sentences)) < len(sentences):
                count += 1
        return count / max(1, len(self.texts))

    @cached_property
    def _folded(self) -> list[list[str]]:
        """The words of each text in lower case."""
        return [[word.casefold() for word in words] for words in self.words]


@runtime_checkable
class Metric(Protocol):
    """A number that is measured on texts. An entry point in the group ``reviewgen.metrics`` names
    an object with these members, not a class.

    It is called at each evaluation of a training, with texts that the model has generated. After
    the training, it is called with generated texts and, for comparison, with as many held-out
    texts. The result must depend on the sample only, not on the order of the texts. If a metric
    raises, or returns something other than a finite number, its value is shown as missing, and the
    training goes on::

        class WordLength:
            unit = "characters"
            lower_is_better = None

            def __call__(self, sample):
                words = [word for row in sample.words for word in row]
                return sum(map(len, words)) / max(1, len(words))

        WORD_LENGTH = WordLength()  # the entry point: word-length = "my_package:WORD_LENGTH"
    """

    @property
    def unit(self) -> str:
        """The unit of the number, as plots show it: "share", "characters", "words per text"."""
        ...

    @property
    def lower_is_better(self) -> bool | None:
        """True if a lower number is better, False if a higher one is. None if the number should be
        close to that of human texts.
        """
        ...

    def __call__(self, sample: TextSample) -> float:
        """Return the number."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A function that reads the records of a file or a URL. It is an entry point in the group
    ``reviewgen.readers``.

    The name of the entry point is the suffix of the files, without its dot, or the scheme of the
    URLs: ``mbox`` reads ``a.mbox`` and ``mbox://...``. Any column of strings can be the text; other
    columns may become conditions. Each call must yield the same records. They are yielded in
    batches, so that a large file is never loaded as a whole::

        def read(source):
            for message in mailbox.mbox(source, create=False):
                yield [{"text": message.get_payload(), "subject": message["subject"]}]

    If the reader raises an error, users see it in one sentence with the name of the file.
    """

    def __call__(self, source: str) -> Iterable[Records]:
        """Yield the records of a file, given its path, or of a URL."""
        ...
