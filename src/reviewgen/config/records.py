"""The types of the facts of a training record, ``training.json``, that are displayed or used after loading.

A record may come from a download. A known fact may be missing or null, but it never has another type: readers need no check of
their own. Other facts are kept unread.
"""

from typing import Annotated, Any

from reviewgen.config.settings import Bound, check_value
from reviewgen.errors import ConfigError, quoted

_EACH = "*"  # the key that stands for all keys of an object; their values are not null
_FIGURE = Annotated[float, Bound(at_least=0, at_most=1_000_000)]  # bits per character, shares, characters
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
    "copy_rate_texts",
    "copy_rate_characters",
    "held_out_copy_rate",
    "token_copy_rate",
    "held_out_token_copy_rate",
)
_DATA: dict[str, Any] = {
    "source": str,
    "fingerprint": str,
    "repeated_lines": [str],
    "reviews": {_EACH: float},
    "tokens": {_EACH: float},
    "conditions": [{"values": [{}]}],
    "split": {},
    **dict.fromkeys(_CLEANING, bool),
    **dict.fromkeys(("weight", "characters", "times"), float),
}
_DATA["corpora"] = [_DATA]
_METRIC = {
    "unit": str,
    "lower_is_better": bool,
    "generated": float,
    "interval": [float, float],
    "held_out": float,
}
_BLEND = {"characters": float, "bits_per_character": {"fitted_weights": float, "parts": [float | None]}}
_RECORD: dict[str, Any] = {
    "data": _DATA,
    "config": {"batch_size": int, "bptt": int},
    "seconds": float,
    "verdict": {"words": str},
    "evaluations": [{"seconds": float, "tokens_seen": float, "bits_per_character": float}],
    "novelty": {
        **dict.fromkeys(_RATES, _FIGURE),
        "copy_rate_interval": [float, float],
        "false_positive_rates": {_EACH: float},
    },
    "metrics": {_EACH: _METRIC},
    "parameters": {_EACH: float},
    "held_out": {"split": str, "bits_per_character": _FIGURE},
    "weight": float,
    "weights": _BLEND,
}
_RECORD["parts"] = [_RECORD]
_RECORD["parent"] = _RECORD


def check_record(record: Any) -> None:
    """Check the content of a ``training.json``.

    Raises:
        ConfigError: A fact has another type than those that reviewgen writes.
    """
    _check("", record, _RECORD)


def _check(path: str, value: Any, expected: Any) -> None:
    """Check a fact against a type hint, an object or a list of them, or two of them for a pair."""
    name = f"{path.removeprefix('.')} in training.json" if path else "training.json"
    if isinstance(expected, dict):
        check_value(name, value, dict[str, Any])
        for key, fact in value.items():
            if _EACH in expected:
                _check(f"{path}.{key}", fact, expected[_EACH])
            elif fact is not None and key in expected:
                _check(f"{path}.{key}", fact, expected[key])
    elif isinstance(expected, list):
        check_value(name, value, list)
        for fact in value:
            _check(path, fact, expected[0])
        if len(expected) == 2 != len(value):
            raise ConfigError(f"{name} must be a list of two numbers; got {quoted(value)}.")
    else:
        check_value(name, value, expected)
