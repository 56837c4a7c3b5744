"""Write ``docs/reference/trained-models.md``: the figures of the trained weights, and texts of some
of them as they are.

python -m docs.mkdocs.trained_models

Needs ``reviewgen[reviews]``, and takes a few minutes. The texts are not chosen: they are the first
five of seed 1.
"""

import json
import textwrap
from pathlib import Path

import reviewgen
from docs.mkdocs import hours
from reviewgen.data.columns import DataConfig
from reviewgen.data.split import CorpusSpec, read_corpus
from reviewgen.registry.plugins import find_weights, list_presets
from reviewgen.registry.saved import describe_weights
from tests.benchmarks.readability import read_generated, read_reviews

ROOT = Path(__file__).parents[2]
TEXTS = 100
CLASSIFIED = 100  # held-out texts
SAMPLED = ("lstm-word", "gru-word", "blend-word", "lstm-char")
PAGE = """# Trained weights

These weights come with reviewgen; `reviewgen list` shows them. They were trained on {train:,} film reviews, and {held_out:,} were
held out; `examples/train_pretrained.py` is the script that trained them. Networks are saved in 8 bits, and a blend shares the
files of its two models. By default, all presets generate whole reviews; `--condition style=snippet` asks for single sentences in
lower case, and `--condition sentiment=positive` or `negative` for a positive or negative opinion; without it, one of both is
drawn for each text. The default settings were [chosen by blind comparison of texts](#how-the-defaults-were-chosen).

| preset | MB | bits | settings | unknown words, `known` | `any` | distinct-2 | of reviews | whole | copy rate | of reviews |
|---|---|---|---|---|---|---|---|---|---|---|
{rows}

All columns except `MB`, `bits`, `settings`, `copy rate` and the one beside it are measured on {texts} texts at the default
settings, the profile `reading`; `of reviews` is the same measure of an equal number of words of test reviews:

- **bits**: per character of all reviews of the test split.
- **unknown words**: the share of words that are not in the training text, with `words="known"`, the default, and with `"any"`.
  For the held-out reviews, this share is {unknown:.2%}.
- **settings**: those of the profile `reading`; `--profile likeness` uses other settings.
- **distinct-2**: the share of distinct word pairs. A lower value means more repetitive texts; a low temperature lowers it.
- **whole**: the share of texts that end by themselves or at the end of a sentence.
- **copy rate**: the share of the generated text that lies in spans of 50 or more characters copied from the training text;
  measured on 500 texts.

Two networks need more bits than the n-gram with the same tokens: `nnlm-char` reads eleven characters, and `nnlm-word` reads four
tokens. Both have about the same bits on texts that they were trained on (2.02 and 1.95, against 2.03 and 1.97 on test reviews):
they have not learned the corpus by heart, unlike the n-grams, which have learned part of it (1.77 against 1.81 for characters,
1.60 against 1.70 for words). More time would help: `nnlm-word` still improved by 1.8 % in the last quarter of its two hours.

`python -m tests.benchmarks readability` repeats these measurements, and `python -m docs.mkdocs.trained_models` writes this page.

## What an hour buys

![Bits per character by the minutes of training: lstm-word, gru-word, rnn-word, nnlm-word and ngram-word](../pictures/hours-word.svg)

![Bits per character by the minutes of training: lstm-char, gru-char, rnn-char, nnlm-char and ngram-char](../pictures/hours-char.svg)

The charts show the bits of validation reviews during the trainings that made these weights, each on one core. The table shows the
fewest bits up to each time:

{hours}

The learning rate falls until the end of a training, and much of the gain comes with it. So a training that is planned for ten
minutes is better after ten minutes than a longer one: compare `rnn-word` with `gru-word`. Of the first two trainings of
`lstm-word` and the first one of `gru-char`, only the end is recorded. An n-gram counts all reviews in less than a minute, and more time does not change it.

## What they have learned

[Probes of structure](../how-to/probe.md): in percent, with 95 % intervals. Chance is 50 for the first four; a model that looks
only at the nearest noun gets 0 for agreement past an attractor.

{probes}

The last column is the accuracy of [`classify`](../how-to/classify.md) on {classified} texts of the test split: whether they are
positive or negative. Always answering with the majority class gives {baseline:.0%}. Recurrent networks over
words, and `blend-word`, do better than chance; models over characters are no better than chance.

## How the defaults were chosen

Each row compares two settings in 60 pairs of texts. The pairs were shuffled and the settings hidden, and language models judged
each pair twice, independently; they were asked which text a person would rather read. The two judges agreed in 72 to 97 % of the
pairs. Settings that are not named are off. In the comparisons of GRUs and of new weights, neither setting was preferred beyond
chance, so the defaults stayed as they were.

| preset | one | another | prefer the one | the other | neither |
|---|---|---|---|---|---|
| `lstm-word` | temperature 0.7 | temperature 0.8, repetition penalty 1.15 | 85 | 35 | 0 |
| `lstm-word` | temperature 0.8, repetition penalty 1.15 | temperature 0.9 | 78 | 42 | 0 |
| `lstm-word` | temperature 0.7 | **temperature 0.7, repetition penalty 1.1** | 53 | 65 | 2 |
| `lstm-word` | **temperature 0.7, repetition penalty 1.1** | temperature 0.8, top-p 0.9, repetition penalty 1.1 | 66 | 54 | 0 |
| `lstm-char` | temperature 0.7 | temperature 1, top-p 0.9 | 100 | 20 | 0 |
| `lstm-char` | temperature 1, top-p 0.9 | temperature 0.8 | 81 | 39 | 0 |
| `lstm-char` | temperature 0.7 | temperature 0.8, top-p 0.9 | 36 | 81 | 3 |
| `lstm-char` | temperature 0.8, top-p 0.9 | **temperature 0.9, top-p 0.85** | 59 | 58 | 3 |
| `lstm-char`, new weights | **temperature 0.9, top-p 0.85** | temperature 0.8, top-p 0.9 | 52 | 66 | 2 |
| `gru-char` | **temperature 0.9, top-p 0.85** | temperature 0.8, top-p 0.9 | 57 | 63 | 0 |
| `blend-char`, new weights | **temperature 0.9, top-p 0.85** | temperature 0.8, top-p 0.9 | 56 | 64 | 0 |
| `gru-word` | **temperature 0.7, repetition penalty 1.1** | temperature 0.8, top-p 0.9, repetition penalty 1.1 | 63 | 55 | 2 |
| `blend-word` | temperature 0.7 | temperature 0.9 | 108 | 12 | 0 |
| `blend-word` | temperature 0.9 | temperature 1, top-p 0.9 | 65 | 55 | 0 |
| `blend-word` | temperature 0.7 | **temperature 0.7, repetition penalty 1.1** | 54 | 64 | 2 |
| `blend-word` | **temperature 0.7, repetition penalty 1.1** | temperature 0.8, top-p 0.9, repetition penalty 1.1 | 69 | 50 | 1 |
| `ngram-word` | **temperature 0.7** | temperature 0.85, repetition penalty 1.1 | 94 | 24 | 2 |
| `ngram-word` | temperature 0.85, repetition penalty 1.1 | temperature 0.9, top-p 0.95 | 52 | 68 | 0 |
| `ngram-word` | **temperature 0.7** | temperature 0.7, repetition penalty 1.1 | 52 | 52 | 16 |
| `ngram-word` | temperature 0.7, repetition penalty 1.1 | temperature 0.8, top-p 0.9, repetition penalty 1.1 | 60 | 50 | 10 |

Since a condition that is not given is drawn for each text, the profile `reading` of the three presets `lstm-word`, `gru-word`
and `blend-word` was compared again with two settings that use "film" and "movie" less often: 20 pairs for each preset and each
setting, with the same sentiment in both texts of a pair, judged in the same way (the judges agreed in 86 % of the pairs).
Temperature 0.8 with repetition penalty 1.1 was preferred 21 times, and the profile 95 times; temperature 0.8, top-p 0.95 and
repetition penalty 1.15 were preferred 37 times, and the profile 81 times. So the profile stays.

The other presets use the settings of the most similar of these presets. In a tie, the setting with more varied texts was chosen,
and for `ngram-word` the faster one. The next table shows two figures for 120 texts of each setting: distinct-2, divided by the
distinct-2 of the same number of words of human text, and bits per character under a blend that was trained on half of the
reviews. With every setting, at most 1 % of the texts repeat a sentence.

| preset | settings | distinct-2 relative to human text | bits |
|---|---|---|---|
| `lstm-word` | temperature 0.7 | 0.54 | 1.078 |
| `lstm-word` | **temperature 0.7, repetition penalty 1.1** | 0.67 | 1.149 |
| `lstm-word` | temperature 0.8, repetition penalty 1.15 | 0.86 | 1.384 |
| `lstm-word` | temperature 0.9 | 0.87 | 1.451 |
| `lstm-word` | temperature 0.95, `likeness` | 0.94 | 1.553 |
| `lstm-char` | temperature 0.7 | 0.75 | 1.331 |
| `lstm-char` | **temperature 0.9, top-p 0.85** | 0.68 | 1.233 |
| `lstm-char` | temperature 1, top-p 0.9 | 0.87 | 1.460 |
| `lstm-char` | temperature 0.9, `likeness` | 0.96 | 1.656 |
| `blend-word` | temperature 0.7 | 0.57 | 1.100 |
| `blend-word` | **temperature 0.7, repetition penalty 1.1** | 0.57 | 1.083 |
| `blend-word` | temperature 0.95, `likeness` | 0.93 | 1.551 |
| `ngram-word` | **temperature 0.7** | 0.63 | 1.276 |
| `ngram-word` | temperature 1, `likeness` | 1.00 | 1.735 |

So the texts that the judges preferred are less varied than what people write: settings whose texts have at least 0.85 of the
variety of human texts lost to less varied settings in 71 to 90 % of the pairs.

## Five texts each

These are the first five texts of seed 1 at the default settings, unedited except for line breaks.
{samples}"""


