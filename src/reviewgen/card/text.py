"""The Markdown of a card: what the model is, its metrics, samples, how it was trained, and its intended use."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reviewgen.card.facts import CardFacts, Sample
from reviewgen.model.layout import CURVE

_TEXT = """# {name}

A small {model} language model over {tokenizer} tokens, trained {origin} with reviewgen {version} on {source}.{parts}

```python
import reviewgen

model = reviewgen.load({load})
print(model.generate_one())
```

{space}## Metrics

{metrics}

{samples}## Training

{facts}

## Intended use

Teaching, parody and test data. The generated texts are synthetic. Posting machine-generated reviews as if people had written them
deceives their readers and is unlawful in many places, among them the EU (Directive 2005/29/EC, annex I, 23b and 23c) and the USA
(16 CFR part 465). A small model also repeats its training text: check a text for copied parts before you publish it.
"""


def write_text(facts: CardFacts) -> str:
    """Return the Markdown below the front matter."""
    training = facts.training
    data = training.get("data", {})
    has_parent = "parent" in training
    curve = f"\n\n![Bits per character, token copy rate and learning rate against time]({CURVE})" if facts.has_curve else ""
    return _TEXT.format(
        name=(facts.source or facts.preset).removeprefix("hf://"),
        model=facts.model,
        tokenizer=facts.tokenizer,
        version=facts.version,
        source=data.get("source", "an unnamed corpus"),
        origin="further" if has_parent else "from scratch",
        parts=_parts(training) + _parents(training.get("parent")),
        load=json.dumps(facts.source or "path/to/this/folder", ensure_ascii=False),
        space=_space(facts.space),
        metrics=_bits(training.get("held_out")) + _copying(facts, has_parent) + _metrics(training.get("metrics")) + curve,
        samples=_samples(facts.samples),
        facts=_facts(facts, data),
    )


def _space(space: str | None) -> str:
    """Return a line with the address of the page that generates with the model; empty if the model has no such page."""
    return "" if space is None else f"It writes in your browser, too: [{space}]({space_address(space)}).\n\n"


def space_address(space: str) -> str:
    """Return the address of a Space on the Hub."""
    from huggingface_hub.constants import ENDPOINT  # as HF_ENDPOINT says

    return f"{ENDPOINT}/spaces/{space}"


def _samples(samples: Sequence[Sample]) -> str:
    """Return the samples verbatim, each in a code fence longer than any run of backticks in it."""
    if not samples:
        return ""
    parts = ["## Samples\n"]
    for sample in samples:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", sample.text)), default=0))
        parts.append(f"Temperature {sample.temperature:g}:\n\n{fence}text\n{sample.text}\n{fence}\n")
    return "\n".join(parts) + "\n"


def _parts(training: Mapping[str, Any]) -> str:
    """Return the parts of a blend with their weights, and what the weights were fitted on; empty for other models."""
    parts, fit = training.get("parts"), training.get("weights", {})
    if not parts:
        return ""
    bits = fit.get("bits_per_character", {})
    lines = ["", "", f"At each token it averages the probabilities of {len(parts)} models; {_WEIGHTS[fit['method']]}.", ""]
    for part, part_bits in zip(parts, bits.get("parts", [None] * len(parts)), strict=True):
        lines.append(f"- {part['preset']}: weight {part['weight']:.4f}" + (f", {_format_bits(part_bits)}" if bits else ""))
    if bits:
        blend_bits = _format_bits(bits["fitted_weights"])
        lines += ["", f"On those {fit['characters']:,} characters the blend takes {blend_bits}, end tokens included."]
    return "\n".join(lines)


def _parents(parent: Mapping[str, Any] | None) -> str:
    """Return the models that it was trained further from, the most recent first; empty if there are none."""
    lines = []
    while parent:
        name = f"`{parent['source']}`" if parent.get("source") else "a model that was not saved"
        digest = f", {parent['digest']}" if parent.get("digest") else ""
        texts = parent.get("data", {}).get("source", "an unnamed corpus")
        lines.append(f"- {name} ({parent.get('preset', 'of an unnamed preset')}{digest}), trained on {texts}")
        parent = parent.get("parent")
    return "\n".join(["", "", "It was trained further from:", "", *lines]) if lines else ""


_WEIGHTS = {
    "equal": "the weights are equal",
    "given": "the weights were set by the user",
    "gate": "the weights were fitted on further texts, and vary with how certain each model is",
    "expectation-maximisation": "the weights were fitted on further texts by expectation maximisation",
}


def _format_bits(bits: float | None) -> str:
    number = f"{bits:.4f}" if bits is not None else "infinite (some tokens have probability zero)"
    return f"{number} bits per character"


def _bits(held_out: Mapping[str, Any] | None) -> str:
    if held_out is None:
        return "Not evaluated on held-out text."
    bits = _format_bits(held_out["bits_per_character"])
    return f"Held out ({held_out['split']}, {held_out['reviews']} reviews): {bits}, end tokens included."


def _copying(facts: CardFacts, has_parent: bool) -> str:
    """Return the copy rate, and what the index in the folder reveals of the training text."""
    novelty = facts.training.get("novelty")
    if not novelty:
        return ""
    lines = _copy_rate(facts, novelty)
    if has_parent:
        lines.append("Only the texts of the last training are covered; text copied from earlier ones is not detected.")
    if novelty["form"] == "exact":
        lines.append("`novelty.safetensors` contains the whole training text: do not share it if the text is private.")
    if novelty["form"] == "compact":
        worst = max(novelty["false_positive_rates"].values())
        lines.append(
            "`novelty.safetensors` contains hashes of the training text's windows of 8, 12 and 20 tokens; its false-positive "
            f"rate is {worst:.1%}. It contains no text, but it allows membership tests: anyone who has a text can test whether "
            "the model was trained on it."
        )
    return "".join(f"\n\n{line}" for line in lines)


def _copy_rate(facts: CardFacts, novelty: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the copy rate: in characters, or in token windows if only that is known; none if neither is."""
    if facts.copy_rate is not None:
        held_out, length = novelty["held_out_copy_rate"], novelty["copy_characters"]
        texts, characters = novelty.get("copy_rate_texts"), novelty.get("copy_rate_characters")
        measured = f", measured on {texts:,} texts with {characters:,} characters" if texts and characters else ""
        compared = "" if held_out is None else f" ({held_out:.1%} of those of held-out reviews)"
        return [
            f"Copy rate: {facts.copy_rate:.1%} of the characters of its texts stand in spans of {length} characters or more of "
            f"the training text{compared}{measured}."
        ]
    if facts.known_token_copy_rate is None:
        return []
    held_out = novelty.get("held_out_token_copy_rate")
    compared = "" if held_out is None else f" ({held_out:.1%} of those of held-out reviews do)"
    return [
        f"Copy rate: {facts.known_token_copy_rate:.1%} of the 20-token windows of generated texts occur in the training text"
        f"{compared}."
    ]


