"""Known vulnerabilities of installed distributions, by pip-audit."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path

from packaging.version import Version

__all__ = ["Answer", "ask", "read"]


@dataclass
class Answer:
    """What the vulnerability service knows."""

    known: list[str] = field(default_factory=list)  # a line for each vulnerability
    # a line for each distribution that it does not know
    unanswered: list[str] = field(default_factory=list)


def ask(distributions: Sequence[Distribution]) -> Answer:
    """Ask about installed versions; about the first one alone before all the others, in case that
    no service answers.

    Raises:
        ConnectionError: The service cannot be reached, or does not know the first distribution.
    """
    first = _ask(distributions[:1])
    if first.unanswered:
        raise ConnectionError(f"The vulnerability service does not answer: {first.unanswered[0]}")
    return _ask(distributions)


def _ask(distributions: Sequence[Distribution]) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text(
            "".join(f"{one.name}=={Version(one.version).public}\n" for one in distributions),
            encoding="utf-8",
        )
        words = [
            "-r",
            str(pins),
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True
        )
    if not done.stdout.startswith("{"):
        reason = done.stderr.strip().splitlines()[-1:] or [
            f"pip-audit ended with exit status {done.returncode}"
        ]
        raise ConnectionError(f"The vulnerability service does not answer: {reason[0][:300]}")
    return read(done.stdout)


def read(report: str) -> Answer:
    """Read the JSON that pip-audit prints."""
    answer = Answer()
    for one in json.loads(report)["dependencies"]:
        if "skip_reason" in one:
            answer.unanswered.append(f"{one['name']}: {one['skip_reason']}")
        for flaw in one.get("vulns", []):
            mended = ", ".join(flaw["fix_versions"]) or "no version yet"
            answer.known.append(f"{one['name']} {one['version']}: {flaw['id']}, mended in {mended}")
    return answer
