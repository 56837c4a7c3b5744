"""Generator: texts of one model, many at once, as a stream, or such that they include some words;
and the objects that are returned.

Holds what every call needs of a model: its stepper, its tokenizer, the texts of its tokens and the
index of its training text. The function that scores a text, which only ``must_include`` and
``log_probabilities`` need, is passed in.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import groupby, islice
from typing import Any

import numpy as np

from reviewgen.errors import DataError, GenerationError
from reviewgen.generation.beams import search
from reviewgen.generation.decode import Decoder
from reviewgen.generation.detokenizer import Detokenizer
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.request import Request
from reviewgen.generation.text import Text
from reviewgen.novelty import COPY_CHARACTERS, CopyGuard, Index, Novelty
from reviewgen.protocols.stepper import Stepper
from reviewgen.protocols.tokenizer import Tokenizer

_logger = logging.getLogger("reviewgen")

DEVICE_ROWS = 512
"""The texts that are generated side by side on an accelerator."""

_CPU_ROWS = 64
_MAX_TRIES = 128  # texts that are generated for one that must include something
_TRIES_PER_BATCH = 16  # of these texts, those that are generated side by side
_STREAM_BLOCK_SECONDS = 0.02  # between two pieces of a text that is streamed


class GeneratedText(str):
    """A generated text, with the copied spans in it.

    Attributes:
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no
            other token was left.
    """

    exceeds_max_copy: bool
    _examine: Callable[[], Novelty]

    def __new__(
        cls, text: str, exceeds_max_copy: bool, examine: Callable[[], Novelty]
    ) -> "GeneratedText":
        """Return a text; ``examine`` finds out which of its parts were copied."""
        self = super().__new__(cls, text)
        self.exceeds_max_copy = exceeds_max_copy
        self._examine = examine
        return self

    @cached_property
    def novelty(self) -> Novelty:
        """What the text shares with the training text; computed on first use."""
        return self._examine()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copy and pickle as a plain string: the index of the training text does not travel with a
        text.
        """
        return str, (str(self),)


@dataclass
class Generation:
    """A generated text and everything known about it.

    Attributes:
        text: The text, the prompt included.
        prompt: The prompt.
        tokens: The ids of the text, those of the prompt included.
        new_tokens: How many of them are new.
        finish_reason: "end" (the model ended the review), "length" (``max_new_tokens``), "stop" (a
            stop string), "time" (``max_time``), "criteria" (``stopping_criteria``) or "stuck"
            (every token was ruled out).
        seed: The seed of the call, a random one where none was given.
        number: The number of the text in the call, from 0: seed and number reproduce the text.
        seconds: From the start of its batch until it was complete.
        exceeds_max_copy: Whether it contains a longer copied span than was allowed, because no
            other token was left.
        conditions: The values of its conditions, given or drawn, without those that are
            unspecified.
        request: The call, checked.
    """

    text: str
    prompt: str
    tokens: list[int]
    new_tokens: int
    finish_reason: str
    seed: int
    number: int
    seconds: float
    exceeds_max_copy: bool
    conditions: dict[str, Any]
    request: Request = field(repr=False, compare=False)
    _examine: Callable[[], Novelty | None] = field(repr=False, compare=False)
    _score: Callable[[], list[float]] = field(repr=False, compare=False)

    @cached_property
    def novelty(self) -> Novelty | None:
        """What the text shares with the training text; None if the model has no index. Computed on
        first use.
        """
        return self._examine()

    @cached_property
    def log_probabilities(self) -> list[float]:
        """The model's log probability (nats) of each of ``tokens``, and of the end if the text
        ended by itself.

        They are the model's own, before temperature, filters and penalties; computed on first use.
        """
        return self._score()

    def to_dict(self) -> dict[str, Any]:
        """Return what is known without further computation, as JSON values."""
        names = "text prompt new_tokens finish_reason seed number exceeds_max_copy conditions"
        values = {name: getattr(self, name) for name in names.split()}
        return values | {"seconds": round(self.seconds, 4)}


