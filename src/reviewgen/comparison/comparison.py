"""``Comparison``: the rows, and what is made of them: a data frame, JSON, a page."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reviewgen.comparison.held_out import HeldOut
from reviewgen.comparison.intervals import compare_pairs
from reviewgen.comparison.measuring import Measured
from reviewgen.comparison.rows import Pair, Row, to_json
from reviewgen.config import check_flags

if TYPE_CHECKING:
    import pandas

_NESTED = ("bits_interval", "distinct", "samples", "curve", "orders", "notes", "picture")


class Comparison:
    """Models on one scale; ``reviewgen.compare`` returns it.

    Args:
        held_out: The texts that all models are evaluated on.
        prompt: The beginning of the samples.
        seed: The seed of the intervals.

    Attributes:
        rows: A ``Row`` for each model, in the order that they were given in.
        is_interrupted: Whether Ctrl-C has ended the comparison before all rows were finished.
    """

    def __init__(self, held_out: HeldOut, prompt: str, seed: int) -> None:
        self.held_out, self.prompt, self.seed = held_out, prompt, seed
        self.rows: list[Row] = []
        self.is_interrupted = False
        self._bits: dict[str, tuple[float, ...]] = {}

    def add(self, measured: Measured) -> None:
        """Add a finished row."""
        self.rows.append(measured.row)
        if measured.bits is not None and not measured.row.has_seen_held_out:
            self._bits[measured.row.name] = measured.bits
        self.__dict__.pop("pairs", None)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The paired difference of each two models on the same texts, without those that were trained on them."""
        bits = {name: np.array(each) for name, each in self._bits.items()}
        return compare_pairs(bits, self.held_out.characters, self.seed)

    @property
    def has_failed(self) -> bool:
        """Whether a model has failed."""
        return any(row.failed is not None for row in self.rows)

    def describe_held_out(self) -> str:
        """Return a sentence on the texts that all models are evaluated on."""
        held_out = self.held_out
        count, total = len(held_out.texts), held_out.total
        part = f"{count:,}" + (f" of {total:,}" if count < total else "")
        source = held_out.source if held_out.split == "all" else f"the {held_out.split} split of {held_out.source}"
        texts = "text" if total == 1 else "texts"
        characters = int(held_out.characters.sum())
        return f"All are evaluated on the same {part} held-out {texts} ({characters:,} characters): {source}."

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; a number that is infinite becomes None."""
        held_out = self.held_out
        facts = {
            "source": held_out.source,
            "split": held_out.split,
            "texts": len(held_out.texts),
            "of": held_out.total,
            "characters": int(held_out.characters.sum()),
            "digest": held_out.digest,
        }
        rows = [to_json(row) | {"has_seen_held_out": row.has_seen_held_out} for row in self.rows]
        pairs = [to_json(pair) | {"is_told_apart": pair.is_told_apart} for pair in self.pairs]
        return {
            "held_out": facts,
            "prompt": self.prompt,
            "seed": self.seed,
            "is_interrupted": self.is_interrupted,
            "rows": rows,
            "pairs": pairs,
        }

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the figures as a data frame, a row for each model, its name as the index."""
        import pandas  # takes half a second to import

        records = []
        for row in self.rows:
            record = {name: value for name, value in vars(row).items() if name not in _NESTED}
            record["bits_low"], record["bits_high"] = row.bits_interval or (None, None)
            records.append(record | {f"distinct_{n}": share for n, share in row.distinct.items()})
        return pandas.DataFrame(records, index=[row.name for row in self.rows]).drop(columns="name", errors="ignore")

    def save_html(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save the comparison as a page: one file without scripts, which loads nothing.

        Args:
            file: The file, which ends with .html.
            overwrite: Whether to replace it if it exists.

        Raises:
            ConfigError: The suffix is not .html.
            OutputExists: The file exists, and ``overwrite`` is false.
            StorageError: It cannot be written.
        """
        from reviewgen.comparison.page import render_page
        from reviewgen.pages import refuse_page, save_page
        from reviewgen.storage import to_path

        check_flags(overwrite=overwrite)
        path = to_path("file", file)
        refuse_page(path, overwrite)
        save_page(render_page(self), path, overwrite)

    def _repr_html_(self) -> str:
        from reviewgen.comparison.page import render_fragment

        return render_fragment(self)

    def __repr__(self) -> str:
        return f"Comparison({[row.name for row in self.rows]})"
