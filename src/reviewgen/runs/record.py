"""The record of a run: what it has reported, its learning curves, and what is measured at its end;
``training.json`` has all.

The loss of one step is noisy, so means are kept: over the steps since the last evaluation, and
since the last point of a thinned curve. Their sums stay on the device; converting one to a number
waits for the device, a few hundred times a run.

At the end come the bits per character of held-out texts, and copy rate and metrics of generated
ones; and whether training the weights that ship with a preset further would have been better: they
know a language, and a training from scratch learns it from its own texts. After many epochs on a
small corpus, there is nothing more to learn from it.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from reviewgen.config.bounded import to_json
from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import to_dict
from reviewgen.data.store import TokenStore, tokens_of
from reviewgen.errors import NotADistribution, ReviewgenError
from reviewgen.evaluation.evaluate import (
    Evaluation,
    evaluate_documents,
    measure_rate,
    sample_documents,
    spread_documents,
)
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.evaluation.scoring import Document
from reviewgen.generation.generator import Generator
from reviewgen.generation.model_stepper import make_stepper
from reviewgen.generation.request import Request
from reviewgen.lexicon.token_bytes import decode_texts
from reviewgen.model.review_model import ReviewModel
from reviewgen.novelty import COPY_CHARACTERS, CompactIndex, Index, count_copied
from reviewgen.protocols.model import CountTrained, LanguageModel
from reviewgen.rates import MIN_CHARACTERS, find_intervals
from reviewgen.registry.plugins import find_weights
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.setup import resolve_setup
from reviewgen.runs.tracking import TERM
from reviewgen.training.evaluator import SAMPLE_TOKENS
from reviewgen.training.report import Report

# evenly spread points of the thinned curve, besides the first and last step and the evaluations
_POINTS = 200
_SAVED = ("notes", "size", "evaluations", "points")  # the fields that a checkpoint has


@dataclass
class Mean:
    """The mean loss of some steps, and that of each of the model's own loss terms, by name; the
    plain loss has no name.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step."""
        self.sums = {
            name: loss + self.sums[name] if name in self.sums else loss
            for name, loss in losses.items()
        }
        self.steps += 1

    def take(self) -> dict[str, float]:
        """Return the means, and start again."""
        means = {name: float(total) / self.steps for name, total in self.sums.items()}
        self.sums = {}
        self.steps = 0
        return means


@dataclass
class Curves:
    """The learning curves of a run: its evaluations, and a thinned curve of the loss and the
    learning rate between them.
    """

    targets_per_character: float = 1.0  # nats per token times this are nats per character
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)

    def curve(self) -> dict[str, list[Any]]:
        """Return the points as a list per name."""
        return {
            name: [point.get(name) for point in self.points]
            for name in (self.points[0] if self.points else ())
        }


@dataclass
class RunRecord(Curves):
    """What a run has reported so far. Each checkpoint saves a copy, without the last report.

    Attributes:
        notes: Sentences for the user, each once.
        size: The settings that were chosen for the run's time budget, if any, by group: "model" and
            "training".
        last: The last report; before the first step one of no tokens.
        means: The losses since the last evaluation, and since the last point.
    """

    notes: list[str] = field(default_factory=list)
    size: Mapping[str, Mapping[str, Any]] | None = None
    last: Report = field(default_factory=lambda: Report(0, 0.0, 0.0, 0))
    means: tuple[Mean, Mean] = field(default_factory=lambda: (Mean(), Mean()))

    @classmethod
    def of(cls, store: TokenStore, saved: Mapping[str, Any]) -> "RunRecord":
        """Return the record of a training on some texts: what a checkpoint has saved, or an empty
        one for an empty mapping.
        """
        targets_per_character = (store.tokens - len(store) - int(store.given.sum())) / int(
            store.characters.sum()
        )
        if not saved:
            return cls(targets_per_character)
        first, second = (Mean(**fields) for fields in saved["means"])
        return cls(
            targets_per_character, **{name: saved[name] for name in _SAVED}, means=(first, second)
        )

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint saves: JSON values and, in ``means``, tensors."""
        saved = {name: getattr(self, name) for name in _SAVED}
        return saved | {
            "notes": [str(note) for note in self.notes],
            "means": [vars(mean) for mean in self.means],
        }

    def note(self, *notes: str) -> None:
        """Add notes, except those that a resumed run has had before."""
        self.notes += [note for note in notes if note not in self.notes]

    def add(self, report: Report) -> dict[str, Any] | None:
        """Add a report; return what the curves keep of it, an evaluation, a point or both, if
        anything.
        """
        self.last = report
        self.note(*report.notes)
        entry: dict[str, Any] = {}
        position = {
            "step": report.step,
            "progress": report.progress,
            "seconds": round(report.seconds, 2),
            "tokens_seen": report.tokens,
            "learning_rate": report.learning_rate,
        }
        if report.loss is not None:
            for mean in self.means:
                mean.add({"": report.loss, **report.losses})
            before = self.points[-1]["progress"] if self.points else -1.0
            is_notable = report.sample is not None or report.stopped is not None
            if is_notable or math.floor(report.progress * _POINTS) > math.floor(before * _POINTS):
                length = {} if report.bptt is None else {"bptt": report.bptt}
                entry = position | length | self._losses(self.means[1])
                self.points.append(entry)
        if report.sample is not None:
            numbers = position | self._losses(self.means[0])
            numbers |= {
                "is_best": report.is_best,
                "token_copy_rate": report.token_copy_rate,
                "metrics": dict(report.metrics),
            }
            self.evaluations.append(
                to_json(numbers) | (report.evaluation.to_dict() if report.evaluation else {})
            )
            # the loss is that since the last point, as at the others
            entry = self.evaluations[-1] | entry
        return entry or None

    def _losses(self, mean: Mean) -> dict[str, Any]:
        """Return the mean losses since the last time, and take them from the mean; an infinite
        number becomes None.
        """
        means = mean.take()
        nats = means.pop("", None)
        bits = None if nats is None else nats * self.targets_per_character / math.log(2)
        terms = {f"{TERM}{name}": value for name, value in means.items()}
        return dict(
            to_json({"train_nats_per_token": nats, "train_bits_per_character": bits, **terms})
        )


