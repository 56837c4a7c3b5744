"""How deep the calls go: from ``generate`` to the sampled token at most 9, from ``train`` to the optimizer's step at most 5."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATCH = """
import json, sys

def watch_calls(first, last, run):
    # Return the functions from ``first`` to the deepest call of ``last``, both included.
    chains = []
    def watch(frame, event, _):
        if event != "call" or not last(frame):
            return
        chain, caller = [frame.f_code.co_name], frame.f_back
        while caller is not None and caller.f_code.co_name != first:
            chain.append(caller.f_code.co_name)
            caller = caller.f_back
        if caller is not None:
            chains.append([first, *chain[::-1]])
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(None)
    print(json.dumps(max(chains, key=len)))
"""
GENERATE = """
import reviewgen
from tests.unit.fakes import LETTERS, TableModel, review_model, table

model = {model}
def is_sampling(frame):
    return frame.f_code.co_name == "sample_from"

watch_calls("generate", is_sampling, lambda: model.generate({arguments}, seed=1, max_new_tokens=9))
"""
TABLE = "review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)"
NGRAM = 'reviewgen.load("ngram-char")'
TRAIN = """
import torch
import reviewgen
from tests.unit.fakes import GRU, TEXTS

def is_step(frame):  # the scaler is what the loop calls; it calls the optimizer
    return frame.f_code.co_name == "step" and frame.f_code.co_filename.endswith("grad_scaler.py")

watch_calls("train", is_step, lambda: reviewgen.train("gru-char", TEXTS, steps=2, **GRU))
"""


def deepest(script: str) -> list[str]:
    """Return the deepest chain of calls; compiled functions run as Python, so that their calls are seen."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1" if "generate" in script else "0"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH + script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    chain: list[str] = json.loads(done.stdout.splitlines()[-1])
    return chain


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (TABLE, '["ab", ""]'),
        (NGRAM, '"the ", temperature=0.7, top_k=5'),
        (NGRAM, '"the ", must_include="e", repetition_penalty=1.1'),
    ],
    ids=["token by token", "in a loop of the stepper's", "must_include"],
)
def test_from_generate_to_the_sampled_token(model: str, arguments: str) -> None:
    chain = deepest(GENERATE.format(model=model, arguments=arguments))
    assert len(chain) - 1 <= 9, " → ".join(chain)


def test_from_train_to_the_step_of_the_optimizer() -> None:
    chain = deepest(TRAIN)
    assert len(chain) - 1 <= 5, " → ".join(chain)
