"""ReviewModel: a trained model and its tokenizer as one thing that generates, scores, evaluates and saves itself.

Joins the rooms below and adds no logic of its own.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from reviewgen.bundle import Bundle, write_bundle
from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig
from reviewgen.data import config_as_trained, frame_texts, read_rows, workspace
from reviewgen.errors import ConfigError, DataError
from reviewgen.evaluation import Evaluation, Score, evaluate_documents, score_text
from reviewgen.novelty import Index, Novelty
from reviewgen.protocols import LanguageModel, Tokenizer
from reviewgen.sampling import (
    Guard,
    Pieces,
    Row,
    check_prompts,
    check_seed,
    check_stops,
    decode,
    start_rows,
    text_so_far,
    using_threads,
)

__all__ = ["GeneratedText", "ReviewModel"]

_ROWS = 64  # texts generated side by side
_MAX_COPY = 50  # characters of a copied span that a filter lets through if nobody says how many


class GeneratedText(str):
    """A text, and what of it was copied.

    Attributes:
        exceeds_max_copy: Whether it holds a longer copied span than was allowed, because no other token was left.
    """

    exceeds_max_copy: bool
    _examine: Callable[[], Novelty]

    @cached_property
    def novelty(self) -> Novelty:
        """What of the text stands in the training text; looked up when it is first asked for."""
        return self._examine()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Copy and pickle as a plain string: the index of the training text does not travel with a text."""
        return str, (str(self),)


