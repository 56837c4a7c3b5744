"""What a model generates: samples of one prompt, the speed, and how new and how various its words are.

All models generate with the same settings, plain sampling from the whole distribution, instead of the defaults that were saved
with each: it is the models that are compared. Texts have about the same length in characters, whatever a token is.
"""

import math
import time
from dataclasses import dataclass, replace

from reviewgen.comparison.rows import Sample
from reviewgen.config import GenerationConfig
from reviewgen.evaluation import measure_texts, take_words
from reviewgen.model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, Novelty

__all__ = ["TEMPERATURES", "Written", "draw_samples", "measure_written"]

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


def draw_samples(model: ReviewModel, prompt: str, tokens_per_character: float, seed: int) -> tuple[Sample, ...]:
    """Return a text for each of ``TEMPERATURES``, from one prompt."""
    config = _config(tokens_per_character)
    samples = []
    for temperature in TEMPERATURES:
        text = model.generate_one(prompt, generation_config=replace(config, temperature=temperature), seed=seed)
        report = None if model.bundle.index is None else model.novelty(text)
        samples.append(Sample(temperature, text, None if report is None else _copied(report)))
    return tuple(samples)


def _copied(report: Novelty) -> tuple[tuple[int, int], ...]:
    """Return the copied spans of at least 50 characters, in order, joined where they overlap."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted((span.start, span.end) for span in report.spans if span.end - span.start >= COPY_CHARACTERS):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return tuple(joined)


def measure_written(model: ReviewModel, tokens_per_character: float, seed: int) -> Written:
    """Generate texts at temperature 1, and return how fast, and what their words are like; functions are compiled by then."""
    start = time.perf_counter()
    texts = model.generate("", num_return_sequences=_TEXTS, generation_config=_config(tokens_per_character), seed=seed)
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
