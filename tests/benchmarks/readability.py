"""PINNED: how the texts of the trained weights read at their default settings, beside held-out reviews of the same size.

``python -m tests.benchmarks.readability [TEXTS] [PRESET ...]``: for each preset 100 texts with known words and with any. Targets:

    unknown words     the share of written words that are not in the training text: at most 0.8 %
    distinct-2        the share of different pairs of words: within 0.04 of held-out reviews
    whole sentences   the share of texts that end by themselves or at a sentence: at least 98 %
    characters/s      with known words at least 0.85 of that with any
"""

import sys
import time

import reviewgen
from reviewgen.generation.sentences import sentence_ends
from reviewgen.lexicon import unknown_word_share, words_of
from reviewgen.registry import find_weights
from reviewgen.runs.plan import make_plan
from reviewgen.runs.prepare import read_corpus

ROUNDS = 3


def distinct(texts, n=2) -> float:
    """Return the share of different n-grams of words among all of some texts."""
    rows = [[word.casefold() for word in words_of(text)] for text in texts]
    grams = [tuple(row[start : start + n]) for row in rows for start in range(len(row) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def cut(texts, words: int) -> list[str]:
    """Return the beginnings of texts that have about as many words in all."""
    kept, count = [], 0
    for text in texts:
        if count >= words:
            break
        kept.append(text)
        count += len(words_of(text))
    return kept


def describe(name, texts, known, human=None) -> None:
    """Print the figures of some texts."""
    words = sum(len(words_of(text)) for text in texts)
    whole = sum(text.endswith((".", "!", "?", '"', ")", "'")) or len(text) in sentence_ends(text) for text in texts) / len(texts)
    beside = "" if human is None else f" (held out {distinct(cut(human, words)):.3f})"
    print(
        f"{name:22} unknown words {unknown_word_share(texts, known):6.2%}  distinct-2 {distinct(texts):.3f}{beside}  "
        f"{words / len(texts):5.0f} words  whole sentences {whole:4.0%}",
        flush=True,
    )


def main(count="100", *presets) -> None:
    """Print two lines for each preset, and the rates."""
    corpus = read_corpus(make_plan("ngram-char", "reviews", {}))
    known = {word.casefold() for text in corpus.corpus.texts("train") for word in words_of(text)}
    human = list(corpus.corpus.texts("test"))
    corpus.close()
    describe("held-out reviews", human[: int(count)], known)
    for preset in presets or [plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)]:
        model, rates = reviewgen.load(preset), {}
        for words in ("known", "any"):
            model.generate("", seed=1, words=words)  # compiled
            for _ in range(ROUNDS):
                start = time.process_time()
                texts = model.generate("", seed=1, num_return_sequences=int(count), words=words)
                rates[words] = max(rates.get(words, 0.0), sum(map(len, texts)) / (time.process_time() - start))
            describe(f"{preset}, {words}", texts, known, human)
        print(
            f"{preset:22} {rates['known']:,.0f} characters/s, {rates['known'] / rates['any']:.2f} of any (target >= 0.85)",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
