"""The model card, written from recorded facts only. Knows no model and reads no file."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["render_card"]

_CARD = """---
library_name: reviewgen
pipeline_tag: text-generation
tags:
- reviewgen
- {model}
---

# {preset}

A small {model} language model over {tokenizer} tokens, trained {origin} with reviewgen {version} on {source}.{parts}

```python
import reviewgen

model = reviewgen.load("path/to/this/folder")
print(model.generate_one())
```

## Figures

{figures}

## Training

{facts}

## What it is for, and what not

For teaching, parody and test data. Its texts are synthetic. Posting machine-written reviews as if people had written them
deceives readers and is unlawful in many places. A small model repeats its training text: look before you publish.
"""


def render_card(preset: str, model: str, tokenizer: str, version: str, training: Mapping[str, Any]) -> str:
    """Return the card of a trained model as Markdown with the Hub's metadata block."""
    data = training.get("data", {})
    return _CARD.format(
        preset=preset,
        model=model,
        tokenizer=tokenizer,
        version=version,
        source=data.get("source", "an unnamed corpus"),
        origin="further" if "parent" in training else "from scratch",
        parts=_parts(training) + _parents(training.get("parent")),
        figures=_figures(training.get("held_out")) + _copies(training.get("novelty"), "parent" in training),
        facts=_facts(training, data),
    )


def _parts(training: Mapping[str, Any]) -> str:
    """Return what a blend is made of, and what its weights were fitted on."""
    parts, fit = training.get("parts"), training.get("weights", {})
    if not parts:
        return ""
    bits = fit.get("bits_per_character", {})
    lines = ["", "", f"At each token it averages the probabilities of {len(parts)} models; {_WEIGHTS[fit['method']]}.", ""]
    for part, its_bits in zip(parts, bits.get("parts", [None] * len(parts)), strict=True):
        lines.append(f"- {part['preset']}: weight {part['weight']:.4f}" + (f", {_spell_bits(its_bits)}" if bits else ""))
    if bits:
        together = _spell_bits(bits["fitted_weights"])
        lines += ["", f"On those {fit['characters']:,} characters the blend takes {together}, end tokens included."]
    return "\n".join(lines)


def _parents(parent: Mapping[str, Any] | None) -> str:
    """Return which models it was before, the last one first."""
    lines = []
    while parent:
        name = f"`{parent['source']}`" if parent.get("source") else "a model that was not saved"
        digest = f", {parent['digest']}" if parent.get("digest") else ""
        texts = parent.get("data", {}).get("source", "an unnamed corpus")
        lines.append(f"- {name} ({parent.get('preset', 'of an unnamed preset')}{digest}), trained on {texts}")
        parent = parent.get("parent")
    return "\n".join(["", "", "Before that it was:", "", *lines]) if lines else ""


_WEIGHTS = {
    "equal": "the weights are equal",
    "given": "the weights were given",
    "expectation-maximisation": "the weights were fitted on further texts by expectation maximisation",
}


def _spell_bits(bits: float | None) -> str:
    spelled = f"{bits:.4f}" if bits is not None else "infinite (some tokens have probability zero)"
    return f"{spelled} bits per character"


def _figures(held_out: Mapping[str, Any] | None) -> str:
    if held_out is None:
        return "Not evaluated on held-out text."
    bits = _spell_bits(held_out["bits_per_character"])
    return f"Held out ({held_out['split']}, {held_out['reviews']} reviews): {bits}, end tokens included."


def _copies(novelty: Mapping[str, Any] | None, has_parent: bool) -> str:
    """Return what is known of copying, and what the index gives away."""
    if not novelty:
        return ""
    lines = []
    if novelty["copy_rate"] is not None:
        lines.append(f"Copy rate: {novelty['copy_rate']:.1%} of the 20-token windows of its texts stand in the training text")
        if novelty["held_out_copy_rate"] is not None:
            lines[0] += f" ({novelty['held_out_copy_rate']:.1%} of those of held-out reviews do)"
        lines[0] += "."
    if has_parent:
        lines.append("The index covers the texts of the last training; what it copies of earlier ones is not seen.")
    if novelty["form"] == "exact":
        lines.append("`novelty.safetensors` holds the whole training text: keep this folder to yourself if the text is private.")
    else:
        worst = max(novelty["false_positive_rates"].values())
        lines.append(
            "`novelty.safetensors` holds hashes of the training text's windows of 8, 12 and 20 tokens; its false-positive rate "
            f"is {worst:.1%}. It holds no text, but it allows membership tests: whoever has a text can test whether it was "
            "trained on."
        )
    return "\n\n" + "\n\n".join(lines)


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> str:
    """Return each condition with its values."""
    return "; ".join(f"{each['name']}: {', '.join(value['label'] for value in each['values'])}" for each in conditions)


def _facts(training: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    rows = {
        "Reviews, train / validation / test": " / ".join(str(count) for count in data.get("reviews", {}).values()),
        "Conditions": _conditions(data.get("conditions") or []),
        "Data fingerprint": data.get("fingerprint"),
        "Steps": training.get("steps"),
        "Seconds": training.get("seconds"),
        "Seed": training.get("seed"),
        "Ended": training.get("stopped"),
        "Device": training.get("device"),
        "Verdict": training.get("verdict", {}).get("words"),
    }
    return "\n".join(f"- {name}: {value}" for name, value in rows.items() if value not in (None, ""))
