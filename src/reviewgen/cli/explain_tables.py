"""The tables of ``reviewgen explain``, for a terminal of 80 columns and up."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.cli.console import TerminalConsole
from reviewgen.errors import counted
from reviewgen.explanation import Explanation
from reviewgen.explanation.results import CountedToken, CountStep, Gate, Line, ModelExplanation, TokenLoss, show_percent

_WIDE = 120  # columns from which on formulas have a column of their own
_BAR = 8  # characters of a bar for 1
_FOLDING = ("operation", "equation", "after", "token", "property")  # columns whose texts may take several lines
_MAX_WINDOW = 28  # characters of a window


def print_explanation(explanation: Explanation, tokens: int) -> None:
    """Print an explanation.

    Args:
        explanation: What to print.
        tokens: How many tokens of each table to print.
    """
    console = TerminalConsole(highlight=False)
    for item in _render(explanation, tokens, console.width):
        console.print(item)


def _render(explanation: Explanation, tokens: int, width: int) -> Iterator[RenderableType]:
    batch, time = explanation.batch
    yield _heading(f"{explanation.source}: {counted(batch, 'text')} of {'up to ' if batch > 1 else ''}{counted(time, 'token')}")
    for number, text in enumerate(explanation.texts, 1):
        shown = text if len(text) <= 3 * width else text[: 3 * width] + " ..."
        yield Text(f"{number}  {_printable(shown)}")
    for sentence in explanation.notes:
        yield Text(sentence, style="yellow")
    for model in explanation.models:
        yield from _render_walk(model, width, is_single=len(explanation.models) == 1)
    if explanation.mixture:
        yield _heading("The mixture: each model's weight x probability")
        yield from _mixture(explanation, tokens)
    yield _heading("The loss of each token")
    yield from _losses(explanation, tokens)
    yield from _sums(explanation)
    for model in explanation.models:
        yield from _render_details(model, explanation, tokens)


def _heading(text: str) -> Text:
    return Text("\n" + text, style="bold")


def _table(*columns: str, left: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        can_fold = column in _FOLDING
        justify: Literal["left", "right"] = "left" if column in left else "right"
        table.add_column(
            column, justify=justify, no_wrap=not can_fold, overflow="fold", min_width=len(column) if can_fold else None
        )
    return table


def _printable(text: str) -> str:
    """Return a text without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def _left_out(shown: int, all_of_them: int) -> Iterator[Text]:
    if shown < all_of_them:
        more = all_of_them - shown
        yield Text(f"... and {more:,} more {'token' if more == 1 else 'tokens'}; --tokens prints more.", style="dim")


def _render_walk(model: ModelExplanation, width: int, is_single: bool) -> Iterator[RenderableType]:
    yield _heading("The batch through the model" if is_single else f"The batch through {model.name}")
    has_formulas = width >= _WIDE and any(line.formula for line in model.lines)
    first = ("operation", "equation") if has_formulas else ("operation",)
    columns = (*first, "result", "parameters", "multipli-\ncations", "mean", "spread")
    table = _table(*columns, left=("operation", "equation", "result"))
    for line in model.lines:
        calls = f" x{line.calls}" if line.calls > 1 else ""
        formula = (line.formula,) if has_formulas else ()
        numbers = (_count(line.parameters), _count(line.multiplications), _decimal(line.mean), _decimal(line.spread))
        table.add_row(*map(Text, (line.name + calls, *formula, _axes(line), *numbers)))
    table.add_section()
    blank = ("",) * len(first)
    table.add_row("all", *blank, _count(model.parameters), _count(model.multiplications), "", "")
    yield table


def _axes(line: Line) -> str:
    """Return the axes with their sizes, as in "B=2 T=9 H=8"; an axis without a letter is its size."""
    pairs = zip(line.axes, line.sizes, strict=True)
    return " ".join(letter if letter == str(size) else f"{letter}={size}" for letter, size in pairs) or "-"


