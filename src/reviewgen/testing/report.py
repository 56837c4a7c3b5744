"""The report of ``check_plugin``: plain data, and how it is shown. Needs neither torch nor pytest."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["PluginCheck", "PluginReport"]


@dataclass(frozen=True)
class PluginCheck:
    """One check of a plugin.

    Attributes:
        name: What was checked: "metadata", "presets", "law causal", "training", ...
        outcome: "ok", "failed", or "not checked" because a check that it needs has failed.
        seconds: How long it took.
        message: What was found, or what is wrong, as a sentence.
    """

    name: str
    outcome: Literal["ok", "failed", "not checked"]
    seconds: float
    message: str


@dataclass(frozen=True)
class PluginReport:
    """All checks of a plugin.

    Attributes:
        name: The name that was checked.
        preset: The preset that was trained, ``<model>-<tokenizer>``; empty for what is not trained, as a metric.
        checks: The checks, in order.
    """

    name: str
    preset: str
    checks: tuple[PluginCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every check was made and is ok."""
        return all(check.outcome == "ok" for check in self.checks)

    @property
    def seconds(self) -> float:
        """How long all checks took."""
        return sum(check.seconds for check in self.checks)

    def raise_for_failure(self) -> None:
        """Raise if a check has failed.

        Raises:
            AssertionError: Names each check that failed, with its message.
        """
        failed = [f"{check.name}: {check.message}" for check in self.checks if check.outcome == "failed"]
        if failed:
            raise AssertionError(f"{self.name} fails {len(failed)} of {len(self.checks)} checks.\n" + "\n".join(failed))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            **asdict(self),
            "checks": [asdict(check) for check in self.checks],
            "passed": self.passed,
            "seconds": self.seconds,
        }

    def rows(self) -> Iterator[PluginCheck]:
        """Yield the checks for a table, in which the laws that are ok are one row, and so are those that were not checked."""
        laws = [check for check in self.checks if check.name.startswith("law ")]
        shown = set()
        for check in self.checks:
            if check not in laws or check.outcome == "failed":
                yield check
            elif check.outcome not in shown:
                shown.add(check.outcome)
                alike = [law for law in laws if law.outcome == check.outcome]
                message = " hold" if check.outcome == "ok" else f": {check.message}"
                seconds = sum(law.seconds for law in alike)
                yield PluginCheck("laws", check.outcome, seconds, f"{len(alike)} of {len(laws)} laws{message}")

    def __str__(self) -> str:
        lines = [f"{check.name:<14} {check.seconds:5.1f} s  {check.outcome}: {check.message}" for check in self.rows()]
        verdict = "all checks are ok" if self.passed else "not all checks are ok"
        return "\n".join([*lines, f"{self.name}: {verdict} ({self.seconds:.1f} s)"])
