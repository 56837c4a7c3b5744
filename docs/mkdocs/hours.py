"""What an hour of training buys: the bits of the trained weights by the time of their training.

``python -m docs.mkdocs.hours`` draws ``docs/pictures/hours-word.svg`` and ``hours-char.svg``;
``docs.mkdocs.trained_models`` does, too, and writes the table. Minutes are those of one core at the
median speed of a training, since its record also counts the time in which it had to wait.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

from reviewgen.registry.plugins import find_weights
from reviewgen.web.charts import Chart, Panel, Series, save_chart

PICTURES = Path(__file__).parents[1] / "pictures"
MODELS = ("lstm", "gru", "rnn", "nnlm", "ngram")
TOKENIZERS = {"word": "words", "char": "characters"}
MINUTES = (1, 3, 10, 30, 100)
NOTHING = {"seconds": 0.0, "tokens_seen": 0}


def main() -> None:
    """Draw a chart of the models with each tokenizer."""
    for tokenizer, tokens in TOKENIZERS.items():
        curves = {f"{model}-{tokenizer}": curve(f"{model}-{tokenizer}") for model in MODELS}
        panel = Panel(
            label="bits per character of validation reviews",
            series=[
                Series(
                    name, [point for point in points if point[0] > 0.5 or len(points) < 2], style
                )
                for style, (name, points) in enumerate(curves.items())
            ],
        )
        chart = Chart(
            title=f"What an hour buys: models over {tokens}",
            x="minutes of one core",
            panels=(panel,),
            summary=f"Bits per character of {', '.join(curves)}, by the time of training.",
            log_x=True,
        )
        save_chart(chart, PICTURES / f"hours-{tokenizer}.svg")


def table() -> str:
    """Return the fewest bits of each preset after some minutes of training, in Markdown."""
    columns = ("preset", *(f"{minutes} min" for minutes in MINUTES), "all", "minutes in all")
    lines = [columns, ["---"] * len(columns)]
    for preset in (f"{model}-{tokenizer}" for tokenizer in TOKENIZERS for model in MODELS):
        points = curve(preset)
        end = points[-1][0]
        cells = [
            f"{min(bits):.2f}"
            if minutes <= end and (bits := [bits for after, bits in points if after <= minutes])
            else "–"
            for minutes in (*MINUTES, end)
        ]
        lines.append((f"`{preset}`", *cells, f"{end:.0f}" if end >= 1 else f"{end:.1f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def curve(preset: str) -> list[tuple[float, float]]:
    """Return the minutes and the bits of each evaluation of a preset's training, after those of the
    trainings that it continues.
    """
    points = list[tuple[float, float]]()
    start = 0.0
    for record in reversed([*records(preset)]):
        evaluations = record.get("evaluations", [])
        if len(evaluations) < 2:  # a count model, or a training of which only the end is known
            points.append((start + record["seconds"] / 60, best_bits(record)))
        else:
            speed = median(
                (after["seconds"] - before["seconds"])
                / (after["tokens_seen"] - before["tokens_seen"])
                for before, after in pairwise([NOTHING, *evaluations])
            )
            points += [
                (start + speed * each["tokens_seen"] / 60, each["bits_per_character"])
                for each in evaluations
            ]
        start = points[-1][0]
    return points


def best_bits(record: dict) -> float:
    """Return the bits of validation reviews in the record of a training."""
    return min(each["bits_per_character"] for each in record.get("evaluations", [record]))


def records(preset: str) -> Iterator[dict]:
    """Yield the record of a preset's training, then of the one that it continues, and so on."""
    folder = find_weights(preset)
    assert folder is not None
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    while record:
        yield record
        record = record.get("parent")


if __name__ == "__main__":
    main()
