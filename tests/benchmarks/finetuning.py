"""A small corpus, learned by the trained weights of a preset and from scratch, in the same time: held-out bits per character.

The rule of ``reviewgen.runs.suggestion`` follows from it: ``passes`` is how often the training from scratch has read its texts;
where it is at least ten, --from should win. Names behind the command are presets:
``python -m tests.benchmarks.finetuning gru-char lstm-word``.
"""

import gzip
import json
import sys
import time

import reviewgen
from tests.benchmarks.corpora import SHARED, split_2018

PRESETS = "lstm-char", "lstm-word"
SECONDS = 10, 30, 60


def corpora() -> dict[str, object]:
    """Return small corpora: 100 of the music reviews of 2018, all of them, and captions of music."""
    train, _, _ = split_2018()
    with gzip.open(SHARED / "data" / "musiccaps.jsonl.gz", "rt", encoding="utf-8") as lines:
        captions = [json.loads(line)["text"] for line in lines]
    return {
        "100 music reviews": train[:100],
        "400 music reviews": train[:400],
        "music reviews": train,
        "500 music captions": captions[:500],
        "2,000 music captions": captions[:2_000],
        "music captions": captions,
    }


def main() -> None:
    """Print a line for each corpus, preset and time."""
    print(f"{'':32}{'untrained on it':>16}{'--from':>10}{'scratch':>10}{'passes':>10}   bits per character, test split")
    for name, source in corpora().items():
        for preset in sys.argv[1:] or PRESETS:
            for seconds in SECONDS:
                start, row = time.monotonic(), [reviewgen.load(preset).evaluate(source, split="test").bits_per_character]
                for begin in (reviewgen.load(preset), preset):
                    model = reviewgen.train(begin, source, budget=seconds)
                    row.append(model.training["held_out"]["bits_per_character"])
                passes = model.training["tokens_seen"] / model.training["data"]["tokens"]["train"]
                label = f"{name}, {preset}, {seconds} s"
                print(
                    f"{label:32}{row[0]:16.3f}{row[1]:10.3f}{row[2]:10.3f}{passes:10.1f}   {time.monotonic() - start:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
