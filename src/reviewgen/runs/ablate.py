"""``reviewgen.ablate``: trains the whole preset, then the preset without one technique at a time,
then the plain preset, without any technique.

A technique is declared by the class that has its settings: by a model's config class, or by
``TrainingConfig``. All trainings have the same length, texts and seeds. With a time budget, all
have the model size that was chosen for the whole preset. All models are scored on the same held-out
texts, so the confidence interval of a difference is computed from pairs: the same text under both
models.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.config.options import ExperimentKwargs
from reviewgen.config.settings import Technique, to_dict
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import ConfigError
from reviewgen.evaluation.differences import Interval, SeedSpread, compare_bits
from reviewgen.runs.run import Run
from reviewgen.runs.setup import dotted
from reviewgen.runs.trials import Experiment, TrainedTrial, Training, describe_unequal, summarize
from reviewgen.training.device import choose_device
from reviewgen.training.softmax import sampled_softmax


@dataclass(frozen=True, kw_only=True)
class AblationRow(TrainedTrial):
    """The results of one variant of a preset: its bits per character on held-out texts, and the
    difference from the whole preset. Its name is "whole", the name of the technique that is left
    out, or "plain".

    Attributes:
        description: What the technique is.
        gain: The bits of this row minus those of the whole preset. If positive, the technique saves
            bits. None for the whole preset, and without bits.
        gain_interval: The 95 % interval of ``gain``: over the held-out texts and, with several
            seeds, over the seeds. None for a single text.
        is_better: Whether this row is better than the whole preset. None, for unknown, unless the
            interval covers texts and seeds and excludes zero. The seed does not matter to a model
            that is trained by counting.
    """

    description: str = ""
    gain: float | None = None
    gain_interval: Interval | None = None
    is_better: bool | None = None


def ablate(
    preset: str,
    source: Any,
    *,
    seeds: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    **options: Unpack[ExperimentKwargs],
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
        seeds: The number of trainings per row, from different seeds: the figures are their means.
            Only several seeds show whether a technique helps.
        settings: Settings of all trainings, by group, as in {"model": {"hidden_size": 256}}. A
            technique whose settings are all given is not ablated.
        out: A folder for the finished trainings; it must not exist.
        resume: Whether to continue in ``out``, and train only what is missing.
        options: The other keywords of ``train`` that make sense for several trainings: budget (for
            each training), steps, epochs, seed, log, initial_weights, min_texts, and those for
            reading and filtering a corpus.

    Raises:
        ConfigError: An argument is unusable, the preset is a blend, or it has no technique; raised
            before any training.
        NotADistribution: The model's scores do not sum to one.
        OutputExists: ``out`` exists, and ``resume`` is not set.
        CheckpointError: ``resume`` is set, but ``out`` is not an ablation, or has other texts or
            settings.
    """
    function = ("ablate", "seeds", "settings", "out", "resume")
    experiment = Experiment(
        function, preset, source, settings, options, seeds=seeds, measure=_used_settings
    )
    setup = experiment.plan({}).setup
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
                if name not in experiment.settings[group]
            }
            techniques[technique.name] = (technique, off)
            plain |= off
    if not plain:
        raise ConfigError(
            f"{preset} has no technique left to ablate: the settings of all of them are given."
        )
    # settings that cannot be combined with the given ones are refused before any work
    experiment.plan(plain)
    for _, off in techniques.values():
        experiment.plan(off)
    experiment.skip_copy_rates(setup.training)
    experiment.open_store("ablation", "out", out, resume=resume)
    return _rows(experiment, techniques, plain)


def _rows(
    experiment: Experiment,
    techniques: Mapping[str, tuple[Technique, Mapping[str, Any]]],
    plain: Mapping[str, Any],
) -> Iterator[AblationRow]:
    """Train; yield the rows of the whole preset, of the preset without each technique, and of the
    plain preset.

    Args:
        experiment: Trains the variants.
        techniques: The techniques by name; each with the settings that switch it off.
        plain: The settings that switch all techniques off.
    """
    whole = experiment.train("whole", {})
    yield AblationRow(**summarize(whole))
    used = whole[0].figures
    # the seed does not change a model that is trained by counting
    seed_spread = SeedSpread(0.0, 1) if experiment.plan({}).setup.is_counted else None
    variants = {name: (technique.description, off) for name, (technique, off) in techniques.items()}
    for name, (description, off) in {**variants, "plain": ("", plain)}.items():
        row: dict[str, Any] = {"name": name, "description": description, "settings": off}
        # a setting that was not recorded counts as switched off
        is_off = all(used.get(setting, value) == value for setting, value in off.items())
        if name != "plain" and is_off:
            # the whole preset did not use the technique in its training
            yield AblationRow(**row, outcome="unused")
            continue
        # If the preset has only one technique, the plain preset has the same settings as the preset
        # without this technique; ``train`` then returns the stored results.
        trainings = experiment.train(name, off, may_fail=True)
        difference = _compare(whole, trainings, seed_spread)
        yield AblationRow(**{**summarize(trainings), **difference, **row})


def _compare(
    whole: Sequence[Training], trainings: Sequence[Training], seed_spread: SeedSpread | None
) -> dict[str, Any]:
    """Return the fields of a row on its difference from the whole preset."""
    if not all(training.nats for training in trainings):
        return {}
    # (seeds, texts) nats of the whole preset, and of the variant
    base, candidate = (
        np.array([training.nats for training in each]) for each in (whole, trainings)
    )
    difference = compare_bits(base, candidate, np.array(whole[0].characters), seed_spread)
    shares = {each[0].name: summarize(each)["processor_share"] for each in (whole, trainings)}
    return {
        "gain": difference.value,
        "gain_interval": difference.interval,
        "is_better": None if describe_unequal(shares) else difference.is_better,
    }


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
