"""Seconds of ``reviewgen compare`` with five presets of 20 s each, and the size of its page.

Targets: 5 x 20 + 30 s, which includes reading the reviews; 1 MB. The load of the machine is printed, since other work counts.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PRESETS = ("ngram-char", "nnlm-char", "rnn-char", "gru-char", "lstm-char")
SECONDS = 20


def main() -> int:
    """Print the figures; return 1 if one misses its target."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        words = ("compare", *PRESETS, "--data", "reviews", "--budget", f"{SECONDS}s", "--prompt", "the ", "--html", str(page))
        before, start = os.getloadavg()[0], time.monotonic()
        status = subprocess.run([sys.executable, "-m", "reviewgen", *words]).returncode
        seconds, size = time.monotonic() - start, page.stat().st_size
        if kept := os.environ.get("KEEP_PAGE"):
            page.replace(kept)
    most = len(PRESETS) * SECONDS + 30
    print(f"{seconds:.1f} s, target <= {most}; load {before:.1f} before, {os.getloadavg()[0]:.1f} after", flush=True)
    print(f"page {size / 1e6:.3f} MB, target <= 1")
    return int(status != 0 or seconds > most or size > 1e6)


if __name__ == "__main__":
    sys.exit(main())
