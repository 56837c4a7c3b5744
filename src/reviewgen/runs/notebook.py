"""The progress of a training in a notebook: one figure with a bar, bits per character and the learning curve, which is updated.

It is drawn with the notebook's own display (IPython, which is there in every notebook) as inline SVG, and stays when the training
has ended. The curve comes from the run's record, so no update waits for the device.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from reviewgen.compiled.notice import compiling_notice
from reviewgen.pages import render
from reviewgen.pages.numbers import decimal, duration, thousands
from reviewgen.pictures.inline import draw_inline
from reviewgen.runs.training_run import TrainingRun
from reviewgen.training import Report

_SECONDS = 0.5  # between two updates of the figure, at least
_SHARE = 0.02  # of the time that updates may take


class NotebookView:
    """Shows a run as one figure of a notebook's cell.

    Args:
        run: The run.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._handle: Any = None
        self._last: Report | None = None
        self._next_update = 0.0  # of ``time.monotonic``
        self._has_curves = False

    @contextmanager
    def phase(self, text: str) -> Iterator[None]:
        """Show inside the block what is being done."""
        with compiling_notice.silenced():
            self._update(text)
            yield

    @contextmanager
    def training(self) -> Iterator[Callable[[Report], None]]:
        """Show the training inside the block; the value is the function that takes the report of each step."""
        self._has_curves = True
        with compiling_notice.silenced():
            self._update("Training ...")
            yield self._show

    def finish(self) -> None:
        """Show the result."""
        held_out, is_interrupted = self._run.evaluation, self._run.is_interrupted
        result = "Interrupted" if is_interrupted else "Trained"
        if held_out is not None:
            result = f"{result}: {decimal(held_out.bits_per_character)} bits per character of held-out text"
        self._update(f"{result}.", is_over=True)

    def _show(self, report: Report) -> None:
        self._last = report
        if time.monotonic() >= self._next_update:
            self._update("Training ...")

    def _update(self, status: str, is_over: bool = False) -> None:
        """Draw the figure, and set the time of the next update."""
        from IPython import display as notebook  # in a notebook it is there

        shown: Any = notebook
        start = time.monotonic()
        figure = shown.HTML(self._draw(status, is_over))
        if self._handle is None:
            self._handle = shown.display(figure, display_id=True)
        else:
            self._handle.update(figure)
        end = time.monotonic()
        self._next_update = end + max(_SECONDS, (end - start) / _SHARE)

    def _draw(self, status: str, is_over: bool) -> str:
        curves = self._run.curves if self._has_curves else {}
        evaluations = {name: each.evaluations for name, each in curves.items()}
        points = {
            name: {column: [point.get(column) for point in each.points] for column in ("seconds", "train_bits_per_character")}
            for name, each in curves.items()
        }
        return render(
            "runs/training.html",
            preset=self._run.preset,
            status=status,
            progress=None if is_over or self._last is None else self._last.progress,
            facts="" if self._last is None else _describe(self._last),
            bits=[] if is_over else _last_bits(evaluations),
            chart=draw_inline(evaluations, points, "Bits per character"),
        )


def _describe(report: Report) -> str:
    """Return the facts of a step."""
    speed = f"{thousands(report.tokens / max(report.seconds, 1e-9))} tokens a second"
    part = "" if report.part is None else f"{report.part}, "
    is_counted = report.loss is None and report.learning_rate is None
    steps = f"{thousands(report.step)} texts" if is_counted else f"step {thousands(report.step)}, epoch {report.epoch + 1}"
    return f"{part}{steps}, {duration(report.seconds)}, {speed}, {report.device}"


def _last_bits(evaluations: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    """Return the bits per character of the last evaluation of each model that has one."""
    return [(name, decimal(each[-1].get("bits_per_character"))) for name, each in evaluations.items() if each]
