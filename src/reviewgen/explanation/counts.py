"""How a count model gets the probability of each token: context, count, discount, back-off, probability. No torch.

With the contexts of a token from the longest that was seen to the empty one, numbered from 1, and g their back-off weights::

    p = sum_i (g_1 ... g_{i-1}) (c_i - D_i) / divisor_i  +  what comes from no count

(Chen & Goodman 1998, interpolated smoothing, written out). A pruned or rounded model does not determine counts; it stores p after
each context after which the token was seen, and p is the first of these, times the back-off weights before it.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from reviewgen.explanation.batch import Labels
from reviewgen.explanation.results import CountedToken, CountStep
from reviewgen.protocols import CountedContext, SupportsExplain


def explain_counts(
    stepper: SupportsExplain, rows: Sequence[Sequence[int]], tokens: Sequence[tuple[int, int, int, float]], labels: Labels
) -> Iterator[CountedToken]:
    """Yield how each of some tokens got its probability.

    Args:
        stepper: The model's.
        rows: The ids of each text.
        tokens: Of each token: its row, its position, its id, its probability.
        labels: For display.
    """
    for row, time, token, probability in tokens:
        ids = rows[row][: time + 1]
        steps = tuple(_steps(stepper.explain(np.array(ids, np.int64)), ids, token, labels))
        parts = [step.part for step in steps]
        known = [part for part in parts if part is not None]
        rest = max(0.0, probability - sum(known)) if len(known) == len(parts) else None
        yield CountedToken(row, labels.label(token), probability, steps, rest)


def _steps(contexts: Sequence[CountedContext], ids: Sequence[int], token: int, labels: Labels) -> Iterator[CountStep]:
    weight: float | None = 1.0
    for context in contexts:
        start = len(ids) - context.tokens
        count = None if context.counts is None else int(context.counts[token])
        yield CountStep(
            order=context.tokens + 1,
            context="".join(map(labels.label, ids[start:])),
            is_start=context.tokens == len(ids),
            count=count,
            unit=context.unit,
            discount=_discount(context, count),
            divisor=context.divisor,
            weight=weight,
            probability=float(context.probabilities[token])
            if context.seen[token] and context.probabilities is not None
            else None,
            part=None if context.parts is None else float(context.parts[token]),
            backoff=context.backoff,
        )
        weight = None if weight is None or context.backoff is None else weight * context.backoff


def _stored_probability(context: CountedContext, token: int) -> float | None:
    if context.probabilities is None or not context.seen[token]:
        return None
    return float(context.probabilities[token])


def _discount(context: CountedContext, count: int | None) -> float | None:
    """Return what is subtracted from a count; nothing is from zero."""
    if count is None or context.divisor is None:
        return None
    return 0.0 if not count or context.discounts is None else context.discounts[min(count, 3) - 1]
