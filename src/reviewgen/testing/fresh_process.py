"""What the checks of ``check_plugin`` train on and generate, in this process and in a fresh one."""

import json
import subprocess
import sys
from pathlib import Path

from reviewgen.model import ReviewModel

__all__ = ["PROMPTS", "TEXTS", "assert_same_elsewhere", "generate"]

TEXTS = tuple(
    f"{opinion} {thing}, and {end}."
    for opinion in ("I liked the", "We loved the", "Nobody needs the", "A great", "A dull")
    for thing in ("film", "plot of the film", "music", "meal")
    for end in ("it was over too soon", "we will come back", "that is all")
)
"""The texts to train on: 60 short reviews."""

PROMPTS = ("I", "A great film, and")
"""Two prompts of different lengths, so that a state that grows with the tokens is noticed."""

_TOKENS, _SEED, _LIMIT = 20, 1, 600.0  # seconds: only a process that hangs takes longer, on a busy machine too
_SCRIPT = """
import json, sys
request = json.loads(sys.argv[1])
sys.path[:] = request["path"]
import reviewgen
model = reviewgen.load(request["source"])
print(json.dumps(model.generate(request["prompts"], max_new_tokens=request["tokens"], seed=request["seed"])))
"""


def generate(model: ReviewModel) -> list[str]:
    """Return a short text for each prompt, with the model's own generation settings otherwise."""
    return model.generate(list(PROMPTS), max_new_tokens=_TOKENS, seed=_SEED)


def assert_same_elsewhere(source: str | Path, here: list[str]) -> None:
    """Load a model in a fresh process and generate there: the texts must be those of this process.

    Args:
        source: The saved folder, or the name of a preset with weights.
        here: The texts that this process has generated from it.

    Raises:
        AssertionError: The process fails, or its texts are others.
    """
    request = {"path": sys.path, "source": str(source), "prompts": PROMPTS, "tokens": _TOKENS, "seed": _SEED}
    command = [sys.executable, "-c", _SCRIPT, json.dumps(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"In a fresh process the saved model did not generate within {_LIMIT:.0f} s.") from None
    lines = done.stderr.strip().splitlines() or [f"no message, exit status {done.returncode}"]
    assert done.returncode == 0, f"In a fresh process the saved model cannot be loaded, or does not generate: {lines[-1]}"
    there = json.loads(done.stdout.splitlines()[-1])
    assert there == here, f"A fresh process generates {there} from the saved model, and this one {here}; they must be equal."