def _metrics(metrics: Mapping[str, Mapping[str, Any]] | None) -> str:
    """Return a table of the metrics of generated texts, beside those of as many characters of held-out texts."""
    measured = {name: each for name, each in (metrics or {}).items() if each["generated"] is not None}
    if not measured:
        return ""
    lines = ["", "", "| metric | generated texts | held-out reviews |", "|---|---|---|"]
    for name, each in measured.items():
        direction = {True: ", lower is better", False: ", higher is better"}.get(each["lower_is_better"], "")
        held_out = "" if each["held_out"] is None else f"{each['held_out']:.4g}"
        lines.append(f"| {name} ({_format_setting(each['unit'])}{direction}) | {each['generated']:.4g} | {held_out} |")
    return "\n".join(lines)


def _conditions(conditions: Sequence[Mapping[str, Any]]) -> str:
    """Return each condition with its values, in one line."""
    return "; ".join(f"{each['name']}: {', '.join(value['label'] for value in each['values'])}" for each in conditions)


def _facts(facts: CardFacts, data: Mapping[str, Any]) -> str:
    """Return the facts of the training as a list, and the settings as a table."""
    training = facts.training
    entries = {
        "Reviews, train / validation / test": " / ".join(f"{count:,}" for count in data.get("reviews", {}).values()),
        "Held out": data.get("split", {}).get("words"),
        "Conditions": _conditions(data.get("conditions") or []),
        "Data fingerprint": data.get("fingerprint"),
        "Parameters": f"{facts.parameters:,}" if facts.parameters else None,
        "Size": f"{facts.megabytes:.1f} MB" if facts.megabytes else None,
        "Steps": training.get("steps"),
        "Seconds": training.get("seconds"),
        "Hardware": training.get("hardware"),
        "Device": training.get("device"),
        "Seed": training.get("seed"),
        "Ended": training.get("stopped"),
        "Verdict": training.get("verdict", {}).get("words"),
    }
    lines = [f"- {name}: {value}" for name, value in entries.items() if value not in (None, "")]
    settings = {**facts.settings, "training": training.get("config") or {}}
    tables = [
        f"| {group} | {', '.join(f'`{name}={_format_setting(value)}`' for name, value in values.items())} |"
        for group, values in settings.items()
        if values
    ]
    if tables:
        lines += ["", "| | hyperparameters |", "|---|---|", *tables]
    return "\n".join(lines)


def _format_setting(value: Any) -> str:
    """Return the value of a setting, shortened and escaped for a table cell."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")
