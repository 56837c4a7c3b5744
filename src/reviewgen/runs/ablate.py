"""``reviewgen.ablate``: trains the whole preset, then the preset without one technique at a time,
then the plain preset, without any technique.

A technique is declared by the class that has its settings: by a model's config class, or by
``TrainingConfig``. All trainings have the same length, texts and seeds. With a time budget, all
have the model size that was chosen for the whole preset. All models are scored on the same held-out
texts, so the confidence interval of a difference is computed from pairs: the same text under both
models.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
from jaxtyping import Float64

from reviewgen.config.bounded import to_json
from reviewgen.config.options import TrainKwargs
from reviewgen.config.settings import Technique, check_count, to_dict
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import ConfigError
from reviewgen.evaluation.evaluate import evaluate_totals, sample_documents
from reviewgen.protocols.abilities import count_parameters
from reviewgen.rates import find_intervals
from reviewgen.runs.run import Run
from reviewgen.runs.setup import dotted
from reviewgen.runs.sweep import Variants
from reviewgen.training.device import choose_device
from reviewgen.training.softmax import sampled_softmax

_HELD_OUT_TOKENS = 50_000  # maximum number of held-out tokens that are scored


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """The results of one variant of a preset: its bits per character on held-out texts, and the
    difference from the whole preset.

    Attributes:
        name: "whole", the name of the technique that is left out, or "plain".
        description: What the technique is.
        settings: The settings that differ from those of the whole preset, as in {"model.ngrams":
            1}.
        bits: Bits per character of the held-out texts, the mean of all seeds. None for a technique
            that the whole preset did not use in its training: no model is trained for this row.
        gain: The bits of this row minus those of the whole preset. If positive, the technique saves
            bits. None for the whole preset.
        interval: The 95 % interval of ``gain`` over the held-out texts; None with fewer than 10
            texts.
        characters_per_second: Characters trained on per second, without the time of evaluations,
            over all seeds. None if the training is too short, or the model is trained by counting.
        seconds: Duration of the trainings with their evaluations.
        parameters: The number of parameters of each kind.
    """

    name: str
    description: str = ""
    settings: Mapping[str, Any]
    bits: float | None = None
    gain: float | None = None
    interval: tuple[float, float] | None = None
    characters_per_second: float | None = None
    seconds: float = 0.0
    parameters: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values; an infinite number becomes None."""
        return dict(to_json(self))


def ablate(
    preset: str,
    source: Any,
    *,
    seeds: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Unpack[TrainKwargs],
) -> Iterator[AblationRow]:
    """Run an ablation: train the full preset, the preset without each technique, and the plain
    preset; yield a row for each.

    All models are scored on the same held-out texts. With a time budget, all have the size that is
    chosen for the whole preset.

    >>> for row in reviewgen.ablate("lstm-char", "reviews.csv", budget="2m"):  # doctest: +SKIP
    ...     print(row.name, row.bits, row.gain)

    Args:
        preset: ``<model>-<tokenizer>``.
        source: The reviews.
        seeds: The number of trainings per row. They have different seeds, and their results are
            averaged.
        settings: Settings of all trainings, by group, as in {"model": {"hidden_size": 256}}. A
            technique whose settings are all given is not ablated.
        options: The other keywords of ``train``, except out, resume, model, tokenizer and training:
            budget (for each training), steps, epochs, seed, log, initial_weights, min_texts, and
            those for reading and filtering a corpus.

    Raises:
        ConfigError: An argument is unusable, the preset is a blend, or it has no technique; raised
            before any training.
        NotADistribution: The model's scores do not sum to one.
    """
    check_count("seeds", seeds)
    variants = Variants(("ablate", "seeds", "settings"), preset, source, settings, options)
    setup = variants.plan({}).setup
    configs = {"model": setup.model_class.Config}
    if not setup.is_counted:
        configs["training"] = TrainingConfig
    techniques = dict[str, tuple[Technique, dict[str, Any]]]()
    plain = dict[str, Any]()
    for group, config in configs.items():
        for technique in getattr(config, "techniques", ()):
            # the settings that switch the technique off, except those that the user has given
            off = {
                f"{group}.{name}": value
                for name, value in technique.off.items()
                if name not in variants.settings[group]
            }
            techniques[technique.name] = (technique, off)
            plain |= off
    if not plain:
        raise ConfigError(
            f"{preset} has no technique left to ablate: the settings of all of them are given."
        )
    # settings that cannot be combined with the given ones are refused before any work
    variants.plan(plain)
    for _, off in techniques.values():
        variants.plan(off)
    variants.skip_copy_rates(setup.training)
    return _rows(_Trainings(variants, seeds), techniques, plain)


