"""The types of the facts of a training record, ``training.json``, that are displayed or used after
loading.

A record may come from a download. A known fact may be missing or null, but it never has another
type: readers need no check of their own. Other facts are kept unread; those that only a model card
has are checked when one is written.
"""

from typing import Annotated, Any

from reviewgen.config.settings import Bound, check_value

_EACH = "*"  # the key that stands for all keys of an object; their values are not null
# bits per character, shares, characters
_FIGURE = Annotated[float, Bound(at_least=0, at_most=1_000_000)]
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
)
_DATA: dict[str, Any] = {
    "source": str,
    "fingerprint": str,
    "repeated_lines": [str],
    "tokens": {_EACH: float},
    **dict.fromkeys(_CLEANING, bool),
}
_DATA["corpora"] = [_DATA]
_METRIC = {"unit": str, "lower_is_better": bool, "generated": float, "held_out": float}
_RECORD: dict[str, Any] = {
    "data": _DATA,
    "config": {"batch_size": int, "bptt": int},
    "seconds": float,
    "verdict": {"words": str},
    "evaluations": [{"seconds": float, "tokens_seen": float, "bits_per_character": float}],
    "novelty": dict.fromkeys(_RATES, _FIGURE) | {"copy_rate_interval": [float]},
    "metrics": {_EACH: _METRIC},
    "parameters": {_EACH: float},
    "held_out": {"bits_per_character": _FIGURE},
}
_RECORD["parts"] = [_RECORD]
_RECORD["parent"] = _RECORD


def check_record(value: Any, name: str = "training.json", expected: Any = _RECORD) -> None:
    """Check the content of a ``training.json``, or a fact in it against a type hint, or an object
    or a list of them.

    Raises:
        ConfigError: A fact has another type than those that reviewgen writes.
    """
    if isinstance(expected, dict):
        check_value(name, value, dict[str, Any])
        for key, fact in value.items():
            if _EACH in expected:
                check_record(fact, f"{key} in {name}", expected[_EACH])
            elif fact is not None and key in expected:
                check_record(fact, f"{key} in {name}", expected[key])
    elif isinstance(expected, list):
        check_value(name, value, list)
        for fact in value:
            check_record(fact, f"a value in {name}", expected[0])
    else:
        check_value(name, value, expected)