class Generator:
    """Generates texts with one model.

    Args:
        stepper: Predicts the next token.
        tokenizer: The model's tokenizer.
        pieces: The texts of its tokens, and the words that texts are made of; by default without
            known words.
        index: The index of the training text, for ``novelty``.
        score: Returns the model's log probability (nats) of each of some ids after the first n:
            ``score(ids, n)``.
        batch_size: How many texts to generate side by side.
    """

    def __init__(
        self,
        stepper: Stepper,
        tokenizer: Tokenizer,
        *,
        pieces: TokenTexts | None = None,
        index: Index | None = None,
        score: Callable[[list[int], int], list[float]] | None = None,
        batch_size: int = _CPU_ROWS,
    ) -> None:
        self.stepper = stepper
        self.tokenizer = tokenizer
        self.index = index
        self.batch_size = batch_size
        self.pieces = pieces or TokenTexts(tokenizer)
        self._score = score

    def generate(self, request: Request, first: int = 0, start_late: bool = True) -> Iterator[Text]:
        """Return the finished texts of a call, in order and each as soon as it can be.

        Text i samples from the random stream of (seed, i). What is wrong with the call is raised
        before anything is generated.

        Args:
            request: The call.
            first: The number of the first text to generate.
            start_late: Whether texts that would start after ``max_time`` are returned without new
                tokens, instead of left out.

        Raises:
            DataError: ``novelty`` is given and the model has no index of its training text, or
                ``words="known"`` and it has no lexicon.
            GenerationError: No token can be sampled, or no try includes what must be included.
        """
        guard = self.guard(request)
        self.pieces.spelling(request.config.words)  # raised before anything is generated
        if request.config.num_beams > 1:  # the texts of a prompt are found together
            return islice(self._search(request), first, None)
        if request.best_of:
            return islice(self._choose(request, guard, start_late), first, None)
        if request.must_include:
            return self._generate_including(request, guard, first)
        return self._generate_batches(request, guard, first, start_late)

    def stream(self, request: Request) -> Iterator[str]:
        """Return the pieces of the one text of a call as they are generated, prompt first; errors
        as in ``generate``.
        """
        return self._stream(request, self.guard(request))

    def output(self, text: Text, request: Request, number: int) -> Generation:
        """Return a finished text as the Generation with that number in the call, or, with best_of,
        among all sampled texts.
        """
        return Generation(
            text=text.text,
            prompt=text.prompt,
            tokens=text.ids,
            new_tokens=text.new_tokens,
            finish_reason=text.finish_reason or "",
            seed=request.seed,
            number=text.number if request.best_of else number,
            seconds=text.seconds,
            exceeds_max_copy=text.exceeds_limit,
            conditions=request.conditions_of(text.number),
            request=request,
            _examine=partial(self._examine, text.ids),
            _score=partial(self.log_probabilities, text),
        )

    def with_novelty(self, text: Text) -> GeneratedText:
        """Return a finished text as a string that knows which of its parts were copied."""
        examine = partial(require_index(self.index).examine, text.ids, self.tokenizer.decode)
        return GeneratedText(text.text, text.exceeds_limit, examine)

    def log_probabilities(self, text: Text) -> list[float]:
        """Return the model's log probability (nats) of each token of a text, and of eos where it
        ended by itself.
        """
        assert self._score is not None, "This generator was made without a function that scores."
        ends = [self.tokenizer.eos_id] if text.finish_reason == "end" else []
        return self._score([*text.prefix, *text.ids, *ends], len(text.prefix))

    def guard(self, request: Request) -> CopyGuard | None:
        """Return the copied spans that decoding must not complete; None without novelty="filter".

        Raises:
            DataError: ``novelty`` is given, and the model has no index of its training text.
        """
        if request.novelty is None:
            return None
        index = require_index(self.index)  # raised before anything is generated
        if request.novelty == "report":
            return None
        if request.max_copy is not None:
            return index.guard(request.max_copy)
        wanted = math.ceil(COPY_CHARACTERS / index.characters_per_token)
        if index.smallest_max_copy > wanted:
            _warn_of_limit(index.smallest_max_copy)
        return index.guard(max(index.smallest_max_copy, wanted))

    def _generate_batches(
        self, request: Request, guard: CopyGuard | None, first: int, start_late: bool
    ) -> Iterator[Text]:
        """Yield each text once it and all before it are finished, while others of its batch
        continue.
        """
        deadline = request.deadline()
        for texts in self._batches(request, first):
            if not start_late and deadline is not None and time.monotonic() >= deadline:
                return
            waiting = 0
            for _ in self.decoder(request, guard, deadline, texts).decode(texts):
                while waiting < len(texts) and texts[waiting].finish_reason is not None:
                    yield texts[waiting]
                    waiting += 1
            yield from texts[waiting:]

    def _batches(self, request: Request, first: int) -> Iterator[list[Text]]:
        """Yield the texts at their beginnings, those side by side that may contain the same
        words.
        """
        numbered = enumerate(islice(request.prompts, first, None), request.offset + first)
        for _, group in groupby(
            numbered, key=lambda pair: self._other_words(request, request.prefix_of(pair[0]))
        ):
            while batch := list(islice(group, self.batch_size)):
                yield [self.text(request, prompt, number) for number, prompt in batch]

    def _other_words(self, request: Request, prefix: Sequence[int]) -> frozenset[str]:
        """Return the words of the fields before a text that are known besides those of the
        lexicon.
        """
        return self.pieces.unknown(prefix) if request.config.words == "known" else frozenset()

    def _generate_including(
        self, request: Request, guard: CopyGuard | None, first: int
    ) -> Iterator[Text]:
        """Yield for each prompt the most probable of the first texts that include all words."""
        deadline = request.deadline()
        prompts = islice(request.prompts, first, None)
        for number, prompt in enumerate(prompts, request.offset + first):
            started = time.monotonic()
            generated = 0
            lacking = Counter(dict.fromkeys(request.must_include, 0))
            fitting = list[Text]()
            while not fitting:
                attempts = range(generated, generated + _TRIES_PER_BATCH)
                # the first one is the text without must_include
                numbers = [(number, attempt) if attempt else (number,) for attempt in attempts]
                texts = [self.text(request, prompt, *each) for each in numbers]
                # to the end
                deque(self.decoder(request, guard, deadline, texts).decode(texts), maxlen=0)
                generated += len(texts)
                for text in texts:
                    missing = _missing(request, text)
                    lacking.update(missing)
                    fitting += [] if missing else [text]
                is_late = deadline is not None and time.monotonic() >= deadline
                if not fitting and (is_late or generated >= _MAX_TRIES):
                    raise _nothing_includes(request, generated, lacking, is_late)
            best = max(fitting, key=self._likelihood)
            best.seconds = time.monotonic() - started
            yield best

    def _choose(
        self, request: Request, guard: CopyGuard | None, start_late: bool
    ) -> Iterator[Text]:
        """Yield the best texts of each prompt, the best first."""
        texts = self._generate_batches(request, guard, 0, start_late)
        judge = request.judge

        def rate(text: Text) -> float:
            if judge is None:
                return self._likelihood_after_prompt(text)
            return judge(text.text[len(text.prompt) :], text.prompt)

        while drawn := list(islice(texts, request.best_of)):
            drawn.sort(key=rate, reverse=True)
            yield from drawn[: request.config.num_return_sequences]

    def _search(self, request: Request) -> Iterator[Text]:
        """Yield the best texts of each prompt, found by beam search."""
        decoder = self.decoder(request, None, request.deadline(), [])
        for number in range(0, len(request.prompts), request.config.num_return_sequences):
            yield from search(decoder, self.text(request, request.prompts[number], number))

    def _stream(self, request: Request, guard: CopyGuard | None) -> Iterator[str]:
        text = self.text(request, request.prompts[0], 0)
        out = Detokenizer(text, is_echoed=True)
        prompt, _ = out.release()
        if prompt:
            yield prompt
        decoder = self.decoder(request, guard, request.deadline(), [text], _STREAM_BLOCK_SECONDS)
        for _ in decoder.decode([text]):
            piece, _ = out.release()
            yield from _characters(piece) if self.pieces.are_characters or not piece else (piece,)

    def decoder(
        self,
        request: Request,
        guard: CopyGuard | None,
        deadline: float | None,
        texts: Sequence[Text],
        block_seconds: float = 0.2,
    ) -> Decoder:
        """Return the decoding loop of a call.

        Args:
            request: The call.
            guard: The copied spans that must not be completed: those of ``guard(request)``.
            deadline: The ``time.monotonic`` at which all texts end where they are.
            texts: The texts at their beginning; the guard is left out if none can become long
                enough to complete its spans.
            block_seconds: About how long a block of a stepper's own loop should take.

        Raises:
            DataError: ``words="known"``, and the model has no lexicon.
        """
        config = request.config
        longest = max((len(text.ids) + len(text.rest) for text in texts), default=0)
        if guard is not None and guard.tokens > config.max_new_tokens + longest:
            guard = None
        other_words = self._other_words(request, texts[0].prefix if texts else request.prefix)
        return Decoder(
            self.stepper,
            self.pieces,
            config,
            guard,
            self.pieces.spelling(config.words, other_words),
            request.hooks,
            deadline,
            block_seconds,
        )

    def text(self, request: Request, prompt: str | Sequence[int], *numbers: int) -> Text:
        """Return the text of a prompt at its beginning, whose random stream is that of the seed and
        some numbers.

        A prompt that is given as token ids is fed as it is.
        """
        if isinstance(prompt, str):
            ids, rest, length = self.pieces.split(prompt)
        else:
            ids = list(prompt)
            rest = ""
            # an incomplete last character belongs to the continuation
            prompt = self.tokenizer.decode(ids).rstrip("\ufffd")
            length = len(prompt)
        return Text(
            self.pieces,
            request.config,
            prompt,
            [self.pieces.bos_id, *request.prefix_of(numbers[0])],
            ids,
            rest,
            length,
            np.random.default_rng((request.seed, *numbers)),
            prompt_tokens=len(ids),
            number=numbers[0],
        )

    def _likelihood(self, text: Text) -> float:
        """Return the mean log probability (nats) of a text's tokens."""
        return math.fsum(self.log_probabilities(text)) / max(1, len(text.ids))

    def _likelihood_after_prompt(self, text: Text) -> float:
        """Return the log probability (nats) of what continues the prompt, per character; -inf if
        nothing does.
        """
        characters = len(text.text) - len(text.prompt)
        if not characters:
            return -math.inf
        return math.fsum(self.log_probabilities(text)[text.prompt_tokens :]) / characters

    def _examine(self, ids: Sequence[int]) -> Novelty | None:
        return None if self.index is None else self.index.examine(ids, self.tokenizer.decode)


