"""The options of ``generate`` that say how texts are drawn, and what they mean to ``ReviewModel.generate``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.config import FOREIGN
from reviewgen.errors import ConfigError

__all__ = [
    "Bits",
    "DoSample",
    "Finish",
    "LengthPenalty",
    "MaxCopy",
    "MaxNewTokens",
    "MaxTime",
    "MinNewTokens",
    "MinP",
    "MustInclude",
    "NoRepeatNgramSize",
    "NoveltyMode",
    "NumBeams",
    "Number",
    "Prompt",
    "RepetitionPenalty",
    "Stop",
    "Temperature",
    "TopK",
    "TopP",
    "refuse_foreign_words",
    "wishes",
]

Prompt = Annotated[str, typer.Option(help="What each text begins with.")]
Number = Annotated[int, typer.Option("-n", "--num-return-sequences", help="How many texts.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Where to cut off a text that does not end by itself.")]
MinNewTokens = Annotated[int | None, typer.Option(help="No text ends by itself before it has so many.")]
Temperature = Annotated[
    str | None, typer.Option(help="Above 0; below 1 likelier, above 1 wilder. Several are a cycle, token by token: 1.0,0.5,0.2.")
]
TopK = Annotated[int | None, typer.Option(help="Draw from the k most probable tokens; 0 is off.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the most probable tokens of this probability; 1 is off.")]
MinP = Annotated[float | None, typer.Option(help="Draw from tokens this many times as probable as the best; 0 is off.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1: tokens that were used become less probable.")]
NoRepeatNgramSize = Annotated[int | None, typer.Option(help="No run of so many tokens twice in a text; 0 is off.")]
DoSample = Annotated[
    bool | None, typer.Option("--do-sample/--greedy", help="Draw, or take the most probable token.  [default: draw]")
]
NumBeams = Annotated[int | None, typer.Option(help="Search for the most probable texts, so many at a time.")]
LengthPenalty = Annotated[float | None, typer.Option(help="Of beams: above 0 favours longer texts.")]
Stop = Annotated[list[str] | None, typer.Option("--stop-strings", "--stop", help="End a text after this string. Repeatable.")]
Finish = Annotated[str | None, typer.Option(help="sentence: end texts that are cut off at a sentence end.")]
MaxTime = Annotated[float | None, typer.Option(help="Seconds after which the texts end where they are.")]
MustInclude = Annotated[list[str] | None, typer.Option(help="A word that each text must hold. Repeatable.")]
NoveltyMode = Annotated[
    str | None,
    typer.Option("--novelty", help="report: say what of each text was copied; filter: also let no long span be copied."),
]
MaxCopy = Annotated[
    int | None, typer.Option(help="With filter: the most tokens of a copied span.  [default: about 50 characters]")
]
Bits = Annotated[int, typer.Option(help="Of a weight: 32, or 16 or 8, which write faster with large models.")]

_SAME = (  # as the library names them
    *("max_new_tokens", "min_new_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size", "do_sample"),
    *("num_beams", "length_penalty", "finish", "max_time", "novelty", "max_copy"),
)


def refuse_foreign_words(words: Sequence[str]) -> None:
    """Raise where an option of ``generate`` has the name that another library gives it.

    Raises:
        ConfigError: One has; names ours.
    """
    for word in words:
        name = word.lstrip("-").partition("=")[0].replace("-", "_")
        if word.startswith("--") and name in FOREIGN and name != "stop":
            raise ConfigError(f"{word.partition('=')[0]} is called --{FOREIGN[name].replace('_', '-')} here.")


def wishes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was typed as keywords of ``ReviewModel.generate``.

    Raises:
        ConfigError: A temperature is no number, or a condition is not written name=value.
    """
    return {name: given[name] for name in _SAME} | {
        "num_return_sequences": given["number"],
        "temperature": _numbers(given["temperature"]),
        "stop_strings": given["stop"] or None,
        "conditions": options.typed_conditions(given["condition"]),
        "must_include": given["must_include"] or None,
    }


def _numbers(text: str | None) -> list[float] | float | None:
    """Return a temperature or a cycle of them, as typed."""
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"temperature is a number, or several as in 1.0,0.5,0.2; got {text!r}.") from None
    return found[0] if len(found) == 1 else found
