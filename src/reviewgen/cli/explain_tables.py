"""The tables of ``reviewgen explain``, for a terminal of 80 columns or more."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from reviewgen.analysis.explanation import (
    Attention,
    Contributions,
    CountedToken,
    CountStep,
    Explanation,
    Gate,
    Line,
    ModelExplanation,
    TokenLoss,
    show_number,
    show_percent,
)
from reviewgen.cli.console import TerminalConsole, make_table
from reviewgen.errors import counted

_WIDE = 120  # in a terminal of this width or more, formulas have a column of their own
_BAR = 8  # number of characters of the bar for the value 1
_MAX_BEFORE = 28  # max number of characters that are shown of the text before a token
_MAX_BEFORE_NARROW = 12  # the same in a narrow terminal


def render(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    """Yield the texts and tables of an explanation. Each table has at most ``tokens`` tokens."""
    width = TerminalConsole().width
    batch, time = explanation.batch
    yield _heading(
        f"{explanation.source}: {counted(batch, 'text')} of"
        f" {'up to ' if batch > 1 else ''}{counted(time, 'token')}"
    )
    for number, text in enumerate(explanation.texts, 1):
        end = " ..." if len(text) > 3 * width else ""  # at most about three lines are shown
        yield Text(f"{number}  {text[: 3 * width]}{end}")
    for sentence in explanation.notes:
        yield Text(sentence, style="yellow")
    is_single = len(explanation.models) == 1
    for model in explanation.models:
        yield _heading(
            "The batch through the model" if is_single else f"The batch through {model.name}"
        )
        has_formulas = width >= _WIDE and any(line.formula for line in model.lines)
        yield _operations_table(model, has_formulas)
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
        for number, contributions in enumerate(model.contributions, 1):
            text = f", text {number}" if len(model.contributions) > 1 else ""
            yield _heading(f"The strongest contexts{name}{text}")
            yield from _contributions(contributions, tokens)
        for number, attention in enumerate(model.attention, 1):
            text = f", text {number}" if len(model.attention) > 1 else ""
            yield _heading(f"What each head{name} reads at the last token{text}")
            yield _heads(attention)
        if model.gates:
            yield _heading(
                f"The gates{name}: mean opening over the hidden units, 0 closed to 1 open"
            )
            yield from _gates(model.gates, explanation.tokens, tokens)


def _heading(text: str) -> Text:
    """Return a heading, with an empty line before it."""
    return Text("\n" + text, style="bold")


def _table_of_tokens(table: Table, shown: int, total: int) -> Iterator[RenderableType]:
    """Yield a table of tokens and, if some are left out, a line with their number.

    Args:
        table: The table.
        shown: The maximum number of tokens in it.
        total: The number of all tokens.
    """
    yield table
    if shown < total:
        left_out = counted(total - shown, "more token")
        yield Text(f"... and {left_out}; --tokens prints more.", style="dim")


def _operations_table(model: ModelExplanation, has_formulas: bool) -> Table:
    """Return a table with a row for each operation of a model, and a last row with the totals."""
    text_columns = ["operation", "equation", "result"] if has_formulas else ["operation", "result"]
    rows: list[list[str] | None] = []
    for line in model.lines:
        name = f"{line.name} x{line.calls}" if line.calls > 1 else line.name
        equation = [line.formula] if has_formulas else []
        values = [show_number(line.mean), show_number(line.spread)]
        rows.append([name, *equation, line.shape or "–", *_sizes(line), *values])
    blank = [""] * (len(text_columns) - 1)
    rows += [None, ["all", *blank, *_sizes(model), "", ""]]
    names = (*text_columns, "parameters", "multipli-\ncations", "mean", "spread")
    return make_table(*names, rows=rows, left=text_columns, padding=(0, 1, 0, 0))


def _sizes(part: Line | ModelExplanation) -> list[str]:
    """Return the cells for the parameters and multiplications of an operation or a model."""
    counts = (part.parameters, part.multiplications)
    return [f"{count:,}" if count else "–" for count in counts]


def _losses(losses: Sequence[TokenLoss], tokens: int) -> Iterator[RenderableType]:
    """Yield the table of the losses of at most ``tokens`` tokens. Its first column shows the text
    before each token, or the window of tokens that a model with a fixed window sees.
    """
    has_windows = any(token.window for token in losses)
    max_before = _MAX_BEFORE if TerminalConsole().width >= _WIDE else _MAX_BEFORE_NARROW
    rows = []
    for token in losses[:tokens]:
        before = token.before
        if has_windows:
            before = "".join("·" if text == "(before)" else text for text in token.window)
        if len(before) > max_before:
            before = "…" + before[1 - max_before :]
        numbers = (token.logit, token.log_sum_exp, token.log_probability, token.bits)
        shown = [f"{number:z.4f}" for number in numbers]  # z prints -0.0000 as 0.0000
        rows.append([before, token.token, *shown, show_percent(token.probability)])
    names = ("token", "logit", "log sum exp", "log-softmax", "bits", "probability")
    first = "window" if has_windows else "after"
    table = make_table(first, *names, rows=rows, left=["token"], padding=(0, 1, 0, 0))
    yield from _table_of_tokens(table, tokens, len(losses))


def _sums(explanation: Explanation) -> Iterator[RenderableType]:
    """Yield a table that shows how bits per character follow from the losses of the tokens."""
    loss = explanation.loss
    count = len(loss.tokens)
    which = "the token" if count == 1 else f"the {count} tokens, added up"
    bits = Text(f"{loss.bits_per_character:.6f} bits", style="bold")
    rows = (
        (f"-log-softmax of {which}", f"{loss.nats:.6f} nats"),
        (f"divided by {count}: the loss", f"{loss.mean:.6f} nats"),
        ("by nn.LogSoftmax and nn.NLLLoss", f"{loss.mean_of_nll_loss:.6f} nats"),
        ("by nn.CrossEntropyLoss", f"{loss.mean_of_cross_entropy:.6f} nats"),
        (f"the sum / ln 2 / {counted(loss.characters, 'character')}: bits per character", bits),
    )
    yield Text()
    yield make_table("what", "value", rows=rows, left=["what"], is_boxed=False, show_header=False)


def _mixture(explanation: Explanation, tokens: int) -> Iterator[RenderableType]:
    """Yield the table of what each model of a blend adds to the probability of each token."""
    names = [f"{number} {model.name}" for number, model in enumerate(explanation.models, 1)]
    rows = []
    for token in explanation.mixture[:tokens]:
        pairs = zip(token.weights, token.probabilities, strict=True)
        cells = [f"{weight:.3f} x {show_percent(probability)}" for weight, probability in pairs]
        rows.append([token.token, *cells, show_percent(token.probability)])
    table = make_table("token", *names, "probability", rows=rows, left=["token"])
    yield from _table_of_tokens(table, tokens, len(explanation.mixture))


def _counts(counts: Sequence[CountedToken], tokens: int) -> Iterator[RenderableType]:
    """Yield the table of the counts of an n-gram: for each token, a row for each context (a step of
    the back-off, from the longest to the shortest), and a row with its probability.
    """
    steps = list(chain.from_iterable(token.steps for token in counts))
    is_exact = any(step.part is not None for step in steps)
    if is_exact:
        names = ["count", "discount", "total", "weight", "part"]
        note = (
            "part = weight x (count - discount) / total; the weight is the product of the back-off"
            " weights before it"
        )
    else:
        names = ["weight", "probability"]
        note = (
            "a token has the first probability, times the weight: the product of the back-off"
            " weights before it"
        )
    yield Text(note, style="dim")
    blank = [""] * (len(names) - 1)
    rows: list[list[Any] | None] = []
    for token in counts[:tokens]:
        name = token.token
        for step in token.steps:
            result = step.part if is_exact else step.probability
            cells = [*_count_cells(step, is_exact), show_number(step.weight), show_number(result)]
            rows.append([name, step.order, step.context, *cells])
            name = ""  # only the first row of a token names it
        if is_exact and token.rest is not None:
            uniform = Text("no count: uniform", style="dim")
            rows.append(["", "", uniform, *blank, show_number(token.rest)])
        probability = Text(show_number(token.probability), style="bold")
        rows += [["", "", Text("the token", style="bold"), *blank, probability], None]
    table = make_table("token", "n", "after", *names, rows=rows, left=["token", "after"])
    yield from _table_of_tokens(table, tokens, len(counts))
    if not is_exact:
        reason = "The model is pruned, rounded or read from an ARPA file"
        yield Text(f"{reason}, so it does not determine counts.", style="dim")
    elif any(step.unit == "predecessors" for step in steps):
        yield Text(
            "~ counts the different tokens seen before the n-gram, as Kneser-Ney does below the"
            " longest.",
            style="dim",
        )


def _count_cells(step: CountStep, is_exact: bool) -> list[str]:
    """Return the cells for count, discount and total. If the model does not determine counts
    (``is_exact`` is false), return no cells. A ~ marks a count of the different tokens seen before
    the n-gram. A ? stands for a number that is missing in this step only.
    """
    if not is_exact:
        return []
    about = "~" if step.unit == "predecessors" else ""
    count = "?" if step.count is None else f"{about}{step.count:,}"
    total = "?" if step.divisor is None else f"{step.divisor:,.0f}"
    return [count, show_number(step.discount), total]


def _contributions(contributions: Contributions, tokens: int) -> Iterator[RenderableType]:
    """Yield the table of the contexts that contribute most to the log odds of each token."""
    yield Text("+ for the token, - against it; a sum over all decisions of the token", style="dim")
    rows = []
    for index, token in enumerate(contributions.tokens[:tokens]):
        cells = [f"{part:+.2f} {context}" for context, part in contributions.strongest(index)]
        cells += [""] * (3 - len(cells))  # there may be fewer than three contexts
        sums = (f"{contributions.bits[index]:.4f}", f"{contributions.log_odds(index):.2f}")
        rows.append([token, *sums, *cells])
    names = ("1st", "2nd", "3rd")
    table = make_table(
        "token", "bits", "log odds", *names, rows=rows, left=["token", *names], padding=(0, 1, 0, 0)
    )
    yield from _table_of_tokens(table, tokens, len(contributions.tokens))


def _heads(attention: Attention) -> Table:
    """Return the table of the tokens that each head reads most at the last token of a text."""
    rows = []
    for head, name in enumerate(attention.heads):
        strongest = attention.strongest(head, len(attention.tokens) - 1)
        cells = [f"{show_percent(weight)} {token}" for token, weight in strongest]
        rows.append([name, *cells, *[""] * (4 - len(cells))])  # there may be fewer than four tokens
    names = ("1st", "2nd", "3rd", "4th")
    return make_table("head", *names, rows=rows, left=["head", *names], padding=(0, 1, 0, 0))


def _gates(
    gates: Sequence[Gate], texts: Sequence[Sequence[str]], tokens: int
) -> Iterator[RenderableType]:
    """Yield the table of gates: a row for each of at most ``tokens`` tokens, with a bar for each
    gate. ``texts`` has the tokens of each text.
    """
    rows = []
    for index, text in enumerate(texts):
        for position, token in enumerate(text):
            rows.append([token, *(_bar(gate.openings[index][position]) for gate in gates)])
    table = make_table("token", *(gate.name for gate in gates), rows=rows[:tokens], left=["token"])
    yield from _table_of_tokens(table, tokens, len(rows))


def _bar(share: float) -> str:
    """Draw a share from 0 to 1 as a bar, followed by the number."""
    return f"{('█' * round(_BAR * share)).ljust(_BAR, '░')} {share:.3f}"
