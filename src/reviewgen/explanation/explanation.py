"""``Explanation``: what ``reviewgen.explain`` returns, as data, JSON values and a page."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reviewgen.config import check_flags
from reviewgen.explanation.results import Loss, MixedToken, ModelExplanation, as_json
from reviewgen.storage import to_path


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a model computes on a batch of texts; made by ``reviewgen.explain``. A notebook shows it as tables.

    Attributes:
        source: What was explained: a preset, a folder, a repository.
        is_trained: Whether its weights are trained ones.
        texts: The texts that are explained.
        tokens: The tokens read of each text, for display; the first is the start token, then those of conditions.
        batch: The shape of the ids, (B, T).
        models: The model, or the models of a blend.
        loss: The loss of the batch.
        mixture: Of a blend: how each token's probability is mixed.
        notes: What to know: texts that were cut, weights that are not trained.
    """

    source: str
    is_trained: bool
    texts: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    batch: tuple[int, int]
    models: tuple[ModelExplanation, ...]
    loss: Loss
    mixture: tuple[MixedToken, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        models, bits = ", ".join(model.name for model in self.models), self.loss.bits_per_character
        return f"Explanation({self.source!r}, {models}, texts={len(self.texts)}, bits_per_character={bits:.4f})"

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON values; an infinite number is None."""
        values: dict[str, Any] = as_json(asdict(self))
        return values

    def save_html(self, file: str | Path, *, overwrite: bool = False) -> None:
        """Save everything as one self-contained page, with heat maps.

        Args:
            file: The file to write.
            overwrite: Whether to replace the file if it exists.

        Raises:
            ConfigError: The file is not a path, or its suffix is not .html.
            OutputExists: The file exists.
            StorageError: It cannot be written.
        """
        from reviewgen.pages import save_page

        check_flags(overwrite=overwrite)
        save_page(self._render("explanation/explanation.html"), to_path("file", file), overwrite)

    def _repr_html_(self) -> str:
        return self._render("explanation/fragment.html")

    def _render(self, template: str) -> str:
        from reviewgen.explanation.page import values_of
        from reviewgen.pages import render

        return render(template, explanation=self, **values_of(self.models, self.tokens))
