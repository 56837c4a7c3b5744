"""The HTML that a notebook shows for a model: its preset, the facts of its training and the
learning curve.
"""

from typing import Any

from reviewgen.errors import BundleError
from reviewgen.rates import describe_copies
from reviewgen.saving.layout import Bundle
from reviewgen.web.curves import draw_inline, find_curves
from reviewgen.web.rendering import decimal, duration, render, thousands


def summarize(bundle: Bundle) -> str:
    """Return the summary of a model as HTML."""
    return render(
        "model/review_model.html",
        preset=bundle.preset,
        facts=_facts(bundle),
        chart=_chart(bundle),
    )


def _facts(bundle: Bundle) -> dict[str, str]:
    """Return the known facts on a model and its training: the value of each fact, by its label."""
    training = bundle.training
    held_out = training.get("held_out") or {}
    data = training.get("data") or {}
    verdict = training.get("verdict") or {}
    bits = held_out.get("bits_per_character")
    seconds = training.get("seconds")
    facts = {
        "held-out text": "" if bits is None else f"{decimal(bits)} bits per character",
        "copy rate": describe_copies(training.get("novelty") or {}),
        "vocabulary": (
            f"{thousands(bundle.tokenizer.vocab_size)} tokens ({bundle.tokenizer_plugin.name})"
        ),
        "conditions": ", ".join(bundle.conditions.names),
        "trained on": data.get("source"),
        "trained for": "" if seconds is None else duration(seconds),
        "verdict": verdict.get("words"),
    }
    return {name: value for name, value in facts.items() if value}


def _chart(bundle: Bundle) -> Any:
    """Return the learning curve, drawn without matplotlib. None if the training record has no
    curve.
    """
    try:
        run = find_curves(bundle.training, bundle.preset)
    except BundleError:
        return None
    return draw_inline([*run.parts, run])
