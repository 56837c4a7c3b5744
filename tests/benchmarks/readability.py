"""PINNED: how the texts of the trained weights read at their default settings, beside held-out
reviews of the same size.

``python -m tests.benchmarks readability [TEXTS] [PRESET ...]``: for each preset 100 texts with
known words and with any. Targets:

    unknown words     the share of written words that are not in the training text: at most 0.8 %
    distinct-2        the share of different pairs of words: at most 0.35 below held-out reviews (at
                      temperature 0.7; at 0.85 to 1 it was within 0.04)
    whole             the share of texts that end by themselves or at a sentence: at least 98 %;
                      nnlm-char 88 %, ngram-char 92 %, whose sentences are long at temperature 0.7
    characters/s      with known words at least 0.85 of that with any
    praise and blame  the share of 200 texts that have both (``tests.support.praise_and_blame``)
                      with the default, a drawn sentiment: at most 5 points from held-out reviews;
                      "any" is a sentiment that is not given

Held-out reviews are those of the style that the weights write by default, cut off and finished as
generated texts are.
"""

import time
from dataclasses import dataclass
from itertools import chain

import reviewgen
from reviewgen.data.columns import DataConfig
from reviewgen.data.split import CorpusSpec, read_corpus
from reviewgen.evaluation.metrics import TextStatistics, measure_texts, take_words
from reviewgen.lexicon.words import words_of
from reviewgen.registry.plugins import find_weights
from reviewgen.runs.tune_sampling import shorten_as_generated
from reviewgen.sentences import sentence_ends
from tests.support.praise_and_blame import share_of_both

ROUNDS = 3
SENTIMENT_TEXTS = 200


def read_reviews() -> tuple[set[str], list[str]]:
    """Return the words of the training text in lower case, and the held-out texts that are whole
    reviews.
    """
    corpus = read_corpus(CorpusSpec("reviews", DataConfig(conditions=("style",))))
    words = chain.from_iterable(map(words_of, corpus.texts("train")))
    known = {word.casefold() for word in words}
    human = [text for text, values in corpus.examples("test") if values[0] == "review"]
    return known, human


@dataclass(frozen=True)
class Reading:
    """The figures of some texts, beside held-out reviews of as many words."""

    texts: TextStatistics
    human: TextStatistics
    whole: float = 1.0  # the share of texts that end by themselves or at a sentence
    rate: float = 0.0  # characters per second

    def __str__(self) -> str:
        return (
            f"unknown words {self.texts.unknown_words:6.2%}  distinct-2"
            f" {self.texts.distinct[1]:.3f} (held out {self.human.distinct[1]:.3f}) "
            f" {self.texts.words_per_text:5.0f} words  repeated {self.texts.repetition:.2%}  whole"
            f" {self.whole:4.0%}"
        )


def read_generated(
    preset: str, words: str, count: int, known: set[str], human: list[str]
) -> Reading:
    """Return the figures of a preset's texts at its default settings, with known words or any."""
    model = reviewgen.load(preset)
    rate = 0.0
    model.generate("", seed=1, words=words)  # compiled
    for _ in range(ROUNDS):
        start = time.process_time()
        texts = model.generate(
            "", seed=1, num_return_sequences=count, words=words, return_dict_in_generate=True
        )
        rate = max(rate, sum(len(text.text) for text in texts) / (time.process_time() - start))
    cut = [shorten_as_generated(text, model) for text in human]
    figures = measure_texts([text.text for text in texts], lambda word: word.casefold() in known)
    beside = measure_texts(take_words(cut, figures.words), lambda word: word.casefold() in known)
    return Reading(figures, beside, sum(map(is_whole, texts)) / len(texts), rate)


def is_whole(generation) -> bool:
    """Return whether a text ends by itself or at a sentence."""
    return generation.finish_reason == "end" or len(generation.text.rstrip()) in sentence_ends(
        generation.text
    )


def measure_praise_and_blame(preset: str, human: list[str]) -> dict[str, float]:
    """Return the share of texts that praise and blame, of generated texts by their sentiment, and
    of held-out reviews.
    """
    model = reviewgen.load(preset)
    shares = {"held out": share_of_both(shorten_as_generated(text, model) for text in human)}
    for sentiment in ("any", "draw"):
        texts = model.generate(
            "", seed=1, num_return_sequences=SENTIMENT_TEXTS, conditions={"sentiment": sentiment}
        )
        shares[sentiment] = share_of_both(texts)
    return shares


def main(count="100", *presets) -> None:
    """Print two lines for each preset, the rates, and how often praise and blame stand together."""
    known, human = read_reviews()
    for preset in presets or [
        plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)
    ]:
        readings = {
            words: read_generated(preset, words, int(count), known, human)
            for words in ("known", "any")
        }
        for words, reading in readings.items():
            print(f"{preset + ', ' + words:22} {reading}", flush=True)
        rate = readings["known"].rate
        free = readings["any"].rate
        print(
            f"{preset:22} {rate:,.0f} characters/s, {rate / free:.2f} of any (target >= 0.85)",
            flush=True,
        )
        shares = measure_praise_and_blame(preset, human)
        print(
            f"{preset:22} praise and blame:"
            f" {', '.join(f'{name} {share:.1%}' for name, share in shares.items())}",
            flush=True,
        )
