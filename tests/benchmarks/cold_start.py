"""PINNED: seconds until a cold process has written its first text with a saved model, compiled code
on disk; and what light commands take.

    python -m tests.benchmarks cold_start              all of it
    python -m tests.benchmarks cold_start list         ``reviewgen --help`` and ``list`` alone

``reviewgen --help`` and ``reviewgen list``, in seconds of the processor beyond those of ``python -c
pass`` in the same run; targets 0.20 and 0.42 s.

Targets: 2.5 s for the command, 0.8 s if writing needs no torch. Each figure is the best of several
runs of the whole command ``reviewgen generate``, and beside it what Python and torch take to start
and stop.

``reviewgen list`` on one core, with 50 more plugins installed and without; target 0.3 s. Its
seconds of the processor count where other work runs on the machine.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import reviewgen
from reviewgen.protocols import API_VERSION
from tests.benchmarks.corpora import split_2018
from tests.support.distributions import write_distribution


def main(part: str = "") -> None:
    """Print the tables."""
    starting()
    listing()
    if part == "list":
        return
    train, _, _ = split_2018()
    alone, with_torch = (best_seconds(["-c", code])[0] for code in ("pass", "import torch"))
    print(f"python alone {alone:.2f} s, import torch {with_torch:.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("lstm-char", "lstm-word", "ngram-char"):
            place = Path(folder) / preset
            reviewgen.train(preset, train, steps=5, out=place)
            found, _ = best_seconds(
                [
                    "-m",
                    "reviewgen",
                    "generate",
                    str(place),
                    "--seed",
                    "1",
                    "--max-new-tokens",
                    "300",
                ]
            )
            print(
                f"reviewgen generate, {preset}: {found:.2f} s  target <= 2.5, <= 0.8 without torch",
                flush=True,
            )


PLUGINS = 50


def install_plugins(site: Path) -> None:
    """Write packages with a model and a preset each, as pip would leave them."""
    for number in range(PLUGINS):
        name = f"many{number}"
        points = {"models": {name: f"{name}:Model"}, "presets": {f"{name}-char": f"{name}:PRESET"}}
        api = {"api": {API_VERSION: "reviewgen.protocols"}}
        write_distribution(
            site, f"reviewgen-{name}", points | api, {name: "raise SystemExit('imported')"}
        )


def starting() -> None:
    """Print what ``--help`` and ``list`` take beyond the start of Python."""
    commands = {"--help": 0.20, "list": 0.42}
    _, alone = best_seconds(["-c", "pass"])
    for command, target in commands.items():
        _, spent = best_seconds(["-m", "reviewgen", command])
        print(f"reviewgen {command}: {spent - alone:.2f} s beyond Python  target <= {target}")


def listing() -> None:
    """Print the best seconds of ``reviewgen list``, on the clock and of the processor, with and
    without other plugins.
    """
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        for plugins, path in ((0, ""), (PLUGINS, folder)):
            for words in ([], ["--json"]):
                clock, processor = best_seconds(["-m", "reviewgen", "list", *words], path)
                command = " ".join(["reviewgen list", *words])
                print(
                    f"{command}, {plugins} more plugins: {clock:.2f} s, {processor:.2f} s of the"
                    " processor  target <= 0.3"
                )


def best_seconds(words: Sequence[str], path: str = "", rounds: int = 10) -> tuple[float, float]:
    """Return the fewest seconds that Python takes for some arguments on one core, on the clock and
    of the processor.
    """
    command = [sys.executable, *words]
    if hasattr(os, "sched_setaffinity"):
        command = ["taskset", "-c", "0", *command]
    environment = os.environ | {"PYTHONPATH": path}
    times = []
    for _ in range(rounds):
        start = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        times.append((time.monotonic() - start, spent))
    return min(clock for clock, _ in times), min(spent for _, spent in times)
