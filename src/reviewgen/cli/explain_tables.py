"""The tables of ``reviewgen explain``, for a terminal of 80 columns and up."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.analysis.explanation import (
    CountedToken,
    Explanation,
    Gate,
    ModelExplanation,
    TokenLoss,
    show_percent,
)
from reviewgen.cli.console import TerminalConsole, make_table
from reviewgen.errors import counted

_WIDE = 120  # columns from which on formulas have a column of their own
_BAR = 8  # characters of a bar for 1
_MAX_BEFORE = 28  # characters of what stands before a token
_MAX_BEFORE_NARROW = 12  # the same, in a narrow terminal


def render(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    """Yield the texts and tables of an explanation, with at most this number of tokens in each."""
    width = TerminalConsole().width
    batch, time = explanation.batch
    yield _heading(
        f"{explanation.source}: {counted(batch, 'text')} of"
        f" {'up to ' if batch > 1 else ''}{counted(time, 'token')}"
    )
    for number, text in enumerate(explanation.texts, 1):
        yield Text(f"{number}  {text[: 3 * width]}{' ...' if len(text) > 3 * width else ''}")
    for sentence in explanation.notes:
        yield Text(sentence, style="yellow")
    is_single = len(explanation.models) == 1
    for model in explanation.models:
        yield _heading(
            "The batch through the model" if is_single else f"The batch through {model.name}"
        )
        yield _walk(
            model, has_formulas=width >= _WIDE and any(line.formula for line in model.lines)
        )
    if explanation.mixture:
        yield _heading("The mixture: each model's weight x probability")
        yield from _mixture(explanation, tokens)
    yield _heading("The loss of each token")
    yield from _losses(explanation.loss.tokens, tokens)
    yield from _sums(explanation)
    for model in explanation.models:
        name = "" if is_single else f" of {model.name}"
        if model.counts:
            yield _heading(f"The contexts{name}, from the longest that was seen")
            yield from _counts(model.counts, tokens)
        if model.gates:
            yield _heading(
                f"The gates{name}: mean opening over the hidden units, 0 closed to 1 open"
            )
            yield from _gates(model.gates, explanation.tokens, tokens)


def _heading(text: str) -> Text:
    return Text("\n" + text, style="bold")


def _left_out(shown: int, all_of_them: int) -> Iterator[Text]:
    if shown < all_of_them:
        yield Text(
            f"... and {counted(all_of_them - shown, 'more token')}; --tokens prints more.",
            style="dim",
        )


def _walk(model: ModelExplanation, *, has_formulas: bool) -> Table:
    texts = ("operation", "equation", "result") if has_formulas else ("operation", "result")
    table = make_table(
        *texts,
        "parameters",
        "multipli-\ncations",
        "mean",
        "spread",
        left=texts,
        padding=(0, 1, 0, 0),
    )
    for line in model.lines:
        axes = line.shape or "-"
        name = line.name + (f" x{line.calls}" if line.calls > 1 else "")
        cells = (name, line.formula, axes) if has_formulas else (name, axes)
        numbers = (
            _count(line.parameters),
            _count(line.multiplications),
            _decimal(line.mean),
            _decimal(line.spread),
        )
        table.add_row(*map(Text, (*cells, *numbers)))
    table.add_section()
    table.add_row(
        "all",
        *[""] * (len(texts) - 1),
        _count(model.parameters),
        _count(model.multiplications),
        "",
        "",
    )
    return table


def _losses(losses: Sequence[TokenLoss], tokens: int) -> Iterator[RenderableType]:
    has_windows = any(token.window for token in losses)
    names = (
        "window" if has_windows else "after",
        "token",
        "logit",
        "log sum exp",
        "log-softmax",
        "bits",
        "probability",
    )
    rows = []
    most = _MAX_BEFORE if TerminalConsole().width >= _WIDE else _MAX_BEFORE_NARROW
    for token in losses[:tokens]:
        window = "".join("·" if text == "(before)" else text for text in token.window)
        before = window if has_windows else token.before
        before = before if len(before) <= most else "…" + before[1 - most :]
        numbers = (token.logit, token.log_sum_exp, token.log_probability, token.bits)
        shown = [f"{round(number, 4) + 0.0:.4f}" for number in numbers]  # not -0.0000
        rows.append((before, token.token, *shown, show_percent(token.probability)))
    yield make_table(*names, rows=rows, left=["token"], padding=(0, 1, 0, 0))
    yield from _left_out(tokens, len(losses))


def _sums(explanation: Explanation) -> Iterator[RenderableType]:
    loss, number = explanation.loss, len(explanation.loss.tokens)
    which = "the token" if number == 1 else f"the {number} tokens, added up"
    bits = Text(f"{loss.bits_per_character:.6f} bits", style="bold")
    rows = (
        (f"-log-softmax of {which}", f"{loss.nats:.6f} nats"),
        (f"divided by {number}: the loss", f"{loss.mean:.6f} nats"),
        ("by nn.LogSoftmax and nn.NLLLoss", f"{loss.mean_of_nll_loss:.6f} nats"),
        ("by nn.CrossEntropyLoss", f"{loss.mean_of_cross_entropy:.6f} nats"),
        (f"the sum / ln 2 / {counted(loss.characters, 'character')}: bits per character", bits),
    )
    yield Text()
    yield make_table("what", "value", rows=rows, left=["what"], is_boxed=False, show_header=False)


def _mixture(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    names = [f"{number} {model.name}" for number, model in enumerate(explanation.models, 1)]
    rows = []
    for token in explanation.mixture[:tokens]:
        pairs = zip(token.weights, token.probabilities, strict=True)
        cells = [f"{weight:.3f} x {show_percent(probability)}" for weight, probability in pairs]
        rows.append((token.token, *cells, show_percent(token.probability)))
    yield make_table("token", *names, "probability", rows=rows, left=["token"])
    yield from _left_out(tokens, len(explanation.mixture))


def _counts(counts: Sequence[CountedToken], tokens: int) -> Iterator[RenderableType]:
    steps = [step for token in counts for step in token.steps]
    is_exact = any(step.part is not None for step in steps)
    exact = (
        "part = weight x (count - discount) / total; the weight is the product of the back-off"
        " weights before it"
    )
    inexact = (
        "a token has the first probability, times the weight: the product of the back-off weights"
        " before it"
    )
    yield Text(exact if is_exact else inexact, style="dim")
    known, last = (("count", "discount", "total"), "part") if is_exact else ((), "probability")
    table = make_table("token", "n", "after", *known, "weight", last, left=["token", "after"])
    blank = [""] * (len(known) + 1)
    for token in counts[:tokens]:
        for number, step in enumerate(token.steps):
            cells = [_decimal(step.weight), _decimal(step.part if is_exact else step.probability)]
            if is_exact:
                count = (
                    "?"
                    if step.count is None
                    else f"{'~' if step.unit == 'predecessors' else ''}{step.count:,}"
                )
                cells = [
                    count,
                    _decimal(step.discount),
                    "?" if step.divisor is None else f"{step.divisor:,.0f}",
                    *cells,
                ]
            table.add_row(
                *map(Text, ("" if number else token.token, str(step.order), step.context, *cells))
            )
        if token.rest is not None and is_exact:
            table.add_row(
                "", "", Text("no count: uniform", style="dim"), *blank, _decimal(token.rest)
            )
        table.add_row(
            "",
            "",
            Text("the token", style="bold"),
            *blank,
            Text(_decimal(token.probability), style="bold"),
        )
        table.add_section()
    yield table
    yield from _left_out(tokens, len(counts))
    if is_exact and any(step.unit == "predecessors" for step in steps):
        yield Text(
            "~ counts the different tokens seen before the n-gram, as Kneser-Ney does below the"
            " longest.",
            style="dim",
        )
    if not is_exact:
        yield Text("The model is pruned or rounded, so it does not determine counts.", style="dim")


def _gates(
    gates: Sequence[Gate], read: Sequence[Sequence[str]], tokens: int
) -> Iterator[RenderableType]:
    places = [(row, time) for row, texts in enumerate(read) for time in range(len(texts))]
    rows = []
    for row, time in places[:tokens]:
        openings = [gate.openings[row][time] for gate in gates]
        rows.append(
            (
                read[row][time],
                *(
                    f"{('█' * round(_BAR * share)).ljust(_BAR, '░')} {share:.3f}"
                    for share in openings
                ),
            )
        )
    yield make_table("token", *(gate.name for gate in gates), rows=rows, left=["token"])
    yield from _left_out(tokens, len(places))


def _count(number: int) -> str:
    return f"{number:,}" if number else "-"


def _decimal(number: float | None) -> str:
    """Return a number of any size in at most eight characters."""
    if number is None:
        return "-"
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e3 else f"{number:.2g}"
