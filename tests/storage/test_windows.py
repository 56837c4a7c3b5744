"""Everything that writes files runs under the rules of Windows for files; see
``tests.support.windows_rules``.
"""

import json
import os
import subprocess
import sys

import pytest

import reviewgen
from tests.support.windows_rules import environment

SCRIPT = """if True:  # it has no ``if __name__ == "__main__"``: the workers must not run it again
    import contextlib, json, os, sys
    from pathlib import Path
    import reviewgen
    from reviewgen.cli import app
    from tests.support.fakes import TEXTS
    from tests.support.models import SMALL
    root = Path(sys.argv[1])
    rows = [f'"{text}",{n % 5}\\n' for n, text in enumerate(TEXTS)]
    Path("reviews.csv").write_text("text,stars\\n" + "".join(rows), "utf-8")

    def command(words):
        try:
            app(words.split())
        except SystemExit as end:
            assert not end.code, words

    with contextlib.suppress(PermissionError), open("reviews.csv"):
        os.unlink("reviews.csv")  # the rules are in force, or there is nothing to train on
    options = {"conditions": ["stars"], "log": "tensorboard"} | SMALL
    model = reviewgen.train("gru-char", "reviews.csv", out="m", **options)
    model.save_pretrained("m", overwrite=True)
    model = reviewgen.load("./m")
    text = model.generate("the ", seed=1, max_new_tokens=20, novelty="report")[0]
    model.save_pretrained("m", overwrite=True)  # over the files that it was loaded from
    same = reviewgen.load("./m").generate("the ", seed=1, max_new_tokens=20)[0] == text
    reviewgen.train("ngram-word", TEXTS, out="ngram", model={"memory_mb": 1})
    for words in (
        "list",
        "doctor",
        "generate ./m -n 3 --receipt r.jsonl --out t.jsonl",
        "replay r.jsonl",
        "replay R.jsonl",
        "prepare reviews.csv --preset gru-char --out store",
        "score ./m --data reviews.csv --out scores.jsonl",
    ):
        command(words)
    print("\\n" + json.dumps([text, same, sorted(path.name for path in root.iterdir())]))
"""


@pytest.mark.slow
def test_training_saving_and_generating_under_the_rules_of_windows(tmp_path):
    work = tmp_path / "work"
    site = tmp_path / "site"
    script = tmp_path / "script.py"
    for new in (work, site):
        new.mkdir()
    script.write_text(SCRIPT, encoding="utf-8")
    env = (
        os.environ
        | {"OMP_NUM_THREADS": "1", "REVIEWGEN_CACHE": str(tmp_path / "cache")}
        | environment(site)
    )
    command = [sys.executable, str(script), str(work)]
    done = subprocess.run(
        command, env=env, cwd=work, capture_output=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, done.stderr[-6000:]
    text, is_same, files = json.loads(done.stdout.splitlines()[-1])
    assert is_same and text.startswith("the ")
    expected = ["m", "ngram", "r.jsonl", "reviews.csv", "runs", "scores.jsonl", "store", "t.jsonl"]
    assert files == expected  # and nothing half-written
    # as elsewhere
    assert reviewgen.load(work / "m").generate("the ", seed=1, max_new_tokens=20)[0] == text
