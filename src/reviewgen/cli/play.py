"""``reviewgen play``: the next-token microscope. What the model expects, and why; a person picks, types, draws or goes back."""

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import note, print_json
from reviewgen.errors import ReviewgenError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reviewgen.model import Alternative, Context, NextTokens, Walk

__all__ = ["play"]

_BAR = 12  # characters of a bar for probability 1
_HELP = """\
a number     takes that token
Enter        draws one by the probabilities; d 20 draws twenty
any text     is added as it stands; +text or "text" where it could be a command: +5, +u, "a\\nb"
u            takes the last step back
q, Ctrl-D    quits and prints the text
In the table: bits, what the token costs; n, the longest n-gram of it that was seen (1 is the token alone); seen, how often,
where "after 3" counts the different tokens before that n-gram, as Kneser-Ney does below the longest; from, which n add most
to the probability."""


def play(
    model: options.Model,
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "",
    k: Annotated[int, typer.Option("-k", "--k", help="How many alternatives to show.")] = 10,
    temperature: Annotated[float, typer.Option(help="Above 0; 1 shows the model's own probabilities.")] = 1.0,
    condition: options.GivenCondition = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Watch a model choose the next token, and choose yourself."""
    from reviewgen.api import load

    conditions = options.typed_conditions(condition)
    walk = load(model).walk(prompt, temperature=temperature, conditions=conditions, seed=seed)
    if as_json:
        print_json({"model": model} | walk.next_tokens(k).facts())
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        _loop(walk, k)
    except (EOFError, KeyboardInterrupt):
        typer.echo()
    typer.echo(walk.text)


def _loop(walk: "Walk", k: int) -> None:
    """Show, ask and do, until a person quits."""
    note("A number takes a token, Enter draws one, text is added, u goes back, q quits, ? says more.", "dim")
    while True:
        found = None if walk.has_ended else walk.next_tokens(k)
        _show(walk.text, found)
        while (line := input("> ")) != "q":
            try:
                if _do(walk, line, found):
                    break
            except ReviewgenError as problem:
                note(str(problem), "yellow")
        else:
            return


def _do(walk: "Walk", line: str, found: "NextTokens | None") -> bool:
    """Do what a line says; return whether the text is another now."""
    if line == "?":
        note(_HELP)
        return False
    if line == "u":
        is_back = walk.undo()
        if not is_back:
            note("There is no step to take back.", "yellow")
        return is_back
    if drawn := re.fullmatch(r"(?:d(?: +([0-9]{1,9}))?)?", line):
        walk.draw(int(drawn[1] or 1))
        return True
    if re.fullmatch(r"[0-9]{1,9}", line):
        return _pick(walk, int(line), found)
    text = _typed(line)
    if text:
        walk.write(text)
    else:
        note(f'{line} adds no text: write +text, or "text" with \\n for a new line.', "yellow")
    return bool(text)


def _pick(walk: "Walk", number: int, found: "NextTokens | None") -> bool:
    shown = found.alternatives if found else ()
    if 1 <= number <= len(shown):
        walk.take(shown[number - 1].token)
        return True
    note(f"{number} is not in the table, which has {len(shown)}; +{number} adds it as text.", "yellow")
    return False


def _typed(line: str) -> str:
    """Return the text that a line adds; the empty string where it is quoted and broken."""
    if line.startswith("+"):
        return line[1:]
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            return str(json.loads(line))
        except ValueError:
            return ""
    return line


def _show(text: str, found: "NextTokens | None") -> None:
    from rich.console import Console
    from rich.text import Text

    lines: list[RenderableType] = [Text(), Text(text or "(the start of a review)", style="bold")]
    if found is None:
        lines.append(Text("The review ends here; u takes the end back.", style="dim"))
    else:
        if found.contexts:
            lines.append(Text(_describe(found.contexts[0]), style="dim"))
        lines += [_table(found), Text(f"entropy {found.entropy_bits:.2f} bits; {found.possible:,} tokens are possible")]
    console = Console(highlight=False)
    for line in lines:
        console.print(line)


def _describe(context: "Context") -> str:
    """Return what was counted after the longest context."""
    from reviewgen.generation.next_tokens import show

    if context.is_start:
        what = "the start of the review" + (f" and {show(context.text)}" if context.text else "")
    elif context.tokens:
        what = f"the last {context.tokens} tokens, {show(context.text)}" if context.tokens > 1 else show(context.text)
    else:
        what = "no token"
    if context.total is None:
        return f"looks back at {what}; how often that was seen cannot be told"
    if context.unit == "predecessors":
        return f"looks back at {what}, seen between {context.total:,} different pairs of neighbours"
    return f"looks back at {what}, seen {'once' if context.total == 1 else f'{context.total:,} times'}"


def _table(found: "NextTokens") -> "RenderableType":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("token", overflow="fold")
    table.add_column("prob.", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_BAR)
    table.add_column("bits", justify="right", no_wrap=True)
    for name in ("n", "seen", "from") if found.contexts else ():
        table.add_column(name, no_wrap=name != "from")
    for number, each in enumerate(found.alternatives, 1):
        cells = [str(number), each.shown, _percent(each.probability), "█" * round(_BAR * each.probability), f"{each.bits:.2f}"]
        table.add_row(*map(Text, cells + _counts(each, found.contexts)))
    return table


def _counts(each: "Alternative", contexts: "tuple[Context, ...]") -> list[str]:
    """Return the cells on the counts behind a token: the order, how often, the orders' shares."""
    support = each.support
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