class ReviewModel:
    """A trained model and its tokenizer.

    >>> model = reviewgen.load("lstm-word")                                     # doctest: +SKIP
    >>> model.generate("the ", num_return_sequences=3, seed=1)                  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._pieces: Pieces | None = None

    @property
    def model(self) -> LanguageModel:
        """The language model."""
        return self._bundle.model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self._bundle.tokenizer

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
    def training(self) -> dict[str, Any]:
        """What is known of the training: data, split, steps, hardware, seconds, metrics; JSON values."""
        return self._bundle.training

    def __repr__(self) -> str:
        return f"ReviewModel({self.preset!r}, vocab_size={self.tokenizer.vocab_size})"

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        num_return_sequences: int = 1,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop_strings: str | Sequence[str] = (),
        seed: int | None = None,
        novelty: str | None = None,
        max_copy: int | None = None,
    ) -> list[str]:
        """Write reviews.

        Args:
            prompt: What each text begins with, or a list of such beginnings; any text works, the empty one too.
            num_return_sequences: Texts a prompt.
            max_new_tokens: Where to stop a text that does not end by itself.
            temperature: Above 0; below 1 likelier, above 1 wilder.
            top_k: Draw from the k most probable tokens only; 0 is off.
            top_p: Draw from the most probable tokens that together have this probability; 1 is off.
            min_p: Draw from tokens at least this many times as probable as the most probable one; 0 is off.
            stop_strings: A text ends after the first of these that it writes.
            seed: Same seed, same texts; text i does not depend on how many are written. None draws a fresh one.
            novelty: "report" says of each text what of it was copied; "filter" also lets no token complete a copied span of
                more than ``max_copy`` tokens, as far as the index knows.
            max_copy: For "filter"; about 50 characters if not given.

        Returns:
            One text for each prompt and repetition, prompt by prompt, the prompt included. With ``novelty`` each is a
            ``GeneratedText``, a string that also has ``novelty`` and ``exceeds_max_copy``.

        Raises:
            ConfigError: A setting is out of range.
            DataError: ``novelty`` is asked for, and the model has no index of its training text.
        """
        guard = self._guard(novelty, max_copy)
        config = self._settings(max_new_tokens, temperature, top_k, top_p, min_p)
        prompts = check_prompts(prompt, num_return_sequences)
        rows = start_rows(prompts, self._vocabulary(), check_seed(seed))
        stops = check_stops(stop_strings)
        with using_threads(1):  # a single token a row and call: a second thread halves the speed
            for start in range(0, len(rows), _ROWS):
                for _ in self._decode(rows[start : start + _ROWS], config, stops, guard):
                    pass
        return [row.text if novelty is None else self._with_novelty(row) for row in rows]

    def generate_one(self, prompt: str = "", **settings: Any) -> str:
        """Write one review; takes what ``generate`` takes."""
        if not isinstance(prompt, str):
            raise ConfigError(f"generate_one takes one prompt, a string; got {type(prompt).__name__}. generate takes a list.")
        return self.generate(prompt, **settings)[0]

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop_strings: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield one review piece by piece as it is written, the prompt first; joined, the text of ``generate_one``."""
        config = self._settings(max_new_tokens, temperature, top_k, top_p, min_p)
        rows = start_rows(check_prompts(prompt, 1), self._vocabulary(), check_seed(seed))
        return self._stream(rows[0], config, check_stops(stop_strings))

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
    ) -> Evaluation:
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
        config = config_as_trained(
            self.training.get("data", {}),
            split,
            text_column=text_column,
            documents=documents,
            conditions=self.conditions.names,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            clean=clean,
        )
        conditions = self.conditions
        with workspace() as folder:
            rows = read_rows(source, folder, config, split=split)
            framed = frame_texts(((text, conditions.encode_row(values)) for text, values in rows), self.tokenizer)
            return evaluate_documents(self.model, framed, self.tokenizer.vocab_size, given=len(conditions))

    def novelty(self, text: str) -> Novelty:
        """Return what of a text stands in the training text: copied spans, and shares of its windows of 8, 12 and 20 tokens.

        Raises:
            ConfigError: The text is no string.
            DataError: The model has no index of its training text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
        return self._index().examine(self.tokenizer.encode(text), self.tokenizer.decode)

    def score(self, text: str, *, conditions: Mapping[str, Any] | None = None) -> Score:
        """Return the bits that a text takes, in all, per character and per token, under conditions as in ``{"stars": 5}``.

        Raises:
            DataError: The text is empty.
            ConfigError: A condition or its value is unknown.
        """
        return score_text(self.model, self.tokenizer, text, self.conditions.encode(conditions or {}))

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Save everything as one folder, which ``reviewgen.load`` reads.

        Raises:
            OutputExists: The folder is there and ``overwrite`` is false, or what is there is no saved model.
            StorageError: There is no room, or the place may not be written.
        """
        write_bundle(self._bundle, Path(folder).expanduser(), overwrite=overwrite)

    def _index(self) -> Index:
        if self._bundle.index is None:
            raise DataError(
                "This model has no index of its training text: it was trained with training.novelty=none, or saved without "
                "novelty.safetensors."
            )
        return self._bundle.index

    def _guard(self, novelty: str | None, max_copy: int | None) -> Guard | None:
        """Return what the decoding must not complete."""
        if novelty not in (None, "report", "filter"):
            raise ConfigError(f"novelty must be 'report' or 'filter'; got {novelty!r}.")
        if novelty is not None:
            self._index()  # there must be one before anything is written
        if novelty != "filter":
            if max_copy is not None:
                raise ConfigError("max_copy goes with novelty='filter'.")
            return None
        index = self._index()
        about = max(index.least_max_copy, math.ceil(_MAX_COPY / index.characters_per_token))
        return index.guard(about if max_copy is None else max_copy)

    def _with_novelty(self, row: Row) -> GeneratedText:
        text = GeneratedText(row.text)
        text._examine = partial(self._index().examine, row.ids, self.tokenizer.decode)
        text.exceeds_max_copy = row.exceeds_limit
        return text

    def _settings(self, *values: int | float | None) -> GenerationConfig:
        names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p")
        given: dict[str, Any] = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        return replace(self.generation_config, **given)

    def _vocabulary(self) -> Pieces:
        if self._pieces is None:
            self._pieces = Pieces(self.tokenizer)
        return self._pieces

    def _decode(
        self, rows: list[Row], config: GenerationConfig, stops: Sequence[str], guard: Guard | None = None
    ) -> Iterator[list[Row]]:
        return decode(self.model, self.tokenizer, self._vocabulary(), rows, config, stops, guard=guard)

    def _stream(self, row: Row, config: GenerationConfig, stops: Sequence[str]) -> Iterator[str]:
        shown = row.prompt
        if shown:
            yield shown
        for _ in self._decode([row], config, stops):
            text = text_so_far(row, self.tokenizer)
            if len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
