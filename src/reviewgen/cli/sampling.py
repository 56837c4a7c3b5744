"""The generation options of ``reviewgen generate``, and their values as keywords of ``ReviewModel.generate``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.config import FOREIGN, MAX_VOCABULARY
from reviewgen.errors import ConfigError, DataError, quoted
from reviewgen.storage import open_input

Prompt = Annotated[str, typer.Option(help="The beginning of each text.")]
Number = Annotated[int, typer.Option("-n", "--num-return-sequences", help="The number of texts.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="The maximum number of new tokens; longer texts are cut off.")]
MinNewTokens = Annotated[int | None, typer.Option(help="The minimum number of new tokens before a text may end.")]
Temperature = Annotated[
    str | None,
    typer.Option(
        help="Above 0; below 1 favours probable tokens, above 1 varies more. A list is a cycle, token by token: 1.0,0.5,0.2."
    ),
]
TopK = Annotated[int | None, typer.Option(help="Sample from the k most probable tokens; 0 is off.")]
TopP = Annotated[
    float | None, typer.Option(help="Sample from the most probable tokens that together have this probability; 1 is off.")
]
MinP = Annotated[
    float | None,
    typer.Option(help="Sample from tokens with at least this fraction of the most probable token's probability; 0 is off."),
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1 makes tokens that are already in the text less probable; 1 is off.")
]
NoRepeatNgramSize = Annotated[int | None, typer.Option(help="No sequence of this many tokens occurs twice in a text; 0 is off.")]
DoSample = Annotated[
    bool | None, typer.Option("--do-sample/--greedy", help="Sample, or take the most probable token.  [default: sample]")
]
NumBeams = Annotated[int | None, typer.Option(help="Beam search for the most probable texts with this many beams.")]
LengthPenalty = Annotated[float | None, typer.Option(help="With beams: above 0 favours longer texts.")]
Stop = Annotated[list[str] | None, typer.Option("--stop-strings", "--stop", help="End a text after this string. Repeatable.")]
Finish = Annotated[
    str | None, typer.Option(help="sentence: shorten a text that was cut off to its last whole sentence; anywhere.")
]
Words = Annotated[
    str | None,
    typer.Option(
        help="known: only words that occur at least twice in the training text; any.  [default: as the model was saved]"
    ),
]
LogitsProcessor = Annotated[
    list[str] | None,
    typer.Option(help="An installed logits processor, which changes the scores of the next token. Repeatable: called in order."),
]
Prompts = Annotated[
    Path | None, typer.Option(help="A text file of prompts, one a line, each for -n texts; - reads standard input.")
]
MaxTime = Annotated[float | None, typer.Option(help="Stop after this many seconds; texts end where they are.")]
MustInclude = Annotated[list[str] | None, typer.Option(help="A word that each text must contain. Repeatable.")]
NoveltyMode = Annotated[
    str | None,
    typer.Option(
        "--novelty", help="report: show what each text copies from the training text; filter: also prevent long copied spans."
    ),
]
MaxCopy = Annotated[
    int | None, typer.Option(help="With filter: the maximum length of a copied span in tokens.  [default: about 50 characters]")
]
Device = Annotated[
    str | None,
    typer.Option(
        help="The device that generates: cpu, cuda, mps, or auto: what accelerate finds, for a network.  "
        "[default: auto with a folder, else cpu]"
    ),
]
WeightBits = Annotated[
    int, typer.Option("--bits", help="Precision of the weights: 32, or 16 or 8, which are faster for large models.")
]

_SAME_NAMES = (  # as keywords of the library
    *("max_new_tokens", "min_new_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "no_repeat_ngram_size", "do_sample"),
    *("num_beams", "length_penalty", "words", "finish", "max_time", "novelty", "max_copy"),
)


def refuse_foreign_names(arguments: Sequence[str]) -> None:
    """Raise if an option of ``generate`` has the name that another library gives it.

    Raises:
        ConfigError: One has; the message gives the name that it has here.
    """
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0].replace("-", "_")
        if argument.startswith("--") and name in FOREIGN and name != "stop":
            raise ConfigError(f"{argument.partition('=')[0]} is called --{FOREIGN[name].replace('_', '-')} here.")


def read_prompts(prompt: str, file: Path | None) -> str | list[str]:
    """Return the prompt, or those of a file, one a line.

    Raises:
        ConfigError: Both are given, or the file has no prompts.
        DataError: The file cannot be read, or is not text.
    """
    if file is None:
        return prompt
    if prompt:
        raise ConfigError("Give --prompt or --prompts, not both.")
    try:
        text = options.read_stdin(MAX_VOCABULARY) if str(file) == "-" else _read(file)
    except UnicodeDecodeError:
        raise DataError(f"The prompts {file} cannot be read: it is not UTF-8 text.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"The prompts {file} cannot be read: {reason}.") from None
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ConfigError(f"{file} has no prompts; write one a line.")
    return prompts


def _read(file: Path) -> str:
    with open_input(file) as stream:
        content = stream.read(MAX_VOCABULARY + 1)
    if len(content) > MAX_VOCABULARY:
        raise ValueError(f"it is larger than {MAX_VOCABULARY >> 20} MB")
    return content.decode("utf-8-sig")


def generation_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the options as keywords of ``ReviewModel.generate``.

    Raises:
        ConfigError: A temperature is not a number, or a condition is not given as name=value.
    """
    return {name: given[name] for name in _SAME_NAMES} | {
        "num_return_sequences": given["number"],
        "temperature": _parse_temperature(given["temperature"]),
        "stop_strings": given["stop"] or None,
        "logits_processor": given["logits_processor"] or None,
        "conditions": options.typed_conditions(given["condition"]),
        "must_include": given["must_include"] or None,
    }


def _parse_temperature(text: str | None) -> list[float] | float | None:
    """Return a temperature, or a cycle of several."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"temperature must be a number, or several as in 1.0,0.5,0.2; got {quoted(text)}.") from None
    return values[0] if len(values) == 1 else values
