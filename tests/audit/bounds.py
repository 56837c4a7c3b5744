"""Each dependency is installed at the lower bound of its range: a bound that no installation can
have was not tested.

Run in the environment of ``make test-oldest``. Exit status 1 if a dependency is newer than its
bound.
"""

import sys
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version

__all__ = ["above", "bound"]


def bound(requirement: Requirement) -> Version | None:
    """The lower bound of a requirement."""
    lower = [
        Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")
    ]
    return max(lower, default=None)


def above(name: str, wanted: frozenset[str]) -> list[str]:
    """The direct dependencies, with some extras, that are not installed at their bound; its patch
    releases are the bound, too.
    """
    problems = []
    for requirement in map(Requirement, requires(name) or []):
        if requirement.name == name or not _applies(requirement, wanted):
            continue
        lower = bound(requirement)
        installed = Version(version(requirement.name))
        if lower is None or installed.release[: len(lower.release)] != lower.release:
            problems.append(
                f"{requirement}: {installed} is installed, which is newer than the bound"
            )
    return problems


def _applies(requirement: Requirement, wanted: frozenset[str]) -> bool:
    return requirement.marker is None or any(
        requirement.marker.evaluate({"extra": extra}) for extra in {"", *wanted}
    )


if __name__ == "__main__":
    found = above("reviewgen", frozenset(sys.argv[1:]))
    print("\n".join(found) or "All dependencies are installed at the lower bounds of their ranges.")
    sys.exit(bool(found))
