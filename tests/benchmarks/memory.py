"""Peak memory of training over the import of torch: the 34 MB of the reviews extra, and ten distinct copies of them, 340 MB.

Targets: at most 1.5 GB for the first, and at most 10 % more for the second. A copy's texts begin with its number, so that none
is dropped as a duplicate. Both train the same number of steps.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from reviewgen.data import DataConfig, read_examples

STEPS = "1500"  # the same for both: the allocator's peak creeps up with the steps
TRAIN = """
import resource, sys, torch
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import reviewgen
model = reviewgen.train(sys.argv[1], sys.argv[2], steps=int(sys.argv[3]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak - base, model.training["data"]["cleaning"]["characters"], model.training["steps"], model.training["seconds"])
"""


def peak(preset, source):
    """Train in a fresh process and print its peak, in MB over the import of torch."""
    done = subprocess.run([sys.executable, "-c", TRAIN, preset, source, STEPS], capture_output=True, text=True, check=True)
    kilobytes, characters, steps, seconds = done.stdout.split()
    megabytes = int(kilobytes) / 1024
    print(
        f"{preset:10} {int(characters) / 1e6:6.0f} MB of text: {megabytes:6.0f} MB  ({steps} steps, {float(seconds):.0f} s)",
        flush=True,
    )
    return megabytes


def ten_copies(folder):
    """Write ten distinct copies of the reviews as jsonl."""
    file = folder / "copies.jsonl"
    with tempfile.TemporaryDirectory() as scratch, file.open("w", encoding="utf-8") as lines:
        for text, _ in read_examples("reviews", Path(scratch), DataConfig()):
            lines.writelines(json.dumps({"text": f"{copy} {text}"}) + "\n" for copy in range(10))
    return file


def main(presets=("lstm-char", "lstm-word")):
    """Print the peaks of each preset and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        big = ten_copies(Path(folder))
        for preset in presets:
            small, large = peak(preset, "reviews"), peak(preset, str(big))
            print(f"{preset:10} ratio {large / small:.3f}")


if __name__ == "__main__":
    main(*([sys.argv[1:]] if sys.argv[1:] else []))
