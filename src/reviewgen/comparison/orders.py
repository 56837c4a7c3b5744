"""The bias-variance picture of an n-gram: bits per character of training and held-out text by its order."""

from collections.abc import Mapping
from typing import Any

from reviewgen.comparison.rows import OrderPoint
from reviewgen.config import fields_of
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained
from reviewgen.search.sweep import sweep

__all__ = ["measure_orders"]

_ORDERS = (1, 2, 3, 4, 5, 6, 8, 10)
_TIME_SHARE = 0.5  # of the row's time budget, for all orders together


def measure_orders(
    model: ReviewModel, preset: str, data: Any, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> tuple[OrderPoint, ...]:
    """Train a count model that has an order with several orders; of another model, return nothing.

    Args:
        model: The model of the row.
        preset: Its preset.
        data: The texts.
        settings: The settings of the row, by group.
        options: Other keywords of the training.
    """
    config = model.bundle.model.config
    if not isinstance(model.bundle.model, CountTrained) or "order" not in fields_of(type(config)):
        return ()
    orders = sorted({order for order in _ORDERS if order <= config.order + 2} | {config.order})
    groups = {group: dict(settings.get(group, {})) for group in ("model", "tokenizer", "training")}
    groups["model"].pop("order", None)
    groups["training"] |= {"novelty": "none", "copy_tokens": 0}
    shorter = dict(options)
    if (seconds := options.get("budget")) is not None:
        shorter["budget"] = _TIME_SHARE * seconds / len(orders)
    rows = sweep(preset, data, "model.order", orders, groups, **shorter)  # type: ignore[arg-type]  # options of a training
    return tuple(OrderPoint(row.value, row.train_bits, row.held_out_bits) for row in rows)
