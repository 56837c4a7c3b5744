"""Where the benchmark corpora are, and the 2018 split of the music-blog reviews."""

import importlib.util
import os
from pathlib import Path

SHARED = Path(os.environ.get("REVIEWGEN_BENCH", "../shared"))


def split_2018() -> tuple[list[str], list[str], list[str]]:
    """Return the training texts, all held-out texts and the clean ones among them."""
    spec = importlib.util.spec_from_file_location("split_2018", SHARED / "bench" / "split_2018.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    train, held_out = module.split_2018()
    return train, held_out, module.clean(train, held_out)
