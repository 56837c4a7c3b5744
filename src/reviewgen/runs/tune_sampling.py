"""``reviewgen.tune_sampling``: finds the generation settings whose texts are most like human texts.

Generated texts are compared with human texts of about the same total length, by some figures: the
share of unknown words, distinct n-grams, length, repetition, and bits per character under a judge.
The judge is another model, trained on other texts. The distance is the mean difference of the
figures; the unit of each difference is the standard deviation of the figure between groups of human
texts.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any, Unpack

import numpy as np

from reviewgen.config.generation import GenerationConfig, generation_config
from reviewgen.config.options import EvaluateKwargs
from reviewgen.config.settings import check_mapping, check_seed
from reviewgen.data.texts import read_documents
from reviewgen.data.tokens import tokens_of
from reviewgen.errors import ConfigError, DataError, did_you_mean, quoted
from reviewgen.evaluation.metrics import TextStatistics, measure_texts, take_words
from reviewgen.generation.decode import SAMPLING_SETTINGS
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.runs.run import TrainingRun
from reviewgen.runs.trials import Trial, check_values, combine, name_settings, train_run
from reviewgen.sentences import sentence_ends

DEFAULT_SEARCH: Mapping[str, Sequence[Any]] = {
    "temperature": (0.7, 0.8, 0.9, 1.0, 1.1),
    "top_p": (1.0, 0.95),
}
_SEARCHED = (*SAMPLING_SETTINGS, "words")
_MAX_TEXTS = 20_000  # maximum number of human texts that are read
_GROUPS = 5  # groups of human texts, for the standard deviations between them
_MIN_TEXTS = 4 * _GROUPS  # minimum number of generated texts; twice as many human texts are needed
_MIN_DEVIATION = 1e-3  # a smaller standard deviation counts as this, as it may be zero
_MAX_DEVIATIONS = 10.0  # a larger difference, in standard deviations, counts as this
_JUDGE = "ngram-char"
# In blind comparisons, people preferred to read texts within these two limits.
_MAX_REPEATED = 0.02  # maximum share of the texts that repeat a sentence
_MIN_DISTINCT = 0.6  # minimum ratio of distinct-2 of the texts to distinct-2 of human texts


@dataclass(frozen=True, kw_only=True)
class SamplingTrial(Trial):
    """The figures of texts that were generated with one combination of settings, and of human texts
    with about as many words.

    Attributes:
        generated: The figures of the generated texts.
        human: The same figures of human texts, which are cut off and finished like generated texts.
        distance: The mean difference of the figures, in standard deviations between groups of human
            texts. A difference of more than 10 counts as 10. The differences of distinct-1 to -4
            are averaged first, so they count as one figure.
    """

    generated: TextStatistics
    human: TextStatistics
    distance: float

    @property
    def reading(self) -> float:
        """Bits per character of the generated texts under the judge: the lower, the better they
        read. Infinite if more than 2 % of the texts repeat a sentence, or if their distinct-2 is
        below 0.6 times that of human texts."""
        texts = self.generated
        is_dull = texts.distinct[1] < _MIN_DISTINCT * self.human.distinct[1]
        if is_dull or texts.repeated_sentences > _MAX_REPEATED or texts.bits_per_character is None:
            return math.inf
        return texts.bits_per_character


def tune_sampling(
    model: ReviewModel,
    source: Any,
    *,
    search: Mapping[str, Sequence[Any]] | None = None,
    texts: int = 100,
    judge: ReviewModel | None = None,
    profile: str = "likeness",
    seed: int = 0,
    **options: Unpack[EvaluateKwargs],
) -> Iterator[SamplingTrial]:
    """Try generation settings for a profile; yield one trial for each combination of values.

    Each trial compares generated texts with human texts of about as many words, by these figures:
    the share of unknown words, distinct-1 to 4, the length, the repetition within a text, and the
    bits per character under a judge, a model that was trained on other texts. For the profile
    "likeness", the trial with the lowest ``distance`` is the best: the mean difference of the
    figures, in standard deviations between groups of human texts. For the profile "reading", the
    trial with the lowest ``reading`` is the best: the bits per character of texts that do not
    repeat themselves.

    >>> model = reviewgen.load("./my-model")  # doctest: +SKIP
    >>> trials = list(reviewgen.tune_sampling(model, "held-out.csv"))  # doctest: +SKIP
    >>> best = min(trials, key=lambda trial: trial.distance)  # doctest: +SKIP
    >>> model.save_generation_config("./my-model", likeness=best.settings)  # doctest: +SKIP

    Args:
        model: The model.
        source: At least 40 human texts that the model was not trained on.
        search: The values to try, by setting: temperature, top_k, top_p, min_p, repetition_penalty,
            no_repeat_ngram_size, words. By default temperatures from 0.7 to 1.1, each with top_p 1
            and 0.95.
        texts: The number of texts that are generated for each trial, at least 20.
        judge: The model that scores all texts; by default an n-gram trained on half of the human
            texts, which are then left out of the comparison.
        profile: The profile that supplies the settings that are not searched, "reading" or
            "likeness".
        seed: The seed of the generated texts, and of the order of the human texts.
        options: As in ``ReviewModel.evaluate``: split, text_column, documents and cleaning.

    Raises:
        ConfigError: A setting or an argument is unusable; raised before any generation.
        DataError: The source cannot be read, or has fewer than 40 texts.
    """
    check_model("model", model)
    check_model("judge", judge or model)
    if not isinstance(texts, int) or isinstance(texts, bool) or texts < _MIN_TEXTS:
        raise ConfigError(
            f"texts must be a whole number of at least {_MIN_TEXTS}; got {quoted(texts)}."
        )
    defaults = model.generation_config
    if profile != "likeness" or defaults.likeness:
        defaults = defaults.of_profile(profile)
    seed = check_seed(seed)
    combinations = _combinations(defaults, search, texts)
    human = _read_human(source, model, seed, options)
    # if no judge is given, one is trained on half of the human texts
    half = len(human) // 2 if judge is None else 0
    scorer = judge or _train_judge(human[:half], seed)
    reference = [shorten_as_generated(text, model) for text in human[half:]]
    lexicon = model.bundle.lexicon

    def score(scored: Sequence[str]) -> float:
        """Return the bits per character of texts under the judge."""
        return scorer.evaluate([text for text in scored if text], clean=False).bits_per_character

    measure = partial(
        measure_texts, is_known=None if lexicon is None else lexicon.__contains__, score=score
    )

    def trials() -> Iterator[SamplingTrial]:
        """Generate texts with each combination of settings, and yield a trial for each."""
        deviations = _deviations(reference, texts, measure)
        for combination in combinations:
            started = time.monotonic()
            written = model.generate(
                "", generation_config=defaults, num_return_sequences=texts, seed=seed, **combination
            )
            # both samples are cut to about the same number of words
            human_statistics = measure(take_words(reference, measure_texts(written).words))
            statistics = measure(take_words(written, human_statistics.words))
            distance = _distance(statistics, human_statistics, deviations)
            yield SamplingTrial(
                name=name_settings(combination),
                settings=combination,
                seconds=round(time.monotonic() - started, 2),
                generated=statistics,
                human=human_statistics,
                distance=distance,
            )

    return trials()


def _read_human(source: Any, model: ReviewModel, seed: int, options: EvaluateKwargs) -> list[str]:
    """Return the human texts of a source in random order, encoded and decoded by the model's
    tokenizer, so that they are spelled like generated texts.

    Raises:
        DataError: There are too few texts.
    """
    documents = itertools.islice(read_documents(source, model.bundle, **options), _MAX_TEXTS)
    token_ids = (tokens_of(ids, model.tokenizer.vocab_size).tolist() for ids, _ in documents)
    human = list(filter(None, map(model.tokenizer.decode, token_ids)))
    if len(human) < 2 * _MIN_TEXTS:
        raise DataError(
            f"Comparing with human texts needs at least {2 * _MIN_TEXTS}; the source has"
            f" {len(human)}."
        )
    order = np.random.default_rng(seed).permutation(len(human)).tolist()
    return [human[number] for number in order]


def _deviations(
    reference: Sequence[str], texts: int, measure: Callable[[Sequence[str]], TextStatistics]
) -> list[float]:
    """Return the standard deviation of each figure between groups of human texts, scaled to groups
    of as many texts as are generated.

    Raises:
        ConfigError: The judge gives a text probability zero.
    """
    size = min(texts, len(reference) // _GROUPS)
    starts = range(0, _GROUPS * size, size)
    groups = [_figures(measure(reference[start : start + size])) for start in starts]
    if not all(map(math.isfinite, itertools.chain.from_iterable(groups))):
        raise ConfigError(
            "The judge gives some of the human texts probability zero: give one that is smoothed."
        )
    scale = math.sqrt(size / texts)
    columns = zip(*groups, strict=True)
    return [max(_MIN_DEVIATION, scale * stdev(figures)) for figures in columns]


def _combinations(
    defaults: GenerationConfig, search: Mapping[str, Sequence[Any]] | None, texts: int
) -> list[dict[str, Any]]:
    """Return every combination of the values of the searched settings. All are checked, so that a
    bad value is refused before any work.
    """
    values = check_mapping("search", search or DEFAULT_SEARCH, "{'temperature': [0.8, 0.9]}")
    for name, listed in values.items():
        if name not in _SEARCHED:
            raise ConfigError(
                f"{quoted(name)} is not a setting of sampling. {did_you_mean(name, _SEARCHED)}"
            )
        check_values(name, listed)
    combinations = combine(values)
    for settings in combinations:
        generation_config(defaults, settings=settings | {"num_return_sequences": texts})
    return combinations


def shorten_as_generated(text: str, model: ReviewModel) -> str:
    """Shorten a human text as if it had been generated: cut it off after ``max_new_tokens`` tokens
    and, if the model finishes sentences, after the last whole sentence.
    """
    config = model.generation_config
    ids = model.tokenizer.encode(text)
    if len(ids) <= config.max_new_tokens:
        return text
    cut = model.tokenizer.decode(list(ids[: config.max_new_tokens])).rstrip("\ufffd")
    ends = sentence_ends(cut) if config.finish == "sentence" else []
    return cut[: ends[-1]] if ends else cut


def _train_judge(texts: Sequence[str], seed: int) -> ReviewModel:
    """Train the judge, an n-gram, on texts; return it."""
    # The first tenth is held out. The hashes of the texts are not used to choose it: all texts may
    # come from one split, and that split was chosen by these hashes.
    held_out = max(1, len(texts) // 10)
    settings: Any = {"model": {"order": 6}, "training": {"novelty": "none", "copy_tokens": 0}}
    run = TrainingRun(
        _JUDGE, list(texts[held_out:]), validation=list(texts[:held_out]), seed=seed, **settings
    )
    run.read()
    run.tokenize()
    train_run(run)
    return run.finish()


def _figures(statistics: TextStatistics) -> list[float]:
    """Return the figures that are compared. A figure that is None counts as 0, for generated and
    human texts alike.
    """
    unknown = statistics.unknown_words or 0.0
    bits = statistics.bits_per_character or 0.0
    return [*statistics.distinct, unknown, statistics.words_per_text, statistics.repetition, bits]


def _distance(
    generated: TextStatistics, human: TextStatistics, deviations: Sequence[float]
) -> float:
    """Return the distance of generated and human texts; see ``SamplingTrial``."""
    figures = zip(_figures(generated), _figures(human), deviations, strict=True)
    # an infinite difference counts as the maximum, too
    differences = [
        min(_MAX_DEVIATIONS, abs(generated_figure - human_figure) / deviation)
        for generated_figure, human_figure, deviation in figures
    ]
    distinct = len(generated.distinct)  # these figures come first, and count as one
    return fmean([fmean(differences[:distinct]), *differences[distinct:]])
