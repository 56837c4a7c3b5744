"""Checks the facts of a training record, ``training.json``, that are displayed or used after
loading.

A record may come from a download, so the types of its facts are checked once, here. After the
check, a fact that is listed below has the listed type or is null, so the code that reads the fact
needs no check of its own. A listed fact may also be missing, except for the facts that every metric
has. Facts that are not listed are kept without a check. Those that only a model card shows are
checked when a card is written.
"""

from typing import Annotated, Any

from reviewgen.config.settings import Bound, check_value
from reviewgen.errors import ConfigError, quoted

_EACH = "*"  # stands for every key of an object; the values of these keys must not be null
# The type of a figure: bits per character, a share, or a number of characters.
_FIGURE = Annotated[float, Bound(at_least=0, at_most=1_000_000)]
_INTERVAL = [float, float]  # low and high
_CLEANING = (
    "clean",
    "lowercase",
    "strip_markdown",
    "fix_encoding",
    "keep_line_breaks",
    "drop_repeated_lines",
    "keep_space",
)
_RATES = (
    "copy_rate",
    "copy_rate_characters",
    "held_out_copy_rate",
    "token_copy_rate",
    "membership",
    "membership_texts",
    "exposure",
)
_DATA: dict[str, Any] = {
    "source": str,
    "fingerprint": str,
    "repeated_lines": [str],
    "tokens": {_EACH: float},
    **dict.fromkeys(_CLEANING, bool),
}
_DATA["corpora"] = [_DATA]  # if a model was trained on several corpora, the facts on each
# The facts that every metric has.
_MEASURED = {"unit": str, "lower_is_better": bool, "generated": float, "held_out": float}
_METRIC = _MEASURED | {"interval": _INTERVAL}
_RECORD: dict[str, Any] = {
    "preset": str,
    "stopped": str,
    "steps": int,
    "data": _DATA,
    "config": {"batch_size": int, "bptt": int},
    "seconds": float,
    "verdict": {"words": str},
    "evaluations": [{"seconds": float, "tokens_seen": float, "bits_per_character": float}],
    "novelty": dict.fromkeys(_RATES, _FIGURE)
    | {"copy_rate_interval": _INTERVAL, "membership_interval": _INTERVAL},
    "metrics": {_EACH: _METRIC},
    "parameters": {_EACH: float},
    "held_out": {"bits_per_character": _FIGURE},
    "weights": {"method": str, "characters": float, "bits_per_character": {}},
}
_RECORD["parts"] = [_RECORD]  # the records of the models of a blend
_RECORD["parent"] = _RECORD  # the record of the model that was trained further


def check_record(value: Any, name: str = "training.json", expected: Any = _RECORD) -> None:
    """Check the content of a ``training.json``, or of a part of it.

    Args:
        value: The content.
        name: The name of the part, for messages.
        expected: What the part must be. For an object, a dict of what the value of each key must
            be; for a list, [X], where X is what each item must be; for a pair of numbers, [X, X];
            for anything else, a type hint.

    Raises:
        ConfigError: A fact does not have the expected type, or a fact on a metric is missing.
    """
    if isinstance(expected, dict):
        check_value(name, value, dict[str, Any])
        missing = _MEASURED.keys() - value.keys()
        if expected is _METRIC and missing:
            raise ConfigError(f"{min(missing)} in {name} is missing.")
        for key, fact in value.items():
            if _EACH in expected:
                check_record(fact, f"{key} in {name}", expected[_EACH])
            elif fact is not None and key in expected:
                check_record(fact, f"{key} in {name}", expected[key])
    elif isinstance(expected, list):
        check_value(name, value, list)
        if len(expected) == 2 and len(value) != 2:
            raise ConfigError(f"{name} must be a list of two numbers; got {quoted(value)}.")
        for fact in value:
            check_record(fact, f"a value in {name}", expected[0])
    else:
        check_value(name, value, expected)
