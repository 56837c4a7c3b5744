"""PINNED: seconds until a cold process has written its first text with a saved model, compiled code on disk.

    python -m tests.benchmarks.cold_start              all of it
    python -m tests.benchmarks.cold_start first-use    the first use alone
    python -m tests.benchmarks.cold_start list         ``reviewgen list`` alone
    python -m tests.benchmarks.cold_start graph        ``reviewgen graph`` alone, target 5 s
    python -m tests.benchmarks.cold_start explain      ``reviewgen explain`` alone

Targets: 2.5 s for the command, 0.8 s if writing needs no torch. Each figure is the best of several runs of the whole command
``reviewgen generate``, and beside it what Python and torch take to start and stop. Then the seconds of ``load`` alone, after all
imports, for the trained weights of each preset that has any; target 0.3 s.

``reviewgen list`` on one core, with 50 more plugins installed and without; target 0.3 s. Its seconds of the processor count where
other work runs on the machine.

``reviewgen explain``, of each preset, with compiled code on disk; target 5 s.

The first use, with nothing compiled on disk: seconds of the processor that the whole command takes, so that other work on the
machine counts little, and how many of them go into compiling. Targets: 5 s for ``generate``, 8 s of compiling for ``train``.
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
from reviewgen.registry import find_weights
from tests.benchmarks.corpora import reviews, split_2018
from tests.support.distributions import write_distribution

ROUNDS = 7


def seconds(*words: str) -> float:
    """Return the best time of a process."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.monotonic()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.monotonic() - start)
    return best


def main() -> None:
    """Print the table."""
    train, _, _ = split_2018()
    print(f"python alone {seconds('-c', 'pass'):.2f} s, import torch {seconds('-c', 'import torch'):.2f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("lstm-char", "lstm-word", "ngram-char"):
            place = Path(folder) / preset
            reviewgen.train(preset, train, steps=5, out=place)
            found = seconds("-m", "reviewgen", "generate", str(place), "--seed", "1", "--max-new-tokens", "300")
            print(f"reviewgen generate, {preset}: {found:.2f} s  target <= 2.5, <= 0.8 without torch", flush=True)


LOAD = """
import sys, time, reviewgen
reviewgen.load(sys.argv[1])  # imports, and code compiled on disk
start = time.monotonic()
reviewgen.load(sys.argv[1]).generation_config
print(time.monotonic() - start)
"""


def loading() -> None:
    """Print the seconds of loading each preset's weights."""
    for preset in (plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)):
        words = [sys.executable, "-c", LOAD, preset]
        found = min(float(subprocess.run(words, check=True, capture_output=True, text=True).stdout) for _ in range(ROUNDS))
        print(f"load {preset}: {found:.3f} s  target <= 0.3", flush=True)


FIRST_USE = """
import sys, time
from numba.core import event
from reviewgen.cli import main

class Compiling(event.Listener):
    depth, seconds, functions = 0, 0.0, 0

    def on_start(self, event):
        self.started = self.started if self.depth else time.process_time()
        self.depth, self.functions = self.depth + 1, self.functions + 1

    def on_end(self, event):
        self.depth -= 1
        self.seconds += 0 if self.depth else time.process_time() - self.started

compiling = Compiling()
event.register("numba:compile", compiling)
try:
    main()
finally:
    seconds, functions = time.process_time(), compiling.functions
    print(f"{seconds:.2f} s, {compiling.seconds:.2f} s of them compile {functions} functions", file=sys.stderr)
"""


def first_use(*words: str) -> str:
    """Return what the first use of a command takes."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder, "OMP_NUM_THREADS": "1", "REVIEWGEN_CACHE": folder}
        place = ("--out", f"{folder}/model") if words[0] == "train" else ()
        command = [sys.executable, "-c", FIRST_USE, *words, *place]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return done.stderr.splitlines()[-1]


def compiling() -> None:
    """Print what the first use of each command takes."""
    for preset in (plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)):
        print(f"first generate, {preset}: {first_use('generate', preset, '--seed', '1')}  target <= 5", flush=True)
    print(f"first generate --top-p, lstm-char: {first_use('generate', 'lstm-char', '--top-p', '0.9')}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "reviews.txt"
        source.write_text("\n".join(" ".join(text.split()) for text in reviews(500_000)))
        for preset in ("lstm-char", "lstm-word", "ngram-char"):
            words = "train", preset, "--data", str(source), "--budget", "20s"
            print(f"first train, {preset}: {first_use(*words)}  target <= 8 of compiling", flush=True)


PLUGINS = 50


def install_plugins(site: Path) -> None:
    """Write packages with a model and a preset each, as pip would leave them."""
    for number in range(PLUGINS):
        name = f"many{number}"
        points = {"models": {name: f"{name}:Model"}, "presets": {f"{name}-char": f"{name}:PRESET"}}
        api = {"api": {API_VERSION: "reviewgen.protocols"}}
        write_distribution(site, f"reviewgen-{name}", points | api, {name: "raise SystemExit('imported')"})


def listing() -> None:
    """Print the best seconds of ``reviewgen list``, on the clock and of the processor, with and without other plugins."""
    with tempfile.TemporaryDirectory() as folder:
        install_plugins(Path(folder))
        for plugins, path in ((0, ""), (PLUGINS, folder)):
            for words in ([], ["--json"]):
                clock, processor = best_seconds(["list", *words], path)
                command = " ".join(["reviewgen list", *words])
                print(f"{command}, {plugins} more plugins: {clock:.2f} s, {processor:.2f} s of the processor  target <= 0.3")


def best_seconds(words: Sequence[str], path: str = "", rounds: int = 10) -> tuple[float, float]:
    """Return the fewest seconds that a command of ``reviewgen`` takes on one core, on the clock and of the processor."""
    command = [sys.executable, "-m", "reviewgen", *words]
    if hasattr(os, "sched_setaffinity"):
        command = ["taskset", "-c", "0", *command]
    environment = os.environ | {"PYTHONPATH": path}
    times = []
    for _ in range(rounds):
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        times.append((time.monotonic() - start, spent))
    return min(clock for clock, _ in times), min(spent for _, spent in times)


def drawing() -> None:
    """Print the best seconds of ``reviewgen graph`` for presets of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        for preset in ("lstm-char", "nnlm-word", "ngram-word", "blend-word"):
            found = seconds("-m", "reviewgen", "graph", preset, "--overwrite", "--out", str(Path(folder) / "graph.svg"))
            print(f"reviewgen graph {preset}: {found:.2f} s  target <= 5", flush=True)


def explaining() -> None:
    """Print the best seconds of ``reviewgen explain`` for each preset that has weights."""
    for preset in (plugin.name for plugin in reviewgen.list_presets() if find_weights(plugin.name)):
        clock, processor = best_seconds(["explain", preset], rounds=3)
        print(f"reviewgen explain {preset}: {clock:.2f} s, {processor:.2f} s of the processor  target <= 5", flush=True)


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked in ([], ["graph"]):
        drawing()
    if asked in ([], ["list"]):
        listing()
    if asked in ([], ["explain"]):
        explaining()
    if asked == []:
        main()
        loading()
    if asked not in (["list"], ["graph"], ["explain"]):
        compiling()
