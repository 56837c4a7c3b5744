"""PINNED: milliseconds that comparing a saved model with its manifest adds to ``load``, for the trained weights of each preset.

Target: at most 50 ms. The model is loaded as it is, and with the digests of its files known beforehand, in turn; each figure is
the best of several loads, of the processor's time, as other work may run on the machine. Beside them, a bare SHA-256.

``python -m tests.benchmarks.load_digests``
"""

import hashlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from unittest.mock import patch

import reviewgen
from reviewgen.bundle import manifest, read
from reviewgen.bundle.manifest import SavedFile
from reviewgen.registry import find_weights

ROUNDS, TARGET = 9, 50.0


def main() -> None:
    """Print a line for each model."""
    for preset in sorted(plugin.name for plugin in reviewgen.list_presets()):
        folder = find_weights(preset)
        if folder is None:
            continue
        files = [folder / name for name in manifest.read_manifest(folder, _names(folder)) or ()]
        size, bare = sum(file.stat().st_size for file in files), best(lambda files=files: [_sha256(file) for file in files])
        compared, known = measure(folder)
        added = compared - known
        print(
            f"{preset}: load {compared:.1f} ms, without digests {known:.1f} ms: {added:.1f} ms added  target <= {TARGET:.0f} ms"
            f" ({size / 1e6:.1f} MB in {len(files)} files, bare SHA-256 {bare:.1f} ms)",
            flush=True,
        )


def measure(folder: Path) -> tuple[float, float]:
    """Return the best milliseconds of loading a model with its digests, and with known ones."""
    known = manifest.digest_files(folder, _names(folder))
    compared = given = float("inf")
    for _ in range(ROUNDS):
        compared = min(compared, best(lambda: reviewgen.load(folder), rounds=1))
        with patch.object(read, "digest_files", lambda folder, names: _select(known, names)):
            given = min(given, best(lambda: reviewgen.load(folder), rounds=1))
    return compared, given


def best(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the best milliseconds that some work takes of the processor."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def _select(known: dict[str, SavedFile], names: Collection[str]) -> dict[str, SavedFile]:
    return {name: known[name] for name in names if name in known}


def _names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def _sha256(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


if __name__ == "__main__":
    main()