def main() -> None:
    """Measure the weights, and write the page and its charts."""
    hours.main()
    known, human = read_reviews()
    presets = [plugin.name for plugin in list_presets() if find_weights(plugin.name)]
    readings = {
        preset: [read_generated(preset, words, TEXTS, known, human) for words in ("known", "any")]
        for preset in presets
    }
    data = training_of(presets[0])["data"]
    probes, baseline = probe(presets)
    page = PAGE.format(
        rows="\n".join(row(preset, *readings[preset]) for preset in presets),
        texts=TEXTS,
        unknown=readings["lstm-word"][0].human.unknown_words,
        samples="".join(samples(preset) for preset in SAMPLED),
        probes=probes,
        hours=hours.table(),
        classified=CLASSIFIED,
        baseline=baseline,
        train=data["reviews"]["train"],
        held_out=data["reviews"]["validation"] + data["reviews"]["test"],
    )
    (ROOT / "docs" / "reference" / "trained-models.md").write_text(page, encoding="utf-8")


def row(preset, known, free) -> str:
    """Return the table's row of a preset."""
    facts = describe_weights(preset)
    novelty = training_of(preset)["novelty"]
    cells = (
        f"`{preset}`",
        f"{facts.megabytes:.1f}",
        f"{facts.bits_per_character:.3f}",
        describe(reviewgen.load(preset).generation_config),
        f"{known.texts.unknown_words:.2%}",
        f"{free.texts.unknown_words:.2%}",
        f"{known.texts.distinct[1]:.3f}",
        f"{known.human.distinct[1]:.3f}",
        f"{known.whole:.0%}",
        f"{novelty['copy_rate']:.2%}",
        f"{novelty['held_out_copy_rate']:.2%}",
    )
    return f"| {' | '.join(cells)} |"


