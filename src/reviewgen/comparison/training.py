"""Trains the presets of a comparison: a corpus is read and tokenized once for all presets of one tokenizer.

The clock of a time budget starts when the corpus is prepared, so that the first preset has no less time than the others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from reviewgen.comparison.rows import OrderPoint
from reviewgen.config import fields_of
from reviewgen.lexicon import decode_texts
from reviewgen.model import ReviewModel
from reviewgen.runs import TrainingRun
from reviewgen.runs.corpus import Corpora, PreparedCorpus
from reviewgen.runs.plan import TrainingPlan, make_plan
from reviewgen.runs.progress import training_bar
from reviewgen.runs.run import make_run
from reviewgen.search.sweep import train_row
from reviewgen.training import Budget

_ORDERS = (1, 2, 3, 4, 5, 6, 8, 10)
_TIME_SHARE = 0.5  # of the row's time budget, for all orders of an n-gram together


@dataclass
class Trainer:
    """The trainings of a comparison.

    Attributes:
        data: The texts.
        settings: Settings of all presets, by group.
        options: Other keywords of each training.
        console: Shows the progress.
    """

    data: Any
    settings: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    console: Console
    _corpora: Corpora = field(default_factory=Corpora)

    def train(self, preset: str, out: Path | None) -> ReviewModel:
        """Train a preset; or load it, or resume its training, if an interrupted comparison has left that in ``out``.

        Raises:
            ReviewgenError: The training has failed, or was over before its first step.
        """
        if out is not None and out.exists():
            return ReviewModel.from_pretrained(out)
        options: dict[str, Any] = {**self.options, **self.settings, "out": out}
        options["resume"] = out is not None and any(out.with_name(f"{out.name}.partial").glob("step-*"))
        run = TrainingRun(preset, self.data, **options)
        run.start_on(self._prepare(run.plan))
        with training_bar(self.console) as show:
            for report in run:
                show(report)
        model = run.finish()
        if run.is_interrupted:  # by Ctrl-C during the last evaluation, which ends only that
            raise KeyboardInterrupt
        return model

    def measure_orders(self, model: ReviewModel, preset: str) -> tuple[OrderPoint, ...]:
        """Train an n-gram with several orders, for the bias-variance picture; of a model without an order, return nothing."""
        config, plan = model.bundle.model.config, self._plan(preset)
        if not plan.parts.is_counted or "order" not in fields_of(type(config)):
            return ()
        orders = sorted({order for order in _ORDERS if order <= config.order + 2} | {config.order})
        corpus = replace(self._prepare(plan), index=None, lexicon=None)
        if plan.length.seconds is not None:
            train = corpus.stores["train"].head(self._countable(model, _TIME_SHARE * plan.length.seconds / len(orders)))
            corpus = replace(corpus, stores={**corpus.stores, "train": train})
        return tuple(self._measure_order(preset, order, corpus) for order in orders)

    def training_texts(self, preset: str) -> Iterator[str]:
        """Yield the training texts of a preset."""
        corpus = self._prepare(self._plan(preset))
        return decode_texts(corpus.stores["train"].blocks, corpus.tokenizer)

    def _countable(self, model: ReviewModel, seconds: float) -> int:
        """Return how many tokens each order counts, all the same ones: as many as the row's model would in some time."""
        last = model.training["evaluations"][-1]
        rate = float(last["tokens_seen"]) / max(float(last["seconds"]), 0.01)
        return max(1, round(seconds * rate))

    def _measure_order(self, preset: str, order: int, corpus: PreparedCorpus) -> OrderPoint:
        plan = self._plan(preset, model={"order": order}, training={"novelty": "none", "copy_tokens": 0})
        run = make_run(replace(plan, length=Budget(epochs=1.0)))
        run.start_on(corpus)
        row = train_row(run, order)
        return OrderPoint(order, row.train_bits, row.held_out_bits)

    def _plan(self, preset: str, **changed: Mapping[str, Any]) -> TrainingPlan:
        groups = {name: {**group, **changed.get(name, {})} for name, group in self.settings.items()}
        options: Any = {**self.options, **groups}
        return make_plan(preset, self.data, options)

    def _prepare(self, plan: TrainingPlan) -> PreparedCorpus:
        """Return the corpus of a plan, which is read unless that was done for an earlier preset of the same tokenizer."""
        with self.console.status("Reading and tokenizing ..."):
            return self._corpora.get(plan)
