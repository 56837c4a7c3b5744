"""A model in use: threads that share it, its pickle, and the stepper that it keeps."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from reviewgen import ReviewModel
from reviewgen.saving.weights import ModelWeights

pytestmark = pytest.mark.usefixtures("untouched_registry")
THREADS = 32


@pytest.mark.parametrize("name", ["ngram-char", "gru-word"])
def test_threads_that_share_a_model_get_what_one_thread_gets(micro, name):
    model = micro(name)
    starts = threading.Barrier(THREADS)

    def work(seed: int) -> tuple[str, float]:
        return model.generate("a", seed=seed, max_new_tokens=40)[0], model.score("a good band").bits

    def work_together(seed: int) -> tuple[str, float]:
        starts.wait()  # so that all are inside at the same time
        return work(seed)

    alone = [work(seed) for seed in range(THREADS)]
    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work_together, range(THREADS))) == alone
    assert len({text for text, _ in alone}) > 10


@pytest.mark.parametrize("name", ["gru-char", "ngram-char", "conditional", "blend-char"])
def test_a_pickled_model_generates_and_scores_the_same(micro, name):
    model = micro(name)
    again = pickle.loads(pickle.dumps(model))
    assert again.generate("the ", seed=1) == model.generate("the ", seed=1)
    assert again.score("a good band") == model.score("a good band")
    assert (again.preset, again.training, again.generation_config) == (
        model.preset,
        model.training,
        model.generation_config,
    )


def test_the_stepper_is_kept_until_the_weights_may_have_changed(micro):
    bundle = micro("gru-char").bundle
    # as one that was just trained
    model = ReviewModel(replace(bundle, weights=ModelWeights(copy.deepcopy(bundle.model))))
    first = model.generator.stepper
    assert model.generator.stepper is first
    text = model.generate("the ", seed=1)
    for parameter in model.model.parameters():
        parameter.data.zero_()
    assert model.generate("the ", seed=1) != text