def novelty_facts(
    index: Index | None,
    corpus: str | None,
    copied: Mapping[str, Any],
    evaluations: Sequence[Mapping[str, Any]] = (),
    held_out_token_copy_rate: float | None = None,
) -> dict[str, Any] | None:
    """Return the facts on the novelty index, and the copy rates of the kept model and of held-out
    texts.

    Args:
        index: The index; None without one.
        corpus: The fingerprint of the one corpus that all of this is about; a model that was
            trained further has seen others.
        copied: The copy rates in characters, as ``measure_texts`` returns them; empty if not
            measured.
        evaluations: Those of the training, for the share of 20-token windows that the index has
            found.
        held_out_token_copy_rate: The same share for held-out texts.
    """
    if index is None and copied.get("copy_rate") is None:
        return None
    best = [entry for entry in evaluations if entry["is_best"]]
    facts: dict[str, Any] = {
        "form": "none" if index is None else index.form,
        "corpus": corpus,
        "copy_characters": COPY_CHARACTERS,
        "copy_rate": None,
        "copy_rate_interval": None,
        "held_out_copy_rate": None,
        "copy_rate_texts": 0,
        "copy_rate_characters": 0,
        "token_copy_rate": best[-1]["token_copy_rate"] if best else None,
        "held_out_token_copy_rate": held_out_token_copy_rate,
    } | dict(copied)
    if isinstance(index, CompactIndex):
        rates = {str(length): rate for length, rate in index.false_positive_rates.items()}
        facts |= {"false_positive_rates": rates, "stride": index.stride}
    return facts


_MIN_TOKENS = 2_000  # tokens of the chosen texts, however slow the model is
_TEXT_SECONDS = 4.0  # for scoring as many texts as are wanted, however short the time budget is
_TEXTS = 100  # texts that are generated at a time
_MAX_TEXTS = 2_000  # texts that are generated in all, at most
_COUNTED_CHARACTERS = 100_000  # characters that an n-gram writes in a tenth of a second

