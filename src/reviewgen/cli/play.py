"""``reviewgen play``: shows the distribution of the next token, and lets the user choose, type, sample or undo."""

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reviewgen.cli import options, sampling
from reviewgen.cli.console import TerminalConsole, echo, echo_text, note, print_json
from reviewgen.errors import ReviewgenError, counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reviewgen.model import Alternative, Context, NextTokens, Walk

_BAR = 12  # characters of a bar for probability 1
_HELP = """\
a number     appends that token
Enter        samples a token; d 20 samples twenty
any text     is appended; +text or "text" if it could be a command: +5, +u, "a\\nb"
u            undoes the last step
q, Ctrl-D    quits and prints the text
In the table: bits, the token's information content; n, the length of the longest n-gram of it that was seen in training
(1 is the token alone); seen, how often, where "after 3" counts the different tokens before that n-gram, as Kneser-Ney does
below the longest; from, which n contribute most to the probability."""


def play(
    model: options.Model,
    prompt: Annotated[str, typer.Option(help="The beginning of the text.")] = "",
    k: Annotated[int, typer.Option("-k", "--k", help="The number of alternatives to show.")] = 10,
    temperature: Annotated[float, typer.Option(help="Above 0; 1 shows the model's own probabilities.")] = 1.0,
    condition: options.GivenCondition = None,
    logits_processor: sampling.LogitsProcessor = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a model expects next, token by token, and choose the next token yourself."""
    from reviewgen.api import load

    conditions = options.typed_conditions(condition)
    walk = load(model).walk(
        prompt, temperature=temperature, conditions=conditions, logits_processor=logits_processor or None, seed=seed
    )
    if as_json:
        print_json({"model": model} | walk.next_tokens(k).facts())
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        _loop(walk, k)
    except (EOFError, KeyboardInterrupt):
        echo()
    echo_text(walk.text)


def _loop(walk: "Walk", k: int) -> None:
    """Show the next tokens, read a command and carry it out, until the user quits."""
    note("A number appends a token, Enter samples one, text is appended, u undoes, q quits, ? is help.", "dim")
    while True:
        expected = None if walk.has_ended else walk.next_tokens(k)
        _print_step(walk.text, expected)
        while (line := input("> ")) != "q":
            try:
                if _execute(walk, line, expected):
                    break
            except ReviewgenError as problem:
                note(str(problem), "yellow")
        else:
            return


def _execute(walk: "Walk", line: str, expected: "NextTokens | None") -> bool:
    """Carry out a command; return whether the text has changed."""
    if line == "?":
        for each in _HELP.splitlines():
            note(each)
        return False
    if line == "u":
        is_back = walk.undo()
        if not is_back:
            note("There is no step to undo.", "yellow")
        return is_back
    if command := re.fullmatch(r"(?:d(?: +([0-9]{1,9}))?)?", line):
        walk.draw(int(command[1] or 1))
        return True
    if re.fullmatch(r"[0-9]{1,9}", line):
        return _choose(walk, int(line), expected)
    text = _parse_text(line)
    if text:
        walk.write(text)
    else:
        note(f'{line} adds no text: type +text, or "text" with \\n for a new line.', "yellow")
    return bool(text)


def _choose(walk: "Walk", number: int, expected: "NextTokens | None") -> bool:
    """Append a token of the table."""
    shown = expected.alternatives if expected else ()
    if 1 <= number <= len(shown):
        walk.take(shown[number - 1].token)
        return True
    note(f"{number} is not in the table, which has {len(shown)}; +{number} appends it as text.", "yellow")
    return False


def _parse_text(line: str) -> str:
    """Return the text that a line appends; the empty string if it is quoted and malformed."""
    if line.startswith("+"):
        return line[1:]
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            return str(json.loads(line))
        except ValueError:
            return ""
    return line


def _print_step(text: str, expected: "NextTokens | None") -> None:
    from rich.text import Text

    lines: list[RenderableType] = [Text(), Text(text or "(the start of a review)", style="bold")]
    if expected is None:
        lines.append(Text("The review ends here; u undoes that.", style="dim"))
    else:
        if expected.contexts:
            lines.append(Text(_describe_context(expected.contexts[0]), style="dim"))
        possible = counted(expected.possible, "possible token")
        lines += [_table(expected), Text(f"entropy {expected.entropy_bits:.2f} bits; {possible}")]
    console = TerminalConsole(highlight=False)
    for line in lines:
        console.print(line)


def _describe_context(context: "Context") -> str:
    """Return a sentence on the longest context that was seen in training."""
    from reviewgen.generation.next_tokens import show

    if context.is_start:
        what = "the start of the review" + (f" and {show(context.text)}" if context.text else "")
    elif context.tokens:
        what = f"the last {context.tokens} tokens, {show(context.text)}" if context.tokens > 1 else show(context.text)
    else:
        what = "no token"
    if context.total is None:
        return f"looks back at {what}; the model does not store how often that was seen"
    if context.unit == "predecessors":
        return f"looks back at {what}, seen between {context.total:,} different pairs of neighbours"
    return f"looks back at {what}, seen {'once' if context.total == 1 else f'{context.total:,} times'}"


def _table(expected: "NextTokens") -> "RenderableType":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("token", overflow="fold")
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR)
    table.add_column("bits", justify="right", no_wrap=True)
    for name in ("n", "seen", "from") if expected.contexts else ():
        table.add_column(name, no_wrap=name != "from")
    for number, alternative in enumerate(expected.alternatives, 1):
        probability = alternative.probability
        cells = [
            str(number),
            alternative.shown,
            _percent(probability),
            "█" * round(_BAR * probability),
            f"{alternative.bits:.2f}",
        ]
        table.add_row(*map(Text, cells + _count_cells(alternative, expected.contexts)))
    return table


def _count_cells(alternative: "Alternative", contexts: "tuple[Context, ...]") -> list[str]:
    """Return the cells on the counts behind a token: the n-gram order, the count, the largest shares of the probability."""
    support = alternative.support
    if support is None:
        return []
    unit = next((context.unit for context in contexts if context.tokens + 1 == support.order), "")
    count = "" if support.count is None else f"after {support.count:,}" if unit == "predecessors" else f"{support.count:,}×"
    shares = zip(contexts, support.shares or (), strict=False)
    largest = sorted(((share, context.tokens + 1) for context, share in shares if share >= 0.05), reverse=True)[:2]
    origin = ", ".join(f"{order}: {round(100 * share)} %" for share, order in largest)
    return [str(support.order or "-"), count if support.order else "never", origin]


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %" if probability >= 0.001 else f"{100 * probability:.1g} %"
