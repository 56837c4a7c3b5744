"""``make audit``: licences and known vulnerabilities of the dependencies, with each extra. Exit
status 1 if one is wrong.
"""

import sys

from rich.console import Console
from rich.table import Table

from tests.audit.licences import is_accepted, licence, why_excepted
from tests.audit.vulnerabilities import ask
from tests.audit.walk import extras, walk

_NAME = "reviewgen"


def main() -> int:
    """Print what was found."""
    console = Console()
    problems = [*_licences(console), *_vulnerabilities()]
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False)
    console.print(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}")
    return int(bool(problems))


def _licences(console: Console) -> list[str]:
    """Print a line for the base install and one for each extra, then the exceptions; return what is
    not accepted.
    """
    table = Table("install", "distributions", "excepted", "not accepted")
    excepted = set()
    problems = set()
    for extra in ["", *extras(_NAME)]:
        tree = walk(_NAME, frozenset({extra} - {""}))
        other = {name for name, dist in tree.found.items() if not is_accepted(licence(dist))}
        wrong = {name for name in other if not why_excepted(name)}
        excepted |= other - wrong
        problems |= {
            f"{name}: the licence {licence(tree.found[name])!r} is not accepted" for name in wrong
        }
        problems |= {f"{name}: not installed, so its licence is not known" for name in tree.missing}
        table.add_row(
            f"[{extra}]" if extra else "base",
            f"{len(tree.found)}",
            f"{len(other - wrong)}",
            f"{len(wrong)}",
        )
    console.print(table, markup=False)
    for name in sorted(excepted):
        console.print(f"excepted: {name}: {why_excepted(name)}", markup=False, highlight=False)
    return sorted(problems)


def _vulnerabilities() -> list[str]:
    """What is known about the installed versions, or why it is not known."""
    tree = walk(_NAME, frozenset(extras(_NAME)))
    try:
        answer = ask([dist for name, dist in sorted(tree.found.items()) if name != _NAME])
    except ConnectionError as error:
        return [
            f"{error}\nNothing is known about vulnerabilities; run `make audit` where the service"
            " can be reached."
        ]
    return [*answer.known, *(f"not audited: {line}" for line in answer.unanswered)]


if __name__ == "__main__":
    sys.exit(main())