def choose_batch_size(device: str) -> int:
    """Return how many texts to generate side by side on a device, as PyTorch names it."""
    return _CPU_ROWS if device == "cpu" else DEVICE_ROWS


def require_index(index: Index | None) -> Index:
    """Return the index of a model's training text.

    Raises:
        DataError: The model has none.
    """
    if index is None:
        raise DataError(
            "This model has no index of its training text: it was trained with"
            " training.novelty=none, saved without novelty.safetensors, or is a blend of models of"
            " different corpora or tokenizers."
        )
    return index


def _missing(request: Request, text: Text) -> list[str]:
    """Return which of the words that a text must include it lacks, upper or lower case."""
    return [word for word in request.must_include if word.casefold() not in text.text.casefold()]


def _nothing_includes(
    request: Request, generated: int, lacking: Counter[str], is_late: bool
) -> GenerationError:
    rarest = max(lacking, key=lambda word: lacking[word])
    detail = f"; {lacking[rarest]} of them lack {rarest!r}" if len(lacking) > 1 else ""
    until = " before the time ran out" if is_late else ""
    more = "time (max_time)" if is_late else "tokens (max_new_tokens)"
    return GenerationError(
        f"None of {generated} tries includes"
        f" {' and '.join(map(repr, request.must_include))}{until}{detail}. Put it into the prompt,"
        f" allow more {more}, or raise the temperature."
    )


def _characters(text: str) -> Iterator[str]:
    """Yield a text's characters; an incomplete last one, several U+FFFD at the end, comes in one
    piece.
    """
    whole = text.rstrip("\ufffd")
    yield from whole
    if len(whole) < len(text):
        yield text[len(whole) :]


@cache
def _warn_of_limit(tokens: int) -> None:
    """Log once which copied spans the filter of a thinned index lets pass."""
    _logger.warning(
        "The filter rejects only copied spans of more than %d tokens: the compact index of this"
        " model cannot recognise shorter ones. Train with training.novelty=exact to limit them to"
        " %d characters.",
        tokens,
        COPY_CHARACTERS,
    )