# Bits per character of held-out text after the same time on one core, lstm-word from the weights
# that ship / from scratch, by how often the latter has read its texts (12.6 times: before the
# vocabulary depended on the size of the corpus):
#     music captions: 12.6 times 0.866 / 0.935, 7.6 times 0.961 / 0.918, 2.7 times 0.928 / 0.762
#     music blogs:    8.0 times 1.946 / 2.258, 2.1 times 2.143 / 2.127
_MIN_PASSES = 10.0
# bits per character of the shipped weights before any training: they take 1.9 and 2.6 on these
# texts, and more on texts in another language
_MAX_BITS = 3.0
_MIN_SECONDS = 30.0  # of a run; the measurement takes up to half a second
_CHARACTERS_PER_SECOND = 100  # of the run: a hundredth of its time, on one slow core
_MAX_CHARACTERS = 6_000


def evaluate(
    model: LanguageModel,
    documents: Sequence[Document],
    vocab_size: int,
    device: str = "cpu",
) -> Evaluation | None:
    """Return the evaluation of a model on held-out texts; None if it cannot be scored."""
    with suppress(NotADistribution):
        return evaluate_documents(model, documents, vocab_size, device)
    return None


def choose_documents(
    model: LanguageModel,
    corpus: PreparedCorpus,
    split: str,
    tokens: int,
    seconds: float | None,
    texts: int = 1,
) -> list[Document]:
    """Return texts of a split with about ``tokens`` tokens; in a time budget, what a model can
    score in some seconds.

    At least ``texts`` texts are returned, if they have no more tokens and the model can score them
    in ``_TEXT_SECONDS``.
    """
    documents = sample_documents(corpus.stores[split], tokens)
    with suppress(NotADistribution):
        if seconds is not None:
            rate = measure_rate(model, documents, corpus.tokenizer.vocab_size)
            mean = sum(len(ids) for ids, _ in documents) / len(documents)
            count = max(
                _MIN_TOKENS / mean, rate * seconds / mean, min(texts, rate * _TEXT_SECONDS / mean)
            )
            return spread_documents(documents, max(1, round(min(count, len(documents)))))
    return documents


