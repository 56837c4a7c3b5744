"""``reviewgen play``: shows the distribution of the next token, and lets the user choose, type, sample or undo."""

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from reviewgen.cli.console import Result, echo, echo_text, make_table, note, show
from reviewgen.cli.options import declared, takes
from reviewgen.config import GenerationConfig
from reviewgen.config.options import Call
from reviewgen.errors import ReviewgenError, counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from reviewgen.generation import Alternative, Context, NextTokens, Walk

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


@takes(
    declared(GenerationConfig, only=["conditions", "logits_processors"], unset=True),
    declared(Call, only=["seed"]),
)
def play(
    model: str, *, prompt: str = "", k: int = 10, temperature: float = 1.0, as_json: bool = False, **options: Any
) -> Result | None:
    """Show what a model expects next, token by token, and choose the next token yourself.

    Args:
        prompt: The beginning of the text.
        k: The number of alternatives to show.
        temperature: Above 0; 1 shows the model's own probabilities.
    """
    from reviewgen.api import load

    processors = options.pop("logits_processors")
    walk = load(model).walk(prompt, temperature=temperature, logits_processor=processors, **options)
    if as_json:
        return Result({"model": model} | walk.next_tokens(k).facts())
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        _loop(walk, k)
    except (EOFError, KeyboardInterrupt):
        echo()
    echo_text(walk.text)
    return None


def _loop(walk: "Walk", k: int) -> None:
    """Show the next tokens, read a command and carry it out, until the user quits."""
    note("A number appends a token, Enter samples one, text is appended, u undoes, q quits, ? is help.", "dim")
    while True:
        expected = None if walk.has_ended else walk.next_tokens(k)
        show(None, False, _step(walk.text, expected))
        while (line := input("> ")) != "q":
            try:
                if (problem := _execute(walk, line, expected)) is None:
                    break
                for each in problem.splitlines():
                    note(each, None if problem == _HELP else "yellow")
            except ReviewgenError as error:
                note(str(error), "yellow")
        else:
            return


def _execute(walk: "Walk", line: str, expected: "NextTokens | None") -> str | None:
    """Carry out a command; return what to say if the text has not changed."""
    if line == "?":
        return _HELP
    if line == "u":
        return None if walk.undo() else "There is no step to undo."
    if command := re.fullmatch(r"(?:d(?: +([0-9]{1,9}))?)?", line):
        walk.draw(int(command[1] or 1))
        return None
    if re.fullmatch(r"[0-9]{1,9}", line):
        shown = expected.alternatives if expected else ()
        if not 1 <= int(line) <= len(shown):
            return f"{line} is not in the table, which has {len(shown)}; +{line} appends it as text."
        walk.take(shown[int(line) - 1].token)
        return None
    text = line.removeprefix("+")
    if len(line) > 1 and line[0] == line[-1] == '"':
        try:
            text = str(json.loads(line))
        except ValueError:
            text = ""
    if not text:
        return f'{line} adds no text: type +text, or "text" with \\n for a new line.'
    walk.write(text)
    return None


def _step(text: str, expected: "NextTokens | None") -> "list[RenderableType]":
    """Return the text so far and the table of the next tokens."""
    from rich.text import Text

    lines: list[RenderableType] = [Text(), Text(text or "(the start of a review)", style="bold")]
    if expected is None:
        return [*lines, Text("The review ends here; u undoes that.", style="dim")]
    if expected.contexts:
        lines.append(Text(_describe_context(expected.contexts[0]), style="dim"))
    possible = counted(expected.possible, "possible token")
    return [*lines, _table(expected), Text(f"entropy {expected.entropy_bits:.2f} bits; {possible}")]


def _describe_context(context: "Context") -> str:
    """Return a sentence on the longest context that was seen in training."""
    from reviewgen.generation import show as shown

    if context.is_start:
        what = "the start of the review" + (f" and {shown(context.text)}" if context.text else "")
    elif context.tokens:
        what = f"the last {context.tokens} tokens, {shown(context.text)}" if context.tokens > 1 else shown(context.text)
    else:
        what = "no token"
    if context.total is None:
        return f"looks back at {what}; the model does not store how often that was seen"
    if context.unit == "predecessors":
        return f"looks back at {what}, seen between {context.total:,} different pairs of neighbours"
    return f"looks back at {what}, seen {'once' if context.total == 1 else f'{context.total:,} times'}"


def _table(expected: "NextTokens") -> "RenderableType":
    rows = []
    for number, alternative in enumerate(expected.alternatives, 1):
        probability = alternative.probability
        percent = f"{100 * probability:.1f} %" if probability >= 0.001 else f"{100 * probability:.1g} %"
        bar = ("█" * round(_BAR * probability)).ljust(_BAR)
        rows.append(
            [number, alternative.shown, percent, bar, f"{alternative.bits:.2f}", *_count_cells(alternative, expected.contexts)]
        )
    names = ("n", "seen", "from") if expected.contexts else ()
    return make_table("#", "token", "prob.", "", "bits", *names, rows=rows, left=["token", "from"])


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