def _rows(
    trainings: "_Trainings",
    techniques: Mapping[str, tuple[Technique, Mapping[str, Any]]],
    plain: Mapping[str, Any],
) -> Iterator[AblationRow]:
    """Train; yield the rows of the whole preset, of the preset without each technique, and of the
    plain preset.

    Args:
        trainings: Trains the variants.
        techniques: The techniques by name; each with the settings that switch it off.
        plain: The settings that switch all techniques off.
    """
    yield trainings.train(AblationRow(name="whole", settings={}))
    plain_row = None
    for name, (technique, off) in techniques.items():
        row = AblationRow(name=name, description=technique.description, settings=off)
        # a technique that the whole preset did not use gets a row without results
        if any(trainings.used[setting] != value for setting, value in off.items()):
            row = trainings.train(row)
            # without its only technique, the preset is the plain one
            plain_row = row if off == plain else None
        yield row
    if plain_row is None:
        yield trainings.train(AblationRow(name="plain", settings=plain))
    else:
        yield replace(plain_row, name="plain", description="")


class _Trainings:
    """Trains each variant of a preset from several seeds, and compares it with the whole preset,
    which is trained first.
    """

    def __init__(self, variants: Variants, seeds: int) -> None:
        self._variants = variants
        self._seeds = seeds
        # nats of each held-out text under the whole preset
        self._whole: Float64[np.ndarray, " N"] | None = None
        # the settings that the whole preset was trained with, by dotted name ("model.ngrams")
        self.used: dict[str, Any] = {}

    def train(self, row: AblationRow) -> AblationRow:
        """Train from each seed with the settings of a row; return the row with the results."""
        nats_by_seed = []  # for each seed, the nats of each held-out text
        characters_read = 0.0
        seconds = 0.0
        training_seconds = 0.0
        for number in range(self._seeds):
            plan = self._variants.plan(row.settings)
            run = self._variants.start(replace(plan, seed=plan.seed + number))
            corpus = self._variants.corpus(plan)
            # keep only the last report: an hour of training gives too many to keep them all
            [last] = deque(run, maxlen=1)
            documents = sample_documents(corpus.stores[corpus.final_split], _HELD_OUT_TOKENS)
            nats = list[float]()
            evaluate_totals(run.model, documents, corpus.tokenizer.vocab_size, nats=nats)
            nats_by_seed.append(nats)
            store = corpus.stores["train"]
            characters_read += last.tokens * int(store.characters.sum()) / store.count
            seconds += last.seconds
            training_seconds += last.seconds - last.evaluation_seconds
        if not self.used:
            self.used = _used_settings(run)
        is_timed = training_seconds > 0.01 * seconds and not plan.setup.is_counted
        means = np.mean(nats_by_seed, axis=0)
        characters = [length for _, length in documents]
        row = replace(
            row,
            bits=_bits(list(zip(means, characters, strict=True)))[0],
            characters_per_second=characters_read / training_seconds if is_timed else None,
            seconds=seconds,
            parameters=count_parameters(run.model),
        )
        if self._whole is None:
            self._whole = means
            return row
        differences = list(zip(means - self._whole, characters, strict=True))
        # a difference is not a rate between 0 and 1
        [interval] = find_intervals(_bits, differences, [False])
        return replace(
            row,
            gain=_bits(differences)[0],
            interval=None if interval is None else (interval[0], interval[1]),
        )


def _used_settings(run: Run) -> dict[str, Any]:
    """Return the settings that a model was trained with, by dotted name."""
    config = run.record.training
    used = dotted({"model": to_dict(run.model.config), "training": to_dict(config)})
    if not run.plan.setup.is_counted:
        device, _ = choose_device(config.device, run.model)
        if sampled_softmax(run.model, config.sampled_softmax, device.type) is None:
            # the vocabulary is too small, or the device is not a CPU
            used["training.sampled_softmax"] = 0
    return used


def _bits(texts: Sequence[tuple[float, int]]) -> list[float]:
    """Return the bits per character of texts, given each text's (nats, characters). The only item
    of the list is the result, since ``find_intervals`` takes functions of several figures.
    """
    total = float(sum(nats for nats, _ in texts))
    characters = sum(length for _, length in texts)
    return [total / math.log(2) / max(1, characters)]
