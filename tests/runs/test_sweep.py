"""The bias-variance table: its numbers are those of single runs, what is refused before any work,
the plot, the command.
"""

import itertools
import json
import math
from typing import Any
from xml.etree import ElementTree

import pytest

import reviewgen
from reviewgen import plot_sweep
from reviewgen.errors import ConfigError
from reviewgen.evaluation.evaluate import evaluate_documents
from reviewgen.rates import describe_copies
from reviewgen.runs.sweep import SweepRow
from tests.support.brute_ngram import BruteNgram
from tests.support.fakes import TEXTS
from tests.support.trainings import prepared, ready

# of which some have n-grams that no other has
SQUARES = [f"{n} times {n} is {n * n}" for n in range(100)]


def by_hand(preset: str, **options: Any) -> list[Any]:
    """Return the numbers that a row of the table should have, from a run of its own."""
    run = ready(preset, TEXTS, **options)
    assert list(run)
    model = run.finish()
    train = evaluate_documents(
        model.model, run.corpus.stores["train"].documents(), model.tokenizer.vocab_size
    )
    size = sum(
        tensor.numel() * tensor.element_size() for tensor in model.model.state_dict().values()
    )
    held_out = model.training["held_out"]["bits_per_character"]
    copies = model.training["novelty"]["token_copy_rate"]
    return [train.bits_per_character, held_out, size / 1e6, copies]


def numbers(row: SweepRow) -> list[Any]:
    return [row.train_bits, row.bits, row.megabytes, row.token_copy_rate]


@pytest.fixture(scope="module")
def orders() -> list[SweepRow]:
    """Of a source that can be read once only."""
    return list(reviewgen.sweep("ngram-char", iter(TEXTS), "model.order", [1, 2, 4]))


@pytest.mark.slow
def test_a_row_has_the_numbers_of_a_run_of_its_own(orders):
    rows = orders
    assert [row.value for row in rows] == [1, 2, 4]
    for row in rows:
        assert numbers(row) == pytest.approx(by_hand("ngram-char", model={"order": row.value}))
        assert 0 <= row.seconds < 60  # in hundredths, of which a fast machine needs none


def test_higher_orders_are_larger_and_copy_more(orders):
    rows = orders
    bits = [row.train_bits or 0.0 for row in rows]
    assert bits[0] > bits[1] + 0.5 > bits[2] + 1.0
    assert rows[0].megabytes < rows[1].megabytes < rows[2].megabytes
    assert (rows[0].token_copy_rate or 0.0) < 0.03 and (rows[2].token_copy_rate or 0.0) > 0.1


@pytest.fixture(scope="module")
def smoothings() -> list[SweepRow]:
    series = {"model.smoothing": ["kneser-ney", "none"]}
    settings = {"training": {"copy_tokens": 0}}
    swept = ("ngram-char", SQUARES, "model.order", [1, 3, 6], settings)
    return list(reviewgen.sweep(*swept, series=series))


def test_each_series_is_swept(smoothings):
    swept = [(row.series["model.smoothing"], row.value) for row in smoothings]
    assert swept == list(itertools.product(("kneser-ney", "none"), (1, 3, 6)))


def test_bits_impossible_tokens_and_ngrams_are_those_of_plain_counts(smoothings):
    run = prepared("ngram-char", SQUARES)
    train, held_out = (
        [store.document(n).tolist() for n in range(len(store))]
        for store in (run.corpus.stores["train"], run.corpus.stores["test"])
    )
    for row in smoothings:
        brute = BruteNgram(
            train, run.corpus.tokenizer.vocab_size, row.value, row.series["model.smoothing"]
        )
        p, held = (probabilities(brute, texts) for texts in (train, held_out))
        assert row.train_bits == pytest.approx(
            -sum(map(math.log2, p)) / sum(len(text) - 2 for text in train), rel=1e-4
        )
        assert row.impossible == held.count(0.0) / len(held) and row.train_impossible == 0.0
        assert (
            math.isinf(row.bits or 0.0) == (row.impossible > 0) == (row.to_dict()["bits"] is None)
        )
        grams = [ngrams_of(train, n) for n in range(1, row.value + 1)]
        # the beginning of a text is not predicted
        assert list(row.ngrams) == [len(grams[0]) - 1, *map(len, grams[1:])]


def probabilities(brute: BruteNgram, texts: list[list[int]]) -> list[float]:
    """Return the probability of each token that is predicted."""
    found = []
    for text in texts:
        found += [brute.probability(text[n], text[:n]) for n in range(1, len(text))]
    return found


