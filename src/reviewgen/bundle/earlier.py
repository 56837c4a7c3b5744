"""Training records of earlier versions, with the names that they have now."""

from collections.abc import Mapping
from typing import Any


def rename_copy_rates(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training record in which shares of 20-token windows are called ``token_copy_rate``.

    They were called ``copy_rate``, which now is the copy rate in characters. A record with ``token_copy_rate`` or
    ``copy_characters`` has the new names.

    >>> rename_copy_rates({"evaluations": [{"copy_rate": 0.1}], "novelty": {"copy_rate": 0.1, "held_out_copy_rate": 0.2}})
    {'evaluations': [{'token_copy_rate': 0.1}], 'novelty': {'token_copy_rate': 0.1, 'held_out_token_copy_rate': 0.2}}
    """
    renamed = dict(training)
    if isinstance(training.get("novelty"), dict):
        renamed["novelty"] = _rename(training["novelty"])
    if isinstance(training.get("evaluations"), list):
        renamed["evaluations"] = [_rename(each) for each in training["evaluations"]]
    if isinstance(training.get("parts"), list):
        renamed["parts"] = [rename_copy_rates(part) if isinstance(part, dict) else part for part in training["parts"]]
    return renamed


_NAMES = {"copy_rate": "token_copy_rate", "held_out_copy_rate": "held_out_token_copy_rate"}


def _rename(facts: Any) -> Any:
    if not isinstance(facts, dict) or facts.keys() & {"token_copy_rate", "copy_characters"}:
        return facts
    return {_NAMES.get(name, name): value for name, value in facts.items()}
