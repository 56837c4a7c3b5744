"""The learning curves of a run: what ``training.json`` keeps of its reports; all JSON values.

The loss of one step is noisy, so means are kept: over the steps since the last evaluation, and since the last point of a
thinned curve. Their sums stay on the device; converting one to a number waits for the device, a few hundred times a run.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from reviewgen.data import TokenStore
from reviewgen.evaluation import finite
from reviewgen.training import Report, find_verdict

TERM = "loss."
"""The beginning of the name under which a model's own loss term is kept, as in "loss.z_loss"."""

_POINTS = 200  # of the thinned curve, spread evenly; the first step, the last one and the evaluations come on top


def targets_per_character(store: TokenStore, conditions: int) -> float:
    """Return the predicted tokens per character, end tokens included: nats per token times this are nats per character."""
    return (store.tokens - len(store) * (1 + conditions)) / int(store.characters.sum())


_Mean: TypeAlias = dict[str, Any]
"""The losses of the steps since the mean was last taken; checkpoints keep it.

``total``, a tensor or None, ``steps`` and, for a model with loss terms of its own, ``terms``: a tensor by name.
"""


def _add(mean: _Mean, loss: Tensor, terms: Mapping[str, Tensor]) -> None:
    mean["total"] = loss if mean["total"] is None else mean["total"] + loss
    mean["steps"] += 1
    if terms:
        sums = mean.setdefault("terms", {})
        sums |= {name: term + sums[name] if name in sums else term for name, term in terms.items()}


def _take(mean: _Mean) -> tuple[float | None, dict[str, float]]:
    """Return the mean loss and that of each term, and start again."""
    steps = mean["steps"]
    value = None if mean["total"] is None else float(mean["total"]) / steps
    terms = {name: float(term) / steps for name, term in mean.pop("terms", {}).items()}
    mean |= {"total": None, "steps": 0}
    return value, terms


@dataclass
class Curves:
    """The evaluations of a run, and a thinned curve of the loss and the learning rate between them."""

    targets_per_character: float
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    means: list[_Mean] = field(default_factory=list)  # since the last evaluation, and since the last point

    def __post_init__(self) -> None:
        if not self.means:
            self.means += [{"total": None, "steps": 0} for _ in range(2)]

    def add(self, report: Report) -> dict[str, Any] | None:
        """Add a report; return what is kept of it, an evaluation, a point or both, if anything."""
        if report.loss is not None:
            for mean in self.means:
                _add(mean, report.loss, report.losses)
        point = self._point(report) if report.loss is not None and self._is_due(report) else None
        if report.sample is None:
            return point
        evaluation = self._evaluation(report)
        return evaluation | (point or {})  # the loss is that since the last point, as at the others

    def facts(self, stopped: str | None, held_out_token_copy_rate: float | None) -> dict[str, Any]:
        """Return the verdict, the evaluations, and the points between them as a list per name."""
        names = self.points[0] if self.points else {}
        return {
            "verdict": asdict(find_verdict(self.evaluations, stopped, held_out_token_copy_rate)),
            "evaluations": self.evaluations,
            "curve": {name: [point.get(name) for point in self.points] for name in names},
        }

    def _is_due(self, report: Report) -> bool:
        before = self.points[-1]["progress"] if self.points else -1.0
        is_notable = report.sample is not None or report.stopped is not None
        return is_notable or math.floor(report.progress * _POINTS) > math.floor(before * _POINTS)

    def _position(self, report: Report) -> dict[str, Any]:
        return {
            "step": report.step,
            "progress": report.progress,
            "seconds": round(report.seconds, 2),
            "tokens_seen": report.tokens,
            "learning_rate": report.learning_rate,
        }

    def _loss(self, mean: _Mean) -> dict[str, Any]:
        """Return the mean losses since the last time, and take them from the mean."""
        nats_per_token, terms = _take(mean)
        bits = None if nats_per_token is None else nats_per_token * self.targets_per_character / math.log(2)
        own = {f"{TERM}{name}": term for name, term in terms.items()}
        return finite({"train_nats_per_token": nats_per_token, "train_bits_per_character": bits, **own})

    def _point(self, report: Report) -> dict[str, Any]:
        length = {} if report.bptt is None else {"bptt": report.bptt}
        self.points.append(self._position(report) | length | self._loss(self.means[1]))
        return self.points[-1]

    def _evaluation(self, report: Report) -> dict[str, Any]:
        """Keep one evaluation; an infinite number becomes None."""
        numbers = self._position(report) | self._loss(self.means[0])
        numbers |= {"is_best": report.is_best, "token_copy_rate": report.token_copy_rate, "metrics": dict(report.metrics)}
        self.evaluations.append(finite(numbers | (asdict(report.evaluation) if report.evaluation else {})))
        return self.evaluations[-1]