def ngrams_of(texts: list[list[int]], n: int) -> set[tuple[int, ...]]:
    found = set()
    for text in texts:
        found.update(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
    return found


def test_without_smoothing_more_is_impossible_at_higher_orders(smoothings):
    shares = [row.impossible or 0.0 for row in smoothings]
    assert shares[:3] == [0.0, 0.0, 0.0] and shares[3] < shares[4] < shares[5]


@pytest.mark.slow
def test_the_vocabulary_of_a_tokenizer():
    rows = list(
        reviewgen.sweep(
            "ngram-word", TEXTS, "tokenizer.vocab_size", ["262", "270"], {"model": {"order": 2}}
        )
    )
    assert [row.value for row in rows] == ["262", "270"] and rows[0].bits != rows[1].bits
    assert numbers(rows[1]) == pytest.approx(
        by_hand("ngram-word", model={"order": 2}, tokenizer={"vocab_size": 270})
    )


@pytest.mark.wrong_types
def test_a_wrong_sweep_is_refused_before_any_work():
    refused: list[tuple[str, Any, dict[str, Any], str]] = [
        ("data.lowercase", [True], {}, "not a setting"),
        ("model.order", [], {}, "at least one value"),
        ("model.ordr", [2], {}, "'order'"),
        ("model.order", [2], {"settings": {"model": {"order": 3}}}, "both set and varied"),
        ("model.order", [2], {"overwrite": True}, "not an argument of sweep"),
        ("model.order", [2], {"series": {"model.order": [3]}}, "cannot have a series"),
        ("model.order", [2], {"series": {"model.smoothing": "none"}}, "at least one value"),
        ("model.order", [2], {"series": ["none"]}, "must be a dictionary"),
    ]
    for setting, values, more, word in refused:
        with pytest.raises(ConfigError, match=word):
            reviewgen.sweep("ngram-char", "no such file.csv", setting, values, **more)


ROWS = [
    SweepRow(name=value, settings={}, value=value, bits=bits, train_bits=train_bits, megabytes=0.1)
    for value, bits, train_bits in (("2", 2.5, 2.0), ("4", 2.0, 1.0), ("8", None, None))
]


def test_a_plot_is_a_picture(tmp_path):
    from matplotlib.image import imread

    for name in ("plot.png", "plot.pdf"):
        plot_sweep(ROWS, "model.order", "ngram-char", tmp_path / name)
    assert imread(tmp_path / "plot.png")[..., :3].std() > 0.02
    assert (tmp_path / "plot.pdf").read_bytes().startswith(b"%PDF")
    plot_sweep(ROWS[2:], "model.order", "ngram-char", tmp_path / "plot.pdf", overwrite=True)


@pytest.fixture
def words(tmp_path) -> tuple[Any, ...]:
    """A command that sweeps two settings, and sets a list that is not swept."""
    corpus = tmp_path / "reviews.txt"
    corpus.write_text("\n".join(SQUARES), encoding="utf-8")
    settings = ["training.novelty=exact", "model.order=1, 12"]
    settings += ["training.metrics=distinct-1,distinct-2", "model.smoothing=kneser-ney,none"]
    given = itertools.chain.from_iterable(("--set", setting) for setting in settings)
    return ("sweep", "ngram-char", "--data", corpus, *given)


@pytest.fixture(scope="module")
def swept() -> list[SweepRow]:
    settings = {"training": {"novelty": "exact"}}
    series = {"model.smoothing": ["kneser-ney", "none"]}
    return list(
        reviewgen.sweep("ngram-char", SQUARES, "model.order", [1, 12], settings, series=series)
    )


@pytest.mark.slow
def test_the_command_prints_the_table_and_draws_it(words, swept, tmp_path, run_command):
    plot = tmp_path / "reviews.svg"
    status, out, err = run_command(*words, "--plot", plot)
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["train", "held-out", "n-grams,", "of"]
    header = "smoothing order bits/char bits/char MB s copy rate V^n possible"
    assert lines[1] == header.split()
    for line, row in zip(lines[2:], swept, strict=True):
        first, last = cells_of(row)
        assert line[: len(first)] == first and line[-len(last) :] == last
        assert line[-2 - len(last)] == f"{row.megabytes:.2f}"
    assert [row.impossible for row in swept[:3]] == [0.0] * 3 and "impossible" in lines[-1]
    drawn = "".join(ElementTree.parse(plot).getroot().itertext())
    assert "smoothing none, training text" in drawn and "probability zero" in drawn


def cells_of(row: SweepRow) -> tuple[list[str], list[str]]:
    """Return the words of a line of the table, up to the bits and from the copy rate on."""
    if row.bits is not None and math.isfinite(row.bits):
        held_out = [f"{row.bits:.4f}"]
    else:
        held_out = [f"{row.impossible:.1%}", "impossible"]
    first = [row.series["model.smoothing"], f"{row.value}", f"{row.train_bits:.4f}", *held_out]
    possible = f"{float(row.ngrams[0] ** row.value):.1e}".replace("e+0", "e").replace("e+", "e")
    copied = describe_copies(row.novelty).split() or ["-"]
    return first, [*copied, f"{row.ngrams[-1]:,}", "of", possible]


def test_the_command_prints_json(words, swept, run_command):
    facts = json.loads(run_command(*words, "--json")[1])
    for row, wanted in zip(facts["trials"], swept, strict=True):
        expected = json.loads(json.dumps(wanted.to_dict()))
        typed = {name: str(value) for name, value in wanted.settings.items()}
        same = {"value": str(wanted.value), "settings": typed, "seconds": 0}
        assert {**row, "seconds": 0} == expected | same
