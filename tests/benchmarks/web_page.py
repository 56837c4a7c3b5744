"""PINNED: the whole page in Chromium, on one core: eight texts with alternatives, shades and layout.

    python -m tests.benchmarks web_page                  lstm-word and ngram-char
    python -m tests.benchmarks.web_page lstm-char ...    others

For each preset in 8 bits: the size of its page, the seconds until the first two tokens are written (the model is unpacked for
them; target: below 1), and five times the tokens a second, and for each second of processor time that the browser took, which
other work on the machine changes less (targets: lstm-word at least 150, ngram-char at least 5,000).
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

import reviewgen
from reviewgen.export import export_html
from tests.support.browser import launched

TEXTS, TIMES = 8, 5
WRITE = """async (settings) => {
  for (const [id, value] of Object.entries(settings)) {
    const field = document.getElementById(id);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  const start = performance.now();
  document.getElementById("write").click();
  while (document.getElementById("write").textContent === "Stop") await new Promise((resolve) => setTimeout(resolve, 5));
  return [document.querySelectorAll(".token").length, (performance.now() - start) / 1000];
}"""


def processor_seconds() -> float:
    """Return the processor time of the browser so far: of all processes below this one."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(each.user + each.system for each in times)


def measure(name: str, browser: Any, folder: Path) -> None:
    file = export_html(reviewgen.load(name), folder / f"{name}.html")
    page = browser.new_page()
    page.goto(file.as_uri())
    page.locator("#model option").first.wait_for(state="attached")
    _, loading = page.evaluate(WRITE, {"n": 1, "max_tokens": 2})
    print(f"{name:10}  {file.stat().st_size / 1e6:.1f} MB  first tokens after {loading:.2f} s", flush=True)
    length = 400 if name.endswith("char") else 60
    for _ in range(TIMES):
        started, tick = processor_seconds(), time.perf_counter()
        tokens, _ = page.evaluate(WRITE, {"n": TEXTS, "max_tokens": length})
        wall, busy = time.perf_counter() - tick, processor_seconds() - started
        print(f"{'':10}  {tokens / wall:7,.0f} tokens/s  {tokens / busy:7,.0f} for each second of processor time", flush=True)
    page.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, launched() as browser:
        for name in sys.argv[1:] or ("lstm-word", "ngram-char"):
            measure(name, browser, Path(scratch))


if __name__ == "__main__":
    main()
