"""Generator: generates the texts of a call with one model, and makes the objects that are returned.

It generates many texts at once, or one text as a stream. It holds what every call needs of a model:
the stepper, the tokenizer, the texts of the tokens, and the index of the training text. The
function that scores a text is passed in; only ``best_of`` and ``log_probabilities`` need it.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import groupby, islice
from typing import Any

import numpy as np

from reviewgen.config.generation import FORMATS
from reviewgen.errors import DataError, GenerationError
from reviewgen.formats.cursor import Formats
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
"""The number of texts that an accelerator generates side by side."""

_CPU_ROWS = 64  # the number of texts that a CPU generates side by side
_STREAM_BLOCK_SECONDS = 0.02  # a streamed text gets new tokens about this often


class GeneratedText(str):
    """A generated text that knows which of its parts were copied from the training text.

    Attributes:
        exceeds_max_copy: Whether the text contains a longer copied span than was allowed, because
            no other token was possible.
    """

    exceeds_max_copy: bool
    _examine: Callable[[], Novelty]

    def __new__(
        cls, text: str, exceeds_max_copy: bool, examine: Callable[[], Novelty]
    ) -> "GeneratedText":
        """Make the string; ``examine`` finds out which of its parts were copied."""
        self = super().__new__(cls, text)
        self.exceeds_max_copy = exceeds_max_copy
        self._examine = examine
        return self

    @cached_property
    def novelty(self) -> Novelty:
        """What the text shares with the training text; computed on first use."""
        return self._examine()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copy and pickle the text as a plain string, without the index of the training text."""
        return str, (str(self),)


@dataclass
class Generation:
    """A generated text and everything known about it.

    Attributes:
        text: The text, the prompt included.
        prompt: The prompt.
        tokens: The ids of the text, the prompt included.
        new_tokens: The number of generated ids.
        finish_reason: "end" (the model ended the review), "length" (``max_new_tokens``), "stop" (a
            stop string), "time" (``max_time``), "criteria" (``stopping_criteria``) or "stuck"
            (every token was ruled out).
        seed: The seed of the call; a random one if the call had none.
        number: The number of the text in the call, from 0. The seed and the number reproduce the
            text.
        seconds: The time from the start of the batch until the text was complete.
        exceeds_max_copy: Whether the text contains a longer copied span than was allowed, because
            no other token was possible.
        problem: Why the text does not fit its formats, in a sentence; empty if it does.
        conditions: The values of the text's conditions, given or drawn; unspecified ones are left
            out.
        request: The checked arguments of the call.
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
    problem: str
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
        """The model's log probability (nats) of each of ``tokens``, and of eos if the text ended
        with it.

        Temperature, filters and penalties are not applied. Computed on first use.
        """
        return self._score()

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes that are known without further computation, as JSON values."""
        names = (
            "text prompt new_tokens finish_reason seed number exceeds_max_copy problem conditions"
        )
        values = {name: getattr(self, name) for name in names.split()}
        return values | {"seconds": round(self.seconds, 4)}