def probe(presets) -> tuple[str, float]:
    """Return the table of the probes and of the accuracy of ``classify``, and the share of the more
    frequent answer.
    """
    conditions = DataConfig(conditions=("sentiment",))
    texts = [
        {"text": text, "sentiment": value}
        for text, (value,) in read_corpus(CorpusSpec("reviews", conditions)).examples("test")
    ]
    texts = [text for text in texts if text["sentiment"]]
    chosen = texts[:: len(texts) // CLASSIFIED][:CLASSIFIED]
    lines = []
    for preset in presets:
        model = reviewgen.load(preset)
        rows = reviewgen.probe(model).rows
        accuracy = model.accuracy(chosen, "sentiment")
        names = [row.probe for row in rows]
        figures = [(row.share, row.interval) for row in rows] + [
            (accuracy.accuracy, accuracy.interval)
        ]
        lines.append(f"| `{preset}` | {' | '.join(show(*each) for each in figures)} |")
    head = f"| preset | {' | '.join(names)} | sentiment |\n{'|---' * (len(names) + 2)}|"
    return "\n".join([head, *lines]), accuracy.baseline


def show(share, interval) -> str:
    """Return a share with its interval in percent; a dash if it is not known."""
    return (
        "–"
        if share is None
        else f"{100 * share:.0f}"
        + (f" ({100 * interval[0]:.0f}–{100 * interval[1]:.0f})" if interval else "")
    )


def describe(config) -> str:
    """Return the settings of sampling that are not off."""
    values = {
        "temperature": config.temperature,
        "top-p": config.top_p,
        "repetition penalty": config.repetition_penalty,
    }
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if value != 1)


def samples(preset) -> str:
    """Return a section with five texts of a preset."""
    texts = reviewgen.load(preset).generate(num_return_sequences=5, seed=1)
    wrapped = "\n\n".join(textwrap.fill(text, 120) for text in texts)
    return (
        f"\n### {preset}\n\n`reviewgen generate {preset} -n 5 --seed"
        f" 1`\n\n```text\n{wrapped}\n```\n"
    )


def training_of(preset) -> dict:
    """Return the training record of a preset's weights."""
    return json.loads((find_weights(preset) / "training.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
