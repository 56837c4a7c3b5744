"""Names what an object lacks of a protocol, for the first law of each contract."""

from typing import Any

__all__ = ["lacking"]


def lacking(value: Any, protocol: type) -> str:
    """Return the names of the attributes and methods of a protocol that a value lacks, for a sentence."""
    names = {*vars(protocol), *getattr(protocol, "__annotations__", {})}
    asked = sorted(name for name in names if name == "__call__" or not name.startswith("_"))
    return " and ".join(name for name in asked if getattr(value, name, None) is None) or "an attribute or method"