def measure_texts(
    model: LanguageModel, corpus: PreparedCorpus, metrics: TextMetrics
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the copy rates and the metrics of generated texts, and of as many characters of
    held-out texts.

    Both are texts of up to ``SAMPLE_TOKENS`` tokens, and the training text is read once.
    """
    generated = _write_texts(model, corpus)
    characters = sum(map(len, generated))
    store = corpus.stores[corpus.final_split]
    tokenizer = corpus.tokenizer
    mean_length = float((store.characters * (SAMPLE_TOKENS / store.lengths).clip(max=1.0)).mean())
    count = min(len(store), max(1, round(characters / max(1.0, mean_length))))
    numbers = np.linspace(0, len(store) - 1, count).round().astype(int).tolist()
    documents = [tokens_of(store.document(number), tokenizer.vocab_size) for number in numbers]
    held_out = [tokenizer.decode(ids[:SAMPLE_TOKENS].tolist()) for ids in documents]
    texts = [*generated, *held_out]
    pairs = list(
        zip(
            count_copied(texts, decode_texts(corpus.stores["train"].blocks, tokenizer)),
            map(len, texts),
            strict=True,
        )
    )
    generated_pairs = pairs[: len(generated)]
    held_out_pairs = pairs[len(generated) :]
    rates = {
        "copy_rate": _share(generated_pairs)[0] if characters else None,
        "copy_rate_interval": find_intervals(_share, generated_pairs)[0] if characters else None,
        "copy_rate_texts": len(generated),
        "copy_rate_characters": characters,
        "held_out_copy_rate": _share(held_out_pairs)[0] if any(held_out) else None,
    }
    return rates, metrics.facts(generated, held_out)


def _write_texts(model: LanguageModel, corpus: PreparedCorpus) -> list[str]:
    """Return generated texts with as many characters as a rate needs; how many there are follows
    from no clock.
    """
    wanted = _COUNTED_CHARACTERS if isinstance(model, CountTrained) else MIN_CHARACTERS
    config = GenerationConfig(max_new_tokens=SAMPLE_TOKENS)
    texts = list[str]()
    generator = Generator(make_stepper(model), corpus.tokenizer)
    while len(texts) < _MAX_TEXTS and sum(map(len, texts)) < wanted:
        request = Request(
            [""] * _TEXTS,
            config,
            seed=len(texts) // _TEXTS,
            prefix=corpus.conditions.unspecified_ids,
        )
        texts += [row.text for row in generator.generate(request)]
    return texts


def _share(pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the share of copied characters, given how many each text has, and of how many."""
    return [sum(copied for copied, _ in pairs) / max(1, sum(length for _, length in pairs))]


def suggest_trained_weights(
    plan: TrainingPlan, corpus: PreparedCorpus, tokens: int, seconds: float
) -> list[str]:
    """Return a sentence if the weights that ship with a preset, trained further, would have made a
    better model; else nothing.

    Args:
        plan: The plan of the finished run.
        corpus: Its corpus.
        tokens: The number of training tokens it has seen.
        seconds: How long it took; decides how many texts the shipped weights are measured on.
    """
    passes = tokens / max(1, corpus.stores["train"].tokens)
    if (
        plan.setup.trained is not None
        or plan.setup.is_counted
        or seconds < _MIN_SECONDS
        or passes < _MIN_PASSES
    ):
        return []
    trained = _find_trainable(plan)
    characters = min(_MAX_CHARACTERS, round(seconds * _CHARACTERS_PER_SECOND))
    bits = math.inf if trained is None else _measure_bits(trained, corpus, characters)
    if bits > _MAX_BITS:
        return []
    return [
        f"This training has read its texts {passes:.0f} times. On such a small corpus, training the"
        f" weights that ship with {plan.preset} further should give a better model in the same"
        f" time: use --from {plan.preset}. They take {bits:.3f} bits per character of these"
        " held-out texts before any training."
    ]


def _find_trainable(plan: TrainingPlan) -> ReviewModel | None:
    """Return the shipped model of a preset, if it can be trained further with a plan's own settings
    on texts cleaned alike.
    """
    setup = plan.setup
    try:
        usual = resolve_setup(plan.preset)
        folder = find_weights(plan.preset)
        if folder is None:
            return None
        trained = ReviewModel.from_pretrained(folder)
        defaults = to_dict(usual.tokenizer_config)
        model = {
            name: value
            for name, value in setup.model_settings.items()
            if value != usual.model_settings.get(name)
        }
        tokenizer = {
            name: value
            for name, value in to_dict(setup.tokenizer_config).items()
            if value != defaults[name]
        }
        resolve_setup(trained, model, tokenizer)
    except ReviewgenError:
        return None
    # options that are newer than the weights are missing, and do not count
    data = trained.training.get("data") or {}
    is_cleaned_alike = all(
        data.get(name, value) == value for name, value in plan.data.cleaning.items()
    )
    return (
        trained
        if is_cleaned_alike and plan.data.columns in ((), trained.conditions.names)
        else None
    )


def _measure_bits(trained: ReviewModel, corpus: PreparedCorpus, characters: int) -> float:
    """Return a model's bits per character on evenly spaced held-out texts of about so many
    characters.
    """
    store = corpus.stores[corpus.final_split]
    tokenizer = corpus.tokenizer
    tokens = round(characters * store.tokens / max(1, int(store.characters.sum())))
    documents = [tokens_of(ids, tokenizer.vocab_size) for ids, _ in sample_documents(store, tokens)]
    texts = [tokenizer.decode(ids[:tokens].tolist()) for ids in documents]
    with suppress(NotADistribution):
        return trained.evaluate([text for text in texts if text], clean=False).bits_per_character
    return math.inf
