"""Nats per character on tiny Shakespeare, as char-rnn splits it: the first 90 % is trained on, the last 10 % is held out and read
as one text; its end token is counted as one more character.

``python -m tests.benchmarks.shakespeare [PRESET [BUDGET]]``, by default lstm-char and 10m. Targets after 10 minutes on two cores:
1.47 for lstm-char, 1.42 for blend-char.

The training file is one long text, of which training holds out blocks for early stopping and for its own test. They lie between
texts of the same scene, so their figure is lower than that of the last tenth, with other plays.
"""

import sys
import tempfile
import time
from pathlib import Path

import reviewgen
from tests.benchmarks.corpora import SHARED

TARGETS = {"lstm-char": 1.47, "blend-char": 1.42}
FILE = SHARED / "data" / "tinyshakespeare.txt"
SHARE = 0.9  # of the characters, to train on


def main(preset="lstm-char", budget="10m"):
    """Print the figures of one training."""
    text = FILE.read_text(encoding="utf-8")
    cut = int(len(text) * SHARE)
    with tempfile.TemporaryDirectory() as name:
        train, held_out = Path(name) / "train.txt", Path(name) / "held-out.txt"
        train.write_text(text[:cut], encoding="utf-8")
        held_out.write_text(text[cut:], encoding="utf-8")
        start = time.monotonic()
        model = reviewgen.train(preset, train, documents="file", budget=budget)
        seconds = time.monotonic() - start
        last_tenth = model.evaluate(held_out, documents="file")
    training = model.training
    nats, target = last_tenth.nats_per_character, TARGETS.get(preset)
    met = "" if target is None else f" (target {target}: {'met' if nats <= target else 'MISSED'})"
    print(f"{preset} {seconds:.1f} s  last tenth {nats:.4f} nats per character{met}")
    blocks = training["held_out"]["nats_per_character"]
    print(f"    {blocks:.4f} on {training['data']['split']['words']}")
    print(*training["notes"], training["verdict"]["words"], sep="\n    ", flush=True)
    for text in model.generate("", num_return_sequences=3, seed=1, max_new_tokens=200):
        print(f"--\n{text}")


if __name__ == "__main__":
    main(*sys.argv[1:])
