"""What a model generates: samples of one prompt, the speed, and how new and how various its words are.

All models generate with the same settings, plain sampling from the whole distribution, instead of the defaults that were saved
with each: it is the models that are compared. Texts have about the same length in characters, whatever a token is.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reviewgen.comparison.rows import Sample
from reviewgen.config import GenerationConfig
from reviewgen.evaluation import measure_texts, take_words
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, Novelty, copied_spans

TEMPERATURES = (0.5, 0.8, 1.2)
_CHARACTERS = 300  # of a text, about
_TEXTS = 32
_WORDS = 1000  # that distinct n-grams are counted on: their share falls as the text grows
_MAX_SECONDS = 10.0  # of a batch of texts, for a model that is very slow


@dataclass(frozen=True)
class Written:
    """Figures of generated texts; see ``Row``."""

    characters_per_second: float
    new_words: float | None
    distinct: dict[str, float | None]
    words: int


def draw_samples(
    model: ReviewModel, prompt: str, tokens_per_character: float, seed: int, training: Iterable[str] | None
) -> tuple[Sample, ...]:
    """Return a text for each of ``TEMPERATURES``, from one prompt.

    Args:
        model: The model.
        prompt: Their beginning.
        tokens_per_character: Of the model's tokenizer, for their length.
        seed: Their seed.
        training: The training text; without it, copied spans are known of models with an exact index only.
    """
    config = _config(tokens_per_character)
    settings = [replace(config, temperature=temperature) for temperature in TEMPERATURES]
    texts = [model.generate_one(prompt, generation_config=each, seed=seed) for each in settings]
    copied = _exact_spans(model, texts) if training is None else copied_spans(texts, training)
    spans = [None] * len(texts) if copied is None else [tuple(each) for each in copied]
    return tuple(Sample(*each) for each in zip(TEMPERATURES, texts, spans, strict=True))


def _exact_spans(model: ReviewModel, texts: Sequence[str]) -> list[list[tuple[int, int]]] | None:
    """Return the copied spans by the model's index; None without one, or if it is compact, which gives upper bounds."""
    if model.bundle.index is None or model.bundle.index.form != "exact":
        return None
    return [_join(model.novelty(text)) for text in texts]


def _join(report: Novelty) -> list[tuple[int, int]]:
    """Return the copied spans of at least 50 characters, in order, joined where they overlap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted((span.start, span.end) for span in report.spans if span.end - span.start >= COPY_CHARACTERS):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def measure_written(model: ReviewModel, tokens_per_character: float, seed: int) -> Written:
    """Generate texts at temperature 1, and return how fast, and what their words are like."""
    config = _config(tokens_per_character)
    model.generate("", num_return_sequences=_TEXTS, generation_config=replace(config, max_new_tokens=1), seed=seed)  # compiles
    start = time.perf_counter()
    texts = model.generate("", num_return_sequences=_TEXTS, generation_config=config, seed=seed)
    seconds = max(time.perf_counter() - start, 1e-9)
    lexicon = model.bundle.lexicon
    taken = take_words(texts, _WORDS)
    figures = measure_texts(taken, None if lexicon is None else lexicon.__contains__)
    distinct = {str(n): share if figures.words >= n else None for n, share in enumerate(figures.distinct, 1)}
    new_words = figures.unknown_words if figures.words else None
    return Written(sum(map(len, texts)) / seconds, new_words, distinct, figures.words)


def _config(tokens_per_character: float) -> GenerationConfig:
    tokens = max(1, math.ceil(_CHARACTERS * tokens_per_character))
    return GenerationConfig(temperature=1.0, max_new_tokens=tokens, words="any", max_time=_MAX_SECONDS)
