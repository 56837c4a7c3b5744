"""Formats with the weights that ship: whether texts fit, how well words are steered to, and speed.
PINNED.

``python -m tests.benchmarks formats [valid | words | speed] [TEXTS [PRESET ...]]``
"""

import json
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import jsonschema
import lark

import reviewgen
from reviewgen.sentences import sentence_ends

PRESETS = (
    *("lstm-char", "lstm-word", "gru-char", "gru-word"),
    *("ngram-char", "ngram-word", "blend-char", "blend-word"),
)
REGEX = r"[0-9]{2} of 100: [A-Za-z ,']{5,60}[.!]"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "title": {"type": "string", "maxLength": 40},
        "text": {"type": "string"},
    },
    "required": ["stars", "title", "text"],
    "additionalProperties": False,
}
GRAMMAR = """\
start: "I give it " STARS " stars because " REASON "."
STARS: /[1-5]/
REASON: /[a-z]+( [a-z]+)*/
"""
WORDS = ("guitar", "lawyer", "snow")


def _fits_grammar() -> Callable[[str], object]:
    parser = lark.Lark(GRAMMAR)

    def fits(text: str) -> object:
        try:
            return parser.parse(text)
        except lark.exceptions.LarkError:
            return None

    return fits


def _fits_schema(text: str) -> bool:
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def valid(texts: int, presets: list[str]) -> None:
    """Print how many texts fit each format."""
    grammar = _fits_grammar()
    formats: list[tuple[dict[str, Any], Callable[[str], object]]] = [
        ({"regex": REGEX}, re.compile(REGEX).fullmatch),
        ({"json_schema": SCHEMA}, _fits_schema),
        ({"grammar": GRAMMAR}, grammar),
        ({"sentences": "2..4"}, lambda text: 2 <= len(sentence_ends(text)) <= 4),
    ]
    for preset in presets:
        model = reviewgen.load(preset)
        for settings, fits in formats:
            started = time.perf_counter()
            made = model.generate(
                num_return_sequences=texts, seed=1, return_dict_in_generate=True, **settings
            )
            seconds = time.perf_counter() - started
            bad = [each for each in made if not fits(each.text)]
            print(
                f"{preset:11} {next(iter(settings)):11} {texts - len(bad)} of {texts}"
                f" in {seconds:.0f} s",
                flush=True,
            )
            for each in bad[:2]:
                print("   ", each.finish_reason, each.problem, repr(each.text[:300]))


def words(texts: int, presets: list[str]) -> None:
    """Print how many texts have the words, where the first is, and at how many bits a character."""
    for preset in presets:
        model = reviewgen.load(preset)
        tokens = 60 if preset.endswith("word") else 300
        options: dict[str, Any] = {
            "num_return_sequences": texts,
            "seed": 1,
            "max_new_tokens": tokens,
            "finish": "anywhere",
            "return_dict_in_generate": True,
        }
        model.generate(**options | {"num_return_sequences": 2}, include=WORDS)
        results = {}
        for name, more in (("free", {}), ("words", {"include": WORDS})):
            started = time.perf_counter()
            results[name] = model.generate(**options, **more)
            seconds = time.perf_counter() - started
            bits = sum(-sum(each.log_probabilities) for each in results[name]) / 0.6931
            characters = sum(len(each.text) for each in results[name])
            new = sum(each.new_tokens for each in results[name])
            print(
                f"{preset:11} {name:5} {bits / characters:.3f} bits a character, {seconds:.2f} s,"
                f" {new} tokens",
                flush=True,
            )
        patterns = [re.compile(rf"\b[{word[0]}{word[0].upper()}]{word[1:]}\b") for word in WORDS]
        for name, made in results.items():
            have = [sum(bool(p.search(each.text)) for each in made) for p in patterns]
            print(f"{preset:11} {name:5} texts with each word: {have} of {texts}")
        places = list[float]()
        for each in results["words"]:
            found = [match.start() for match in (p.search(each.text) for p in patterns) if match]
            places.append(min(found, default=len(each.text)) / len(each.text))
        print(f"{preset:11} median position of the first word: {statistics.median(places):.2f}")


def speed(texts: int, presets: list[str]) -> None:
    """Print the speed with a regular expression, as a share of that of free text."""
    for preset in presets:
        model = reviewgen.load(preset)
        for count in (1, texts):
            rates: dict[str, list[float]] = {"free": [], "regex": []}
            for _ in range(7):
                for name, more in (("free", {}), ("regex", {"regex": r"([A-Za-z ,.'!?()-])*"})):
                    started = time.perf_counter()
                    made = model.generate(
                        num_return_sequences=count,
                        seed=1,
                        max_new_tokens=150,
                        finish="anywhere",
                        return_dict_in_generate=True,
                        **more,
                    )
                    new = sum(each.new_tokens for each in made)
                    rates[name].append(new / (time.perf_counter() - started))
            free, formatted = (statistics.median(each[1:]) for each in rates.values())
            print(
                f"{preset:11} {count:2} texts: {free:.0f} tokens a second, with a regex"
                f" {formatted:.0f}: {formatted / free:.0%}",
                flush=True,
            )


def main(part: str = "all", texts: str = "", *presets: str) -> None:
    """Run one part, or all."""
    chosen = list(presets or PRESETS)
    if part in ("all", "valid"):
        valid(int(texts or 1000), chosen)
    if part in ("all", "words"):
        words(int(texts or 60), list(presets) or ["lstm-word", "gru-word"])
    if part in ("all", "speed"):
        speed(64, list(presets) or ["lstm-word", "lstm-char", "gru-char", "ngram-word"])