def _losses(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    loss = explanation.loss
    has_windows = any(token.window for token in loss.tokens)
    names = ("window" if has_windows else "after", "token")
    table = _table(*names, "logit", "log sum exp", "log-softmax", "bits", "probability", left=("token",))
    for token in loss.tokens[:tokens]:
        before = _window(token) if has_windows else token.before
        numbers = (token.logit, token.log_sum_exp, token.log_probability, token.bits)
        shown = [f"{round(number, 4) + 0.0:.4f}" for number in numbers]  # not -0.0000
        table.add_row(*map(Text, (before, token.token, *shown, show_percent(token.probability))))
    yield table
    yield from _left_out(tokens, len(loss.tokens))


def _window(token: TokenLoss) -> str:
    """Return the end of a window; what is before the text is one dot a token."""
    text = "".join("·" if each == "(before)" else each for each in token.window)
    return text if len(text) <= _MAX_WINDOW else "…" + text[1 - _MAX_WINDOW :]


def _sums(explanation: Explanation) -> Iterator[RenderableType]:
    loss, number = explanation.loss, len(explanation.loss.tokens)
    yield Text()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    which = "the token" if number == 1 else f"the {number} tokens, added up"
    table.add_row(Text(f"-log-softmax of {which}"), Text(f"{loss.nats:.6f} nats"))
    table.add_row(Text(f"divided by {number}: the loss"), Text(f"{loss.mean:.6f} nats"))
    table.add_row(Text("by nn.LogSoftmax and nn.NLLLoss"), Text(f"{loss.mean_of_nll_loss:.6f} nats"))
    table.add_row(Text("by nn.CrossEntropyLoss"), Text(f"{loss.mean_of_cross_entropy:.6f} nats"))
    what = f"the sum / ln 2 / {counted(loss.characters, 'character')}: bits per character"
    table.add_row(Text(what), Text(f"{loss.bits_per_character:.6f} bits", style="bold"))
    yield table


def _mixture(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    names = [f"{number} {model.name}" for number, model in enumerate(explanation.models, 1)]
    table = _table("token", *names, "probability", left=("token",))
    for token in explanation.mixture[:tokens]:
        pairs = zip(token.weights, token.probabilities, strict=True)
        cells = [f"{weight:.3f} x {show_percent(probability)}" for weight, probability in pairs]
        table.add_row(*map(Text, (token.token, *cells, show_percent(token.probability))))
    yield table
    yield from _left_out(tokens, len(explanation.mixture))


def _render_details(model: ModelExplanation, explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    name = f" of {model.name}" if len(explanation.models) > 1 else ""
    if model.counts:
        yield _heading(f"The contexts{name}, from the longest that was seen")
        yield Text(_describe_counts(model.counts), style="dim")
        yield from _counts(model.counts, tokens)
    if model.gates:
        yield _heading(f"The gates{name}: mean opening over the hidden units, 0 closed to 1 open")
        yield from _gates(model.gates, explanation.tokens, tokens)
    if model.units:
        yield _heading(f"Hidden units{name} that follow a property of the text")
        yield _units(model)


def _counts(counts: Sequence[CountedToken], tokens: int) -> Iterator[RenderableType]:
    is_exact = any(step.part is not None for token in counts for step in token.steps)
    known = ("count", "discount", "total") if is_exact else ()
    last = "part" if is_exact else "probability"
    table = _table("token", "n", "after", *known, "weight", last, left=("token", "after"))
    blank = ("",) * (len(known) + 1)
    for token in counts[:tokens]:
        for number, step in enumerate(token.steps):
            cells = _count_cells(step) if is_exact else (_decimal(step.weight), _decimal(step.probability))
            table.add_row(*map(Text, ("" if number else token.token, str(step.order), step.context, *cells)))
        if token.rest is not None and is_exact:
            table.add_row("", "", Text("no count: uniform", style="dim"), *blank, _decimal(token.rest))
        table.add_row("", "", Text("the token", style="bold"), *blank, Text(_decimal(token.probability), style="bold"))
        table.add_section()
    yield table
    yield from _left_out(tokens, len(counts))
    if is_exact and any(step.unit == "predecessors" for token in counts for step in token.steps):
        yield Text("~ counts the different tokens seen before the n-gram, as Kneser-Ney does below the longest.", style="dim")
    if not is_exact:
        yield Text("The model is pruned or rounded, so it does not determine counts.", style="dim")


def _describe_counts(counts: Sequence[CountedToken]) -> str:
    if any(step.part is not None for token in counts for step in token.steps):
        return "part = weight x (count - discount) / total; the weight is the product of the back-off weights before it"
    return "a token has the first probability, times the weight: the product of the back-off weights before it"


def _count_cells(step: CountStep) -> tuple[str, ...]:
    """Return the count of a step, what is subtracted, what it is divided by, the weight and the part."""
    after = "~" if step.unit == "predecessors" else ""
    count = "?" if step.count is None else f"{after}{step.count:,}"
    return count, _decimal(step.discount), _whole(step.divisor), _decimal(step.weight), _decimal(step.part)


def _gates(gates: Sequence[Gate], read: Sequence[Sequence[str]], tokens: int) -> Iterator[RenderableType]:
    table = _table("token", *(gate.name for gate in gates), left=("token",))
    rows = [(row, time) for row, texts in enumerate(read) for time in range(len(texts))]
    for row, time in rows[:tokens]:
        openings = [gate.openings[row][time] for gate in gates]
        table.add_row(Text(read[row][time]), *(Text(f"{_bar(opening)} {opening:.3f}") for opening in openings))
    yield table
    yield from _left_out(tokens, len(rows))


def _units(model: ModelExplanation) -> Table:
    table = _table("property", "state", "unit", "correlation", "where chosen", left=("property", "state"))
    for _, units in groupby(model.units, key=lambda unit: unit.property):
        for number, unit in enumerate(units):
            numbers = (str(unit.unit), f"{unit.correlation:+.3f}", f"{unit.correlation_chosen:+.3f}")
            table.add_row(*map(Text, ("" if number else unit.property, unit.state, *numbers)))
    return table


def _bar(value: float) -> str:
    return ("█" * round(_BAR * value)).ljust(_BAR, "░")


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _whole(number: float | None) -> str:
    return "?" if number is None else f"{number:,.0f}"


def _decimal(number: float | None) -> str:
    """Return a number of any size in at most eight characters."""
    if number is None:
        return "-"
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e3 else f"{number:.2g}"
