"""The summary of a trained model that a notebook shows, from what was recorded: no torch, and damaged records are left out."""

from collections.abc import Mapping
from typing import Any

from reviewgen.bundle import Bundle
from reviewgen.errors import BundleError
from reviewgen.pages.numbers import decimal, duration, percent, thousands


def summarize(bundle: Bundle) -> str:
    """Return the summary of a trained model as an HTML fragment."""
    from reviewgen.pages import render  # Jinja2

    return render("model/review_model.html", preset=bundle.preset, facts=_facts(bundle), chart=_chart(bundle))


def _facts(bundle: Bundle) -> dict[str, str]:
    """Return the known facts by their names."""
    training = bundle.training
    held_out, novelty, data = (_mapping(training.get(name)) for name in ("held_out", "novelty", "data"))
    conditions = [] if bundle.conditions is None else [each.name for each in bundle.conditions]
    facts = {
        "held-out text": _with(held_out.get("bits_per_character"), lambda bits: f"{decimal(bits)} bits per character"),
        "copy rate": _with(novelty.get("copy_rate"), lambda rate: f"{percent(rate)} of its texts"),
        "vocabulary": f"{thousands(bundle.tokenizer.vocab_size)} tokens ({bundle.tokenizer_plugin.name})",
        "conditions": ", ".join(conditions),
        "trained on": str(data.get("source") or ""),
        "trained for": _with(training.get("seconds"), duration),
        "verdict": str(_mapping(training.get("verdict")).get("words") or ""),
    }
    return {name: value for name, value in facts.items() if value}


def _chart(bundle: Bundle) -> Any:
    from reviewgen.pictures import find_curves
    from reviewgen.pictures.inline import draw_inline

    try:
        run = find_curves(bundle.training, bundle.preset)
    except BundleError:
        return None  # a model that was not trained by steps
    runs = {part.preset: part for part in (*run.parts, run)} if run.parts else {run.preset: run}
    evaluations = {name: each.evaluations for name, each in runs.items()}
    return draw_inline(evaluations, {name: each.curve for name, each in runs.items()}, "Bits per character")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _with(value: Any, write: Any) -> str:
    return write(value) if isinstance(value, int | float) else ""