class Generator:
    """Generates texts with one model.

    Args:
        stepper: Predicts the next token.
        tokenizer: The model's tokenizer.
        pieces: The text of each token, and the known words; by default there are no known words.
        index: The index of the training text, which ``novelty`` needs.
        score: ``score(ids, n)`` returns the model's log probability (nats) of each id after the
            first n.
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
        """Return an iterator over the finished texts of a call, in order. It yields each text as
        soon as this text and all before it are finished.

        The random stream of text i has the seed (seed, i). An error in the arguments is raised by
        this method itself, before anything is generated.

        Args:
            request: The arguments of the call.
            first: The number of the first text to generate.
            start_late: What to do with texts that would start after ``max_time``: True returns them
                without new tokens, False leaves them out.

        Raises:
            DataError: ``novelty`` is given and the model has no index of its training text, or
                ``words="known"`` and it has no lexicon.
            ConfigError: A format is invalid, or no text can fit it.
            GenerationError: No token can be sampled.
        """
        guard = self.guard(request)
        # these raise errors before anything is generated
        self.formats(request)
        self.pieces.spelling(request.config)
        if request.config.num_beams > 1:  # the texts of a prompt are found together
            return islice(self._search(request), first, None)
        if request.best_of:
            return islice(self._best_texts(request, guard, start_late), first, None)
        return self._generate_batches(request, guard, first, start_late)

    def stream(self, request: Request) -> Iterator[str]:
        """Return an iterator over the parts of the call's only text as they are generated, the
        prompt first. Errors are those of ``generate``.
        """
        guard = self.guard(request)
        self.formats(request)
        return self._stream(request, guard)

    def output(self, text: Text, request: Request, number: int) -> Generation:
        """Return the ``Generation`` of a finished text.

        Args:
            text: The finished text.
            request: The arguments of the call.
            number: The number of the text in the call. Ignored with best_of: the result then has
                the number of the text among all sampled texts.
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
            problem=text.problem,
            conditions=request.conditions_of(text.number),
            request=request,
            _examine=partial(self._examine, text.ids),
            _score=partial(self.log_probabilities, text),
        )

    def with_novelty(self, text: Text) -> GeneratedText:
        """Return a finished text as a string that knows which of its parts were copied.

        Raises:
            DataError: The model has no index of its training text.
        """
        examine = partial(require_index(self.index).examine, text.ids, self.tokenizer.decode)
        return GeneratedText(text.text, text.exceeds_limit, examine)

    def log_probabilities(self, text: Text) -> list[float]:
        """Return the model's log probability (nats) of each token of a text, and of eos if the text
        ended with it.
        """
        assert self._score is not None, "This generator was made without a function that scores."
        ends = [self.tokenizer.eos_id] if text.finish_reason == "end" else []
        return self._score([*text.prefix, *text.ids, *ends], len(text.prefix))

    def guard(self, request: Request) -> CopyGuard | None:
        """Return the guard that keeps texts from completing copied spans; None without
        novelty="filter".

        Raises:
            DataError: ``novelty`` is given, and the model has no index of its training text.
        """
        if request.novelty is None:
            return None
        index = require_index(self.index)  # raises its error before anything is generated
        if request.novelty == "report":
            return None
        if request.max_copy is not None:
            return index.guard(request.max_copy)
        default = math.ceil(COPY_CHARACTERS / index.characters_per_token)  # tokens
        if index.smallest_max_copy > default:
            _warn_of_limit(index.smallest_max_copy)
        return index.guard(max(index.smallest_max_copy, default))

    def _generate_batches(
        self, request: Request, guard: CopyGuard | None, first: int, start_late: bool
    ) -> Iterator[Text]:
        """Generate the texts batch by batch. Yield each text once this text and all before it are
        finished; later ones of its batch may still be unfinished.
        """
        deadline = request.deadline()
        for texts in self._batches(request, first):
            if not start_late and deadline is not None and time.monotonic() >= deadline:
                return
            yielded = 0
            for _ in self.decoder(request, guard, deadline, texts).decode(texts):
                while yielded < len(texts) and texts[yielded].finish_reason is not None:
                    yield texts[yielded]
                    yielded += 1
            yield from texts[yielded:]

    def _batches(self, request: Request, first: int) -> Iterator[list[Text]]:
        """Yield batches of new texts, which so far have only their prompts.

        The texts of a batch share one spelling: they have the same ``_other_words``.
        """
        numbered = enumerate(islice(request.prompts, first, None), request.offset + first)
        texts = (self.text(request, prompt, number) for number, prompt in numbered)
        for _, group in groupby(texts, key=lambda text: self._other_words(request, text.prefix)):
            while batch := list(islice(group, self.batch_size)):
                yield batch

    def _other_words(self, request: Request, prefix: Sequence[int]) -> frozenset[str]:
        """Return the words that a text may contain in addition to the lexicon, with words="known":
        those of its fields.

        Args:
            request: The arguments of the call.
            prefix: The ids of the text's conditions; bos may precede them.
        """
        return self.pieces.unknown(prefix) if request.config.words == "known" else frozenset()

    def _best_texts(
        self, request: Request, guard: CopyGuard | None, start_late: bool
    ) -> Iterator[Text]:
        """Generate ``best_of`` texts for each prompt, and yield the best ones, the best first."""
        texts = self._generate_batches(request, guard, 0, start_late)
        judge = request.judge

        def rate(text: Text) -> float:
            """Return the judge's rating of what follows the prompt."""
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
        """Yield the prompt, then the new characters after each step of the decoding loop."""
        text = self.text(request, request.prompts[0], 0)
        is_whole = has_retries(request)
        detokenizer = Detokenizer(text, is_whole=is_whole, is_echoed=True)
        prompt, _ = detokenizer.release()
        if prompt:
            yield prompt
        decoder = self.decoder(request, guard, request.deadline(), [text], _STREAM_BLOCK_SECONDS)
        for _ in decoder.decode([text]):
            new, _ = detokenizer.release()
            if self.pieces.are_characters:
                yield from _characters(new)
            elif new:
                yield new
        if text.problem:
            raise GenerationError(text.problem)

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
            request: The arguments of the call.
            guard: The result of ``guard(request)``.
            deadline: When ``time.monotonic`` reaches this value, all texts end where they are.
            texts: The new texts. If none of them can become long enough to complete a copied span,
                the guard is left out.
            block_seconds: About how long one call of a stepper's own loop should take.

        Raises:
            DataError: ``words="known"``, and the model has no lexicon.
        """
        config = request.config
        # in tokens, but the rest of a prompt is counted in characters, since it is not encoded yet
        longest_prompt = max((len(text.ids) + len(text.rest) for text in texts), default=0)
        if guard is not None and guard.tokens > config.max_new_tokens + longest_prompt:
            guard = None
        other_words = self._other_words(request, texts[0].prefix if texts else request.prefix)
        formats = self.formats(request)
        return Decoder(
            self.stepper,
            self.pieces,
            config,
            guard,
            self.pieces.with_rules(self.pieces.spelling(config, other_words), formats),
            request.hooks,
            deadline,
            block_seconds,
            formats,
        )

    def formats(self, request: Request) -> Formats | None:
        """Return what the texts of a call must look like; None if they may be any.

        Raises:
            ConfigError: A format is invalid, or no text can fit it.
        """
        return self.pieces.formats(request.config, self.stepper, request.automata)

    def text(self, request: Request, prompt: str | Sequence[int], number: int) -> Text:
        """Return a new text that starts with a prompt.

        Args:
            request: The arguments of the call.
            prompt: The prompt. Token ids are fed to the model as they are; a string may be split
                before its last word (see ``TokenTexts.split``).
            number: The number of the text. The text's random stream has the seed (seed of the call,
                number).

        Raises:
            ConfigError: The prompt contradicts a format.
        """
        if isinstance(prompt, str):
            ids, rest, length = self.pieces.split(prompt)
        else:
            ids = list(prompt)
            rest = ""
            # an incomplete last character belongs to the continuation
            prompt = self.tokenizer.decode(ids).rstrip("\ufffd")
            length = len(prompt)
        formats = self.formats(request)
        return Text(
            self.pieces,
            request.config,
            prompt,
            [self.pieces.bos_id, *request.prefix_of(number)],
            ids,
            rest,
            length,
            np.random.default_rng((request.seed, number)),
            prompt_tokens=len(ids),
            number=number,
            cursor=None if formats is None else formats.start(ids, rest),
        )

    def _likelihood_after_prompt(self, text: Text) -> float:
        """Return the log probability (nats) per character of what follows the prompt; -inf if
        nothing follows it.
        """
        characters = len(text.text) - len(text.prompt)
        if not characters:
            return -math.inf
        return math.fsum(self.log_probabilities(text)[text.prompt_tokens :]) / characters

    def _examine(self, ids: Sequence[int]) -> Novelty | None:
        """Return what some ids share with the training text; None if the model has no index."""
        return None if self.index is None else self.index.examine(ids, self.tokenizer.decode)


def has_retries(request: Request) -> bool:
    """Return whether tokens of a text may be removed again. They may be if the text has several
    formats, which may contradict one another, or a format and a limit to known words.
    """
    config = request.config
    # each included word is a format of its own; FORMATS counts the first one
    rules = len(config.include[1:]) + len(request.automata)
    rules += sum(bool(getattr(config, name)) for name in FORMATS)
    return rules > 1 or (rules > 0 and config.words == "known")


def choose_batch_size(device: str) -> int:
    """Return how many texts to generate side by side on a device, such as "cpu" or "cuda:0"."""
    return _CPU_ROWS if device == "cpu" else DEVICE_ROWS


def require_index(index: Index | None) -> Index:
    """Return the index of a model's training text, or raise an error.

    Raises:
        DataError: The model has no index.
    """
    if index is None:
        raise DataError(
            "This model has no index of its training text: it was trained with"
            " training.novelty=none, saved without novelty.safetensors, or is a blend of models of"
            " different corpora or tokenizers."
        )
    return index


def _characters(text: str) -> Iterator[str]:
    """Yield the characters of a text.

    An incomplete last character decodes to several U+FFFD, which are yielded as one string.
    """
    whole = text.rstrip("\ufffd")
    yield from whole
    if len(whole) < len(text):
        yield text[len(whole) :]


@cache
def _warn_of_limit(tokens: int) -> None:
    """Log, once for each limit, that the filter of a thinned index lets short copied spans pass.

    Args:
        tokens: The longest copied spans that pass, in tokens.
    """
    _logger.warning(
        "The filter rejects only copied spans of more than %d tokens: the compact index of this"
        " model cannot recognise shorter ones. Train with training.novelty=exact to limit them to"
        " %d characters.",
        tokens,
        COPY_CHARACTERS,
    )
