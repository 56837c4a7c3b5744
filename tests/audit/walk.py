"""The dependencies of the installed package, with those of its dependencies, from the metadata of
the distributions.
"""

from collections import deque
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["Dependencies", "extras", "walk"]


@dataclass
class Dependencies:
    """What a distribution depends on, by canonical name."""

    found: dict[str, Distribution] = field(default_factory=dict)
    # direct dependencies of each distribution
    links: dict[str, set[str]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)  # required here, but not installed


def extras(name: str) -> list[str]:
    """The optional dependencies that a distribution declares."""
    return sorted(distribution(name).metadata.get_all("Provides-Extra") or [])


def walk(name: str, wanted: frozenset[str] = frozenset()) -> Dependencies:
    """Collect the dependencies of a distribution with some extras, on this Python and platform."""
    result = Dependencies()
    queue = deque([(canonicalize_name(name), wanted)])
    seen = set()
    while queue:
        here = queue.popleft()
        if here in seen:
            continue
        seen.add(here)
        try:
            dist = distribution(here[0])
        except PackageNotFoundError:
            result.missing.add(here[0])
            continue
        result.found[here[0]] = dist
        needed = _required(dist, here[1])
        result.links.setdefault(here[0], set()).update(
            canonicalize_name(one.name) for one in needed
        )
        queue.extend((canonicalize_name(one.name), frozenset(one.extras)) for one in needed)
    return result


def _required(dist: Distribution, wanted: frozenset[str]) -> list[Requirement]:
    """The requirements of a distribution with some extras."""
    every = [Requirement(text) for text in dist.requires or []]
    return [
        one
        for one in every
        if one.marker is None
        or any(one.marker.evaluate({"extra": extra}) for extra in {"", *wanted})
    ]
