"""Wrong arguments of the public functions: each is refused in one sentence, before any work."""

import json
from pathlib import Path

import pytest

from tests.support.forked import run_python

CALLS = {  # in a process without the hook that checks types in the tests, as the user has none either
    "train('rnn-char', TEXTS, seed=None)": "seed must be a whole number",
    "train('rnn-char', TEXTS, out=3)": "out must be a path; got 3.",
    "train('rnn-char', TEXTS, step=3)": "'step' is not an argument of train. Did you mean 'steps'?",
    "TrainingRun('rnn-char', TEXTS, step=3)": "'step' is not an argument of TrainingRun.",
    "load('gru-char', weight_bits=8.0)": "weight_bits must be 32, 16 or 8; got 8.0.",
    "load('gru-char', bits=8, weight_bits=8)": "bits is the former name of weight_bits",
    "load('gru-char', bit=8)": "'bit' is not an argument of load. Known: accept_changes, cache_dir",
    "sweep('ngram-char', TEXTS, 3, [2])": "3 is not a setting",
    "sweep('ngram-char', TEXTS, 'model.order', 3)": "Give a list of at least one value of model.order; got 3.",
    "sweep('ngram-char', TEXTS, 'model.order', [])": "Give a list of at least one value of model.order; got [].",
    "sweep('ngram-char', TEXTS, 'model.order', [3], settings=[1])": "settings must be a dictionary by group",
    "sweep('ngram-char', TEXTS, 'model.order', [3], settings={'model': 3})": "got {'model': 3}",
    "sweep('ngram-char', TEXTS, 'model.order', [3], settings={'modle': {}})": "is not a group of settings. Did you mean 'model'?",
    "sweep('ngram-char', TEXTS, 'model.order', [3], settings={'model': {'order': 2}})": "is both set and swept",
    "sweep('ngram-char', TEXTS, 'model.order', [3], out='m')": "no model is saved, so it takes no out",
    "sweep('ngram-char', TEXTS, 'model.order', [3], model={'order': 2})": "sweep takes model settings in settings",
    "tune('gru-char', TEXTS, search=['model.hidden_size'])": "search must be a dictionary",
    "tune('gru-char', TEXTS, trails=3)": "'trails' is not an argument of tune. Did you mean 'trials'?",
    "tune('gru-char', TEXTS, storage=3)": "storage must be a path; got 3.",
    "plot_sweep([], 'model.order', 'ngram-char', 3)": "file must be a path; got 3.",
    "graph('gru-char', unroll=2.0)": "unroll must be a number of tokens from 1 to 12, where 1 draws the loop; got 2.0.",
    "graph('gru-char', unroll='3')": "got '3'.",
    "graph('gru-char', 3)": "out must be a path; got 3.",
    "graph(3)": "A graph is drawn of a preset, a saved model, a ReviewModel or a LanguageModel; got a int.",
    "load('ngram-char').score(3)": "A text to score must be a string; got 3.",
    "load('ngram-char').save_pretrained('m', push_to_hub=True, repo_id='a/b', foo=1)": "'foo' is not an argument of save",
    "train('rnn-char', TEXTS, model={1: 2})": "1 is not a setting",
    "train('x' * 100_000, TEXTS)": "xxx...' is not a preset name. Write",
    "train('rnn-char', TEXTS, out='a\\0b')": "out must be a path; got 'a\\x00b'.",
    "train('rnn-char', TEXTS, out=b'bytes')": "out must be a path; got b'bytes'.",
    "train('rnn-char', TEXTS, log={'a': 1})": "log must be a string or none; got {'a': 1}.",
    "train('rnn-char', TEXTS, resume=np.zeros(3))": "resume must be true or false; got array([0., 0., 0.]).",
    "load('ngram-char', weight_bits=np.zeros(3))": "weight_bits must be 32, 16 or 8; got array",
    "load('ngram-char').generate(novelty=np.zeros(3))": "novelty must be 'report' or 'filter'; got array([0., 0., 0.]).",
    "load('ngram-char').walk(logits_processor=np.array(3))": "logits_processor must be a list",
    "load('ngram-char').push_to_hub('a/b', allow=np.array(3))": "allow must be a list, as in ['copies']; got array(3).",
    "blend(['ngram-char', 'ngram-char'], np.array(3))": "weights must be 2 numbers above 0, one per model; got array(3).",
    "generate_dataset('ngram-char', 3, out='t', format=np.zeros(3))": "format must be a string or None; got array",
    "generate_dataset('ngram-char', 3, out='t', device=np.zeros(3))": "device must be a string; got array",
    "generate_dataset('ngram-char', 3, out='t', device=5)": "device must be a string; got 5",
    "score_dataset('ngram-char', ['a', 'b'], out='t', device=None)": "device must be a string; got None",
    "generate_dataset('ngram-char', 3, out='t', must_include=np.array(1.5))": "must_include is a non-empty string or a list",
    "generate_dataset('ngram-char', 3, out='t', stop_strings=np.array(1.5))": "stop_strings",
    "load('ngram-char').next_tokens(temperature=10**400)": "temperature must be a number above 0; got 1000",
    "generate_dataset('ngram-char', 3, out='t', novelty=np.zeros(3))": "novelty must be 'report' or 'filter'; got array",
    "score_dataset('ngram-char', TEXTS, out='t', format=np.zeros(3))": "format must be a string or None; got array",
    "novelty_dataset('ngram-char', TEXTS, out='t', format=['jsonl'])": "format must be a string or None; got ['jsonl'].",
    "load('ngram-char').save_pretrained(Path('~no-such-user/x'))": "is in a home folder that does not exist",
    "load('ngram-char').save_pretrained('m', overwrite=np.zeros(2))": "overwrite must be True or False; got array([0., 0.]).",
    "load('ngram-char').save_pretrained('m', dtype=np.zeros(2))": "dtype must be one of float32",
    "load('ngram-char').is_saved_in(3)": "folder must be a path; got 3.",
    "load('ngram-char').generate(Unprintable())": "got <Unprintable instance at",
    "load('ngram-char').walk().take('a')": "Token 'a' cannot be taken",
    "best_trial([3])": "trials must be what reviewgen.tune has yielded; got 3 among them.",
    "plot_training(['./m'], 'a.svg', metrics=np.zeros((2, 2)))": "metrics must be a string; got array([0., 0.]).",
    "prepare(TEXTS, preset='gru-char', out='s', decontaminate=2**63)": "at most 1,000,000,000; got 9223372036854775808.",
    "plot_training(3, 'a.svg')": "sources must be a list, as in ['./my-model']; got 3.",
    "register_model(3, int)": "name must be a string; got 3.",
    "blend(['ngram-char', 'ngram-char'], [1e308, float('nan')])": "weights must be 2 numbers above 0",
}
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
class Unprintable:
    def __repr__(self):
        raise RuntimeError
from reviewgen import *
from reviewgen.errors import ReviewgenError
TEXTS = ["the food was good", "the food was bad"] * 10
said = {}
for call in json.load(sys.stdin):
    try:
        said[call] = repr(eval(call))
    except ReviewgenError as error:
        said[call] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path]:
    folder = tmp_path_factory.mktemp("empty")
    done = run_python(["-c", SCRIPT], input=json.dumps(list(CALLS)), cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


@pytest.mark.parametrize("call", CALLS)
def test_each_gets_one_sentence(said: tuple[dict[str, str], Path], call: str) -> None:
    assert len(said[0][call]) < 500
    kind, _, message = said[0][call].partition(": ")
    assert kind in (("DataError",) if ".score" in call else ("ConfigError", "SourceError"))
    assert CALLS[call] in message and "\n" not in message


def test_nothing_is_written(said: tuple[dict[str, str], Path]) -> None:
    assert list(said[1].iterdir()) == []
