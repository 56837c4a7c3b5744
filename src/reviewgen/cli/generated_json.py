"""Prints generated texts as one JSON object while they are generated, so that memory does not grow with their number."""

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from reviewgen.cli.console import notes, print_json
from reviewgen.errors import counted

if TYPE_CHECKING:
    from reviewgen.model import Generation

_IN_MEMORY = 1 << 20  # bytes of copy reports; more are kept in a temporary file


def print_generated(facts: dict[str, Any], texts: Iterable["Generation"], number: int, *, with_novelty: bool) -> tuple[int, int]:
    """Print facts of a call and its texts as one JSON object, on a terminal when it is whole.

    Args:
        facts: What comes first in the object.
        texts: The texts. If the first one cannot be generated, nothing is printed.
        number: How many texts were asked for.
        with_novelty: Whether the report of what was copied is printed for each text.

    Returns:
        How many texts there are, and how many new tokens they have.
    """
    stream = sys.stdout  # rich puts a stream of its own there while the status is shown
    with notes.status(f"Generating {counted(number, 'text')} ..."):
        if not stream.isatty():
            return _write(stream.write, facts, texts, with_novelty)
        whole = io.StringIO()
        counts = _write(whole.write, facts, texts, with_novelty)
    print_json(json.loads(whole.getvalue()))
    return counts


def _write(
    write: Callable[[str], object], facts: dict[str, Any], texts: Iterable["Generation"], with_novelty: bool
) -> tuple[int, int]:
    """Write the object: the facts, the texts one by one, then what was kept of each; return the texts and tokens in numbers."""
    reasons: list[str] = []
    new_tokens: list[int] = []
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="ascii") as reports:

        def keep(text: "Generation") -> str:
            """Keep what is written after the texts, and return the text."""
            reasons.append(text.finish_reason)
            new_tokens.append(text.new_tokens)
            if with_novelty and text.novelty is not None:
                report = asdict(text.novelty) | {"exceeds_max_copy": text.exceeds_max_copy}
                reports.write(json.dumps(report) + "\n")
            return text.text

        iterator = iter(texts)
        first = list(islice(iterator, 1))  # before anything is written
        write(_dumped(facts)[: -len("\n}")])
        _write_list(write, "texts", map(keep, chain(first, iterator)))
        _write_list(write, "finish_reasons", reasons)
        _write_list(write, "new_tokens", new_tokens)
        if with_novelty:
            reports.seek(0)
            _write_list(write, "novelty", map(json.loads, reports))
        write("\n}\n")
    return len(new_tokens), sum(new_tokens)


def _write_list(write: Callable[[str], object], name: str, values: Iterable[Any]) -> None:
    """Write another member of the object, a list, value by value."""
    write(f',\n  "{name}": [')
    for count, value in enumerate(values):
        write(("," if count else "") + "\n    " + _dumped(value).replace("\n", "\n    "))
    write("\n  ]")


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
