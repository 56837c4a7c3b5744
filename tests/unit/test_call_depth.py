"""How deep the calls go: from ``generate`` to the sampled token at most 9, from ``train`` to the optimizer's step at most 5."""

import json
import os
import subprocess
import sys
from pathlib import Path

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
from tests.support.fakes import LETTERS, TableModel, review_model, table

def is_sampling(frame):
    return frame.f_code.co_name == "draw_token"

stepped, looped = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS), reviewgen.load("ngram-char")
settings = {"seed": 1, "max_new_tokens": 2}
watch_calls("generate", is_sampling, lambda: stepped.generate(["ab", ""], **settings))  # token by token
watch_calls("generate", is_sampling, lambda: looped.generate("the ", temperature=0.7, top_k=5, **settings))  # in its own loop
watch_calls("generate", is_sampling, lambda: looped.generate("the ", must_include="e", repetition_penalty=1.1, **settings))
"""
TRAIN = """
import torch
import reviewgen
from tests.support.fakes import GRU, TEXTS

def is_step(frame):  # the scaler is what the loop calls; it calls the optimizer
    return frame.f_code.co_name == "step" and frame.f_code.co_filename.endswith("grad_scaler.py")

watch_calls("train", is_step, lambda: reviewgen.train("gru-char", TEXTS[:9], steps=1, **GRU))
"""


def deepest(script: str, **variables: str) -> list[list[str]]:
    """Return the deepest chain of calls of each watched call."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH + script], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_from_generate_to_the_sampled_token() -> None:
    chains = deepest(GENERATE, NUMBA_DISABLE_JIT="1")  # compiled functions run as Python, so that their calls are seen
    assert len(chains) == 3
    for chain in chains:
        assert len(chain) - 1 <= 9, " → ".join(chain)


def test_from_train_to_the_step_of_the_optimizer() -> None:
    (chain,) = deepest(TRAIN)
    assert len(chain) - 1 <= 5, " → ".join(chain)
