"""Loads and pulls from a hostile Hub, one case for each line of standard input; a process of its own, whose environment is set.

Waits are not waited for: they are added up, and reported.
"""

import json
import logging
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from reviewgen import ReviewgenError
from tests.hostile.hub_server import REPOSITORY, TOKEN

_waited = [0.0]


def _wait(seconds: float) -> None:
    _waited[0] += seconds
    if _waited[0] > 3_600:
        raise TimeoutError(f"a wait of {_waited[0]:.0f} seconds")


def _run(action: str, out: Path) -> dict[str, Any]:
    import reviewgen
    from reviewgen.hub.pull import pull

    try:
        if action == "pull":
            pull(REPOSITORY, out=out, token=TOKEN)
            model = reviewgen.load(out)
        else:
            model = reviewgen.load(f"hf://{REPOSITORY}", token=TOKEN, revision="main" if action == "revision" else None)
        return {"text": model.generate_one("the ", seed=1), "evaluation": model.score("the film was good").bits_per_character}
    except ReviewgenError as error:
        return {"refused": str(error)}
    except BaseException:  # whatever else is raised is what the fuzzer looks for
        return {"raised": traceback.format_exc()}


def main() -> None:
    """Answer each line with one."""
    logging.disable(logging.CRITICAL)
    time.sleep = _wait  # type: ignore[assignment]
    results, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        case = json.loads(line)
        _waited[0] = 0.0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = _run(case["action"], Path(case["out"]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps(result | {"waited": _waited[0], "grown_mb": (peak - before) / 1024}), file=results, flush=True)
        shutil.rmtree(case["out"], ignore_errors=True)


if __name__ == "__main__":
    main()
