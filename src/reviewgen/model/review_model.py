"""ReviewModel: a trained model and its tokenizer as one thing that generates, scores, evaluates and saves itself.

Joins the rooms below and adds no logic of its own. What only measuring and saving need is imported there: a model that only
writes loads no torch, where its plugin has a stepper that needs none.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from reviewgen.bundle import Bundle
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig
from reviewgen.errors import ConfigError
from reviewgen.model.hub_mixin import HubMixin
from reviewgen.model.next_tokens import NextTokens
from reviewgen.model.request import GenerateOptions, make_request
from reviewgen.model.texts import Generation
from reviewgen.model.walk import Walk
from reviewgen.model.writing import Writing
from reviewgen.novelty import Novelty
from reviewgen.protocols import Tokenizer

if TYPE_CHECKING:
    from reviewgen.evaluation import Evaluation, Score
    from reviewgen.protocols import LanguageModel

__all__ = ["ReviewModel"]


class ReviewModel(HubMixin):
    """A trained model and its tokenizer.

    >>> model = reviewgen.load("lstm-word")                                     # doctest: +SKIP
    >>> model.generate("the ", num_return_sequences=3, seed=1)                  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._writing = Writing(bundle)

    @property
    def model(self) -> "LanguageModel":
        """The language model; who asks for it may change its weights, so ``digest`` is None from then on."""
        return self._bundle.weights.expose()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._bundle.tokenizer

    @property
    def bundle(self) -> Bundle:
        """All that is saved: the model, the tokenizer, where both come from, and what is known of the training."""
        return self._bundle

    @property
    def preset(self) -> str:
        """The name of the preset that it was trained from."""
        return self._bundle.preset

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer's plugin, as in "word"."""
        return self._bundle.tokenizer_plugin.name

    @property
    def conditions(self) -> Conditions:
        """What it was trained to obey, and the ids that stand for it; empty for a model without conditions."""
        return self._bundle.conditions or Conditions(first_id=self.tokenizer.vocab_size)

    @property
    def generation_config(self) -> GenerationConfig:
        """The generation defaults that were saved with the model."""
        return self._bundle.generation

    @property
    def digest(self) -> str | None:
        """SHA-256 of the files of its folder that texts depend on; None where it has none, or its model was asked for."""
        return None if self._bundle.weights.is_exposed else self._digest

    @cached_property
    def _digest(self) -> str | None:
        return self._bundle.digest()

    @property
    def bits(self) -> int:
        """Bits of a weight while it writes; see ``reviewgen.load``."""
        return self._bundle.weights.bits

    @property
    def training(self) -> dict[str, Any]:
        """What is known of the training: data, split, steps, hardware, seconds, metrics; JSON values."""
        return self._bundle.training

    def __repr__(self) -> str:
        return f"ReviewModel({self.preset!r}, vocab_size={self.tokenizer.vocab_size})"

    @overload
    def generate(self, prompt: str | Sequence[str] = "", **options: Unpack[GenerateOptions]) -> list[str]: ...

    @overload
    def generate(
        self, prompt: str | Sequence[str] = "", *, return_dict_in_generate: Literal[True], **options: Unpack[GenerateOptions]
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        return_dict_in_generate: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> list[str] | list[Generation]:
        """Write reviews.

        Args:
            prompt: What each text begins with, or a list of such beginnings; any text works, the empty one too.
            return_dict_in_generate: Return each text with all that is known of it.
            generation_config: A GenerationConfig, or a mapping of some of its settings, in place of the model's defaults. Each
                setting may also be given by name, for this call: max_new_tokens, min_new_tokens, num_return_sequences,
                do_sample, num_beams, length_penalty, temperature, top_k, top_p, min_p, repetition_penalty,
                no_repeat_ngram_size, stop_strings, max_time, finish; ``GenerationConfig`` says what they mean.
            logits_processor, stopping_criteria, streamer: transformers' objects, or functions like them; they get the ids
                (1, T) that the model has read, bos first, and scores (1, V).
            seed: Same seed, same texts, whatever is written beside them (of a model without a stepper of its own, as far as its
                call gives a row the same logits in any batch). None draws a fresh one.
            novelty: "report" says of each text what of it was copied; "filter" also lets no token complete a copied span of
                more than ``max_copy`` tokens, as far as the index knows.
            max_copy: For "filter"; about 50 characters if not given.
            conditions: Values of the conditions that the model was trained with, as in {"stars": 5}; those left out are any.
            must_include: A string, or several, that each text must hold, upper or lower case; texts are drawn until some hold
                them all, 128 at most, and the most probable of these is taken.

        Returns:
            One text for each prompt and repetition, prompt by prompt, the prompt included. With ``novelty`` each is a
            ``GeneratedText``, a string that also has ``novelty`` and ``exceeds_max_copy``; with ``return_dict_in_generate`` a
            ``Generation``.

        Raises:
            ConfigError: A setting is unknown or out of range, or does not go with another.
            DataError: ``novelty`` is asked for, and the model has no index of its training text.
            GenerationError: No token can be drawn, or nothing written holds what it must include.
        """
        request = make_request(prompt, self.generation_config, options)
        rows = self._writing.rows(request)
        if return_dict_in_generate:
            return [self._writing.generation(row, request, number) for number, row in enumerate(rows)]
        return [row.text if request.novelty is None else self._writing.with_novelty(row) for row in rows]

    def generate_one(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> str:
        """Write one review; takes what ``generate`` takes."""
        if not isinstance(prompt, str):
            raise ConfigError(f"generate_one takes one prompt, a string; got {type(prompt).__name__}. generate takes a list.")
        if options.get("num_return_sequences") not in (None, 1):
            raise ConfigError(
                f"generate_one writes one text; num_return_sequences={options['num_return_sequences']} asks for more."
            )
        return self.generate(prompt, **options)[0]

    def generate_each(
        self, prompt: str | Sequence[str] = "", *, first: int = 0, **options: Unpack[GenerateOptions]
    ) -> Iterator[Generation]:
        """Yield the texts of ``generate`` one after another as they are written, from number ``first`` on; raises as it does.

        No text is begun once ``max_time`` is over, so there may be fewer.
        """
        request = make_request(prompt, self.generation_config, options)
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise ConfigError(f"first must be a whole number of at least 0; got {first!r}.")
        rows = self._writing.rows(request, first, begins_late=False)
        return (self._writing.generation(row, request, number) for number, row in enumerate(rows, first))

    def stream(self, prompt: str = "", **options: Unpack[GenerateOptions]) -> Iterator[str]:
        """Yield one review piece by piece as it is written, the prompt first; joined, the text of ``generate_one``.

        The pieces are characters where the tokenizer's are, and never a part of a character. Takes what ``generate`` takes but
        num_beams, must_include, finish and novelty="filter", which need the whole text.
        """
        request = make_request(prompt, self.generation_config, options)
        if len(request.prompts) != 1:
            raise ConfigError(f"stream writes one text; this call asks for {len(request.prompts)}.")
        if request.config.num_beams > 1 or request.may_take_back:
            raise ConfigError(
                "num_beams, must_include, finish and novelty='filter' need the whole text, so they do not go with stream."
            )
        return self._writing.stream(request)

    def next_tokens(
        self, text: str = "", *, k: int = 10, temperature: float = 1.0, conditions: Mapping[str, Any] | None = None
    ) -> NextTokens:
        """Return the k most probable tokens after a text, the entropy, and for a model that counts the counts behind them.

        The probabilities are those of an unfiltered draw. The empty text is the start of a review; any text is read as the
        tokenizer spells it, so after word pieces leave out a last space, which is part of the next piece.

        Args:
            text: What stands before.
            k: How many tokens.
            temperature: 1 gives the model's own probabilities.
            conditions: As ``generate`` takes them.

        Raises:
            ConfigError: The text is no string, k no whole number of at least 1, the temperature no number above 0, or a
                condition unknown.
            GenerationError: The logits are no numbers, or leave no token.
        """
        return self.walk(text, temperature=temperature, conditions=conditions).next_tokens(k)

    def walk(
        self,
        text: str = "",
        *,
        temperature: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> Walk:
        """Return a text to take forward and back, token by token; ``Walk`` says how. Raises as ``next_tokens`` does."""
        stepper, given = self._bundle.weights.stepper(), self.conditions.encode({} if conditions is None else conditions)
        return Walk(stepper, self.tokenizer, self._writing.pieces, text, given, temperature=temperature, seed=seed)

    def evaluate(
        self,
        source: Any,
        *,
        split: str = "all",
        text_column: str | None = None,
        documents: str = "line",
        lowercase: bool | None = None,
        strip_markdown: bool | None = None,
        clean: bool | None = None,
    ) -> "Evaluation":
        """Measure the model on a source of texts, in bits per character.

        Its conditions are read from the source's columns of the same names; a text without one may be any.

        Args:
            source: See ``reviewgen.data.sources.open_texts``.
            split: "all", or a part of the hash split of the source: "train", "validation" or "test".
            text_column: The column that holds the text; guessed if not given.
            documents: How a txt file is cut: "line", "paragraph" or "file".
            lowercase, strip_markdown, clean: How to clean; None does what the training did.

        Raises:
            DataError: The source cannot be read or holds nothing to evaluate.
            ConfigError: The split is unknown, or would not be that of the training.
        """
        from reviewgen.data import read_documents, trained_on
        from reviewgen.evaluation import evaluate_documents

        texts = read_documents(
            source,
            self.tokenizer,
            trained_on(self.training),
            split=split,
            text_column=text_column,
            documents=documents,
            conditions=self.conditions,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            clean=clean,
        )
        return evaluate_documents(self._bundle.model, texts, self.tokenizer.vocab_size, given=len(self.conditions))

    def novelty(self, text: str) -> Novelty:
        """Return what of a text stands in the training text: copied spans, and shares of its windows of 8, 12 and 20 tokens.

        Raises:
            ConfigError: The text is no string.
            DataError: The model has no index of its training text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
        return self._writing.index.examine(self.tokenizer.encode(text), self.tokenizer.decode)

    def score(self, text: str, *, conditions: Mapping[str, Any] | None = None) -> "Score":
        """Return the bits that a text takes, in all, per character and per token, under conditions as in ``{"stars": 5}``.

        Raises:
            DataError: The text is empty.
            ConfigError: A condition or its value is unknown.
        """
        from reviewgen.evaluation import score_text

        return score_text(self._bundle.model, self.tokenizer, text, self.conditions.encode(conditions or {}))
