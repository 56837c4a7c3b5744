"""``compare``: figures against independent code, failures, resuming, the page and the command."""

import json
import math
import re
import signal
from base64 import b64encode
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import scipy.stats
from rich.console import Console
from selectolax.lexbor import LexborHTMLParser

import reviewgen
from reviewgen.analysis.comparison_figures import (
    ComparisonRow,
    CurvePoint,
    Measured,
    Sample,
    average_seeds,
)
from reviewgen.analysis.comparison_report import Comparison, draw_tables
from reviewgen.analysis.comparison_texts import HeldOut
from reviewgen.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    OutputExists,
    SourceError,
    StorageError,
    UnknownPlugin,
)
from reviewgen.evaluation.differences import SeedSpread
from tests.support.browser import problems
from tests.support.fakes import (
    LETTERS,
    TEXTS,
    TableModel,
    brute_bits,
    review_model,
    table,
)
from tests.support.forked import run_python

DATA = [
    f"{text} And then {number} more of the same came along, to my surprise."
    for number, text in enumerate(TEXTS)
]
SHORT = {"steps": 2, "settings": {"model": {"order": 2}}, "progress": False}
HOSTILE = (
    "</p><script>document.title = 'owned'</script><img src=x onerror=alert(1)>\"' {{ 7 * 19101 }} &"
    " \u202eabc"
)
LETTER_TEXTS = [
    "h" + LETTERS.characters[n % 9 :] * (1 + n % 5) + "abcdefgh"[: n % 8] + "gh" for n in range(120)
]


@pytest.fixture(scope="module")
def models(shared_cache, tmp_path_factory):
    """Two models of different tokenizers, trained on the same texts."""
    char = reviewgen.train(
        "ngram-char",
        DATA,
        steps=2,
        model={"order": 3},
        training={"novelty": "exact"},
        progress=False,
    )
    return {
        "char": char,
        "word": reviewgen.train("ngram-word", DATA, steps=2, model={"order": 2}, progress=False),
    }


@pytest.fixture(scope="module")
def compared(models):
    return reviewgen.compare({**models, "trained": "ngram-char"}, DATA, **SHORT)


def letters(seed=0, kind=TableModel, **options):
    return review_model(kind(table(LETTERS.vocab_size, seed, **options)), LETTERS)


def compare(models, held_out=LETTER_TEXTS[:20], **options):
    return reviewgen.compare(models, None, held_out=held_out, progress=False, **options)


def paired(comparison):
    """Return the names of the models that are compared in pairs."""
    return set(chain.from_iterable((pair.first, pair.second) for pair in comparison.pairs))


def test_bits_parameters_and_split_are_those_of_a_plain_loop(compared, models):
    """Chain rule, token by token, with no batches."""
    texts = compared.held_out.texts
    for result, model in zip(compared.rows, models.values(), strict=False):
        bits = list(chain.from_iterable(brute_bits(model, text) for text in texts))
        assert result.bits_per_character == pytest.approx(
            sum(bits) / sum(map(len, texts)), rel=1e-4
        )
        assert result.perplexity_per_token == pytest.approx(2 ** (sum(bits) / len(bits)), rel=1e-3)
    alone = reviewgen.train("ngram-char", DATA, steps=2, model={"order": 2}, progress=False)
    expected = sum(alone.score(text).bits for text in texts) / sum(map(len, texts))
    # a preset is trained as by ``train``
    assert compared.rows[2].bits_per_character == pytest.approx(expected, rel=1e-4)


def test_the_held_out_texts_are_the_test_split_of_the_training(compared, models):
    assert models["char"].training["data"]["fingerprint"] == compared.held_out.corpus
    assert (
        models["char"].training["data"]["reviews"]["test"]
        == compared.held_out.total
        == len(compared.held_out.texts)
        > 0
    )
    assert all(result.is_same_split and not result.has_seen_held_out for result in compared.rows)


def related():
    return {"a": letters(0), "b": letters(1), "nearly a": letters(0, scale=2.001)}


@pytest.mark.slow
def test_intervals_and_pairs_are_those_of_scipy():
    """Of texts that are drawn with replacement; models are compared on the same texts."""
    given = related()
    result = compare(given, LETTER_TEXTS)
    characters = np.array([len(text) for text in LETTER_TEXTS])
    bits = {
        name: np.array([model.score(text).bits for text in LETTER_TEXTS])
        for name, model in given.items()
    }
    options = {
        "method": "percentile",
        "n_resamples": 20_000,
        "vectorized": True,
        "paired": True,
        "rng": 5,
    }
    for name, row in zip(given, result.rows, strict=True):
        theirs = scipy.stats.bootstrap(
            (bits[name], characters), lambda b, c, axis=-1: b.sum(axis) / c.sum(axis), **options
        ).confidence_interval
        assert row.bits_interval == pytest.approx(
            (theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low)
        )
    for pair in result.pairs:
        both = (bits[pair.first], bits[pair.second], characters)
        theirs = scipy.stats.bootstrap(
            both, lambda one, other, c, axis=-1: (one - other).sum(axis) / c.sum(axis), **options
        ).confidence_interval
        assert pair.interval == pytest.approx(
            (theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low)
        )
        assert pair.difference == pytest.approx(
            (both[0].sum() - both[1].sum()) / characters.sum(), rel=1e-3, abs=1e-6
        )
        assert pair.is_significant == (theirs.low > 0 or theirs.high < 0)
    assert "b" in result.pairs[0].describe() and result.pairs[0].is_significant
    assert compare(given, LETTER_TEXTS).pairs == result.pairs


def test_the_agreement_with_the_first_model_is_that_of_a_probe():
    given = related()
    probed = reviewgen.probe(list(given.values()), texts=0).rows[1::4]
    agreements = [row.agreement for row in compare(given).rows]
    assert agreements == [each.share for each in probed]
    assert 0.0 < probed[0].share < 1.0


def test_infinite_bits_and_a_single_text_have_no_interval():
    impossible = letters()
    impossible.model.table[:, 5] = -math.inf
    result = compare(
        {"a": impossible, "b": letters(), "c": impossible},
        pandas.DataFrame({"text": ["abcdefgh", "aaa"]}),
    )
    assert result.describe_held_out().endswith("2 held-out texts (11 characters): 2 given texts.")
    assert result.rows[0].zero_probability_tokens == 1 and math.isinf(
        result.rows[0].bits_per_character
    )
    assert result.rows[0].bits_interval is None
    assert [(pair.difference, pair.interval) for pair in result.pairs[:2]] == [
        (math.inf, None),
        (0.0, None),
    ]
    one = compare({"a": letters(), "b": letters(1)}, ["abc"])
    assert (
        one.rows[0].bits_interval is None
        and one.pairs[0].interval is None
        and not one.pairs[0].is_significant
    )


def test_a_row_has_every_figure(compared):
    for result in compared.rows:
        assert result.failed is None
        assert result.bits_interval[0] <= result.bits_per_character <= result.bits_interval[1]
        assert [sample.temperature for sample in result.samples] == [0.5, 0.8, 1.2]
        assert all(sample.text.startswith("the ") for sample in result.samples)
        assert (
            result.characters_per_second > 0
            and result.bytes_on_disk > 1000
            and result.words_measured > 0
        )
        assert 0 < result.distinct["1"] <= result.distinct["2"] <= 1 and 0 <= result.new_words <= 1
        assert result.copy_rate is not None and result.curve
    char, word, trained = compared.rows
    assert (
        char.tokenizer == "char"
        and word.tokenizer == "word"
        and trained.is_trained_here
        and not char.is_trained_here
    )


def test_marked_parts_of_samples_stand_in_the_training_texts(compared):
    char = compared.rows[0]
    for sample in char.samples:  # by the exact index
        assert all(
            any(sample.text[start:end] in text for text in DATA) for start, end in sample.copied
        )


def test_a_data_frame_and_json_have_the_rows(compared):
    char, word, _ = compared.rows
    frame = compared.to_pandas()
    assert list(frame.index) == ["char", "word", "trained"]
    assert frame.loc["word", "bits_per_character"] == word.bits_per_character
    assert {"bits_low", "bits_high", "distinct_2", "parameters"} <= set(frame.columns)
    assert compared.to_dict()["rows"][0]["bits_per_character"] == char.bits_per_character


def test_a_row_with_infinite_figures_is_resumed(tmp_path):
    impossible = letters()
    impossible.model.table[:, 5] = -math.inf
    given = {"a": impossible, "b": letters()}
    first = compare(given, out=tmp_path / "out")
    again = compare(given, out=tmp_path / "out", resume=True)
    assert math.isinf(again.rows[0].bits_per_character)
    assert again.rows == first.rows
    assert again.pairs == first.pairs
    json.dumps(again.to_dict(), allow_nan=False)


def test_a_model_that_was_trained_on_the_held_out_texts_is_marked(models):
    settings = {"model": {"order": 3}, "training": {"novelty": "exact"}, "progress": False}
    other = reviewgen.train(
        "ngram-char", DATA, validation=["Something else.", "More."], steps=2, **settings
    )
    result = reviewgen.compare({"seen": other, **models, "unknown": letters()}, DATA, **SHORT)
    assert (
        result.rows[0].seen == 1.0
        and result.rows[0].has_seen_held_out
        and "too low" in result.rows[0].notes[0]
    )
    assert paired(result) == {"char", "word", "unknown"}
    assert result.to_dict()["rows"][0]["has_seen_held_out"] is True and result.rows[1].seen == 0.0
    assert result.rows[3].seen is None and any(
        "is not known" in note for note in result.rows[3].notes
    )


def test_training_texts_among_the_held_out_texts_are_found_without_an_index():
    # an index does not find these, but the training text is at hand
    short = [f"line {number} of many" for number in range(60)]
    unseen = [f"Verse {number} of a song" for number in range(60)]
    seen, new = (
        reviewgen.compare(["ngram-char"], short, held_out=each, **SHORT).rows[0]
        for each in (short + unseen, unseen)
    )
    assert 0.4 < seen.seen < 0.5 and seen.has_seen_held_out and new.seen == 0.0 and not new.notes


BAD = [
    ([], {}, ConfigError),
    ("gru-char", {}, ConfigError),
    ([3], {}, ConfigError),
    (["gru-char", "gru-char"], {}, ConfigError),
    (["gru-char", "gru-chra"], {}, UnknownPlugin),
    (["no such thing"], {}, SourceError),
    ({"": "gru-char"}, {}, ConfigError),
    ({"a": "gru-char", "A": "lstm-char"}, {}, ConfigError),
    *(
        (["gru-char"], options, ConfigError)
        for options in (
            {"budget": "soon"},
            {"budget": "1m", "steps": 3},
            {"settings": {"training": {"no_such": 1}}},
            {"resume": True},
            {"prompt": 7},
            {"sede": 7},
            {"seed": -1},
        )
    ),
    (["gru-char"], {"out": "/dev/null/x"}, StorageError),
]


@pytest.mark.slow
def test_no_winner_is_named_among_models_that_are_trained_for_a_few_steps(tmp_path, run_command):
    (tmp_path / "data.txt").write_text("\n".join(DATA))
    words = (
        "compare",
        "gru-char",
        "rnn-char",
        "ngram-char",
        "--data",
        tmp_path / "data.txt",
        "--steps",
        3,
    )
    status, said, _ = run_command(*words, "--set", "training.batch_size=4")
    assert status == 0
    said = " ".join(said.split())
    assert (
        "No model is named the best, since there is no verdict on the training of gru-char,"
        " rnn-char." in said
    )
    assert "gru-char: No verdict: 3 steps and 1 evaluation are too few" in said
    assert "has the fewest" not in said and "is better than" not in said


def test_trained_models_are_ranked_however_short_their_training_was():
    given = {"a": letters(0), "b": letters(1)}
    assert "has the fewest bits per character" in compare(given).describe_best()
    assert [pair.is_significant for pair in compare(given).pairs] == [True]


def test_what_is_unusable_is_refused_before_any_work(models):
    for given, options, error in BAD:
        with pytest.raises(error) as raised:
            reviewgen.compare(given, "missing.csv", progress=False, **options)
        assert len(str(raised.value)) < 500 and "missing.csv" not in str(raised.value), (
            given,
            options,
        )
    with pytest.raises(ConfigError, match="iterator"):
        reviewgen.compare(["gru-char"], iter(DATA), progress=False)
    with pytest.raises(ConfigError, match="'ngram-char'"):
        reviewgen.compare([models["char"], "ngram-char"], DATA, progress=False)
    for data, held_out in ((DATA, []), (DATA, ["", "  "]), (["one text"], None)):
        with pytest.raises(DataError):
            reviewgen.compare(models, data, held_out=held_out, progress=False)


class Raising(TableModel):
    error: type[BaseException] | BaseException | None = RuntimeError("<b>kernel</b>\npanic")

    def __call__(self, ids, state):
        if self.error is not None:
            raise self.error
        return super().__call__(ids, state)


@pytest.fixture(scope="module")
def interrupted(shared_cache, tmp_path_factory):
    """A comparison that Ctrl+C ended at its second model: what resumes it, its folder, its rows."""
    second = letters(1, kind=Raising)
    second.model.error = KeyboardInterrupt()
    given = {"ngram": "ngram-char", "second": second}
    out = tmp_path_factory.mktemp("interrupted") / "out"
    first = reviewgen.compare(given, DATA, out=out, **SHORT)
    second.model.error = None

    def resume(data=DATA, out=out, **options):
        return reviewgen.compare(given, data, out=out, resume=True, **options, **SHORT)

    return SimpleNamespace(resume=resume, out=out, first=first, given=given, second=second)


def written(folder):
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_an_interrupted_comparison_reports_what_is_there(interrupted):
    assert [each.name for each in interrupted.first.rows] == ["ngram"]
    assert interrupted.first.is_interrupted


def test_a_resumed_comparison_measures_what_is_missing(interrupted):
    trained = written(interrupted.out / "models")
    again = interrupted.resume()
    assert again.rows[0] == interrupted.first.rows[0]
    assert not again.is_interrupted and len(again.pairs) == 1
    assert written(interrupted.out / "models") == trained


def test_a_row_that_was_cut_off_is_measured_again_without_training(interrupted):
    interrupted.resume()
    trained = written(interrupted.out / "models")
    file = interrupted.out / "trials.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if b'"trial": "ngram, seed 0"' in line)
    file.write_bytes(b"".join(lines[:number]) + lines[number][:500])
    [row, _] = interrupted.resume().rows
    assert row.bits_per_character == interrupted.first.rows[0].bits_per_character
    assert written(interrupted.out / "models") == trained
    assert reviewgen.load(interrupted.out / "models" / "ngram").preset == "ngram-char"


def test_a_model_that_was_trained_on_is_measured_again(interrupted):
    before = interrupted.resume().rows
    interrupted.second.model.table.mul_(1.5)  # another model of the same name and source
    after = interrupted.resume().rows
    assert after[0] == before[0]
    assert after[1].bits_per_character != before[1].bits_per_character


def test_only_the_same_comparison_is_resumed(interrupted, tmp_path):
    with pytest.raises(OutputExists, match="resume"):
        reviewgen.compare(interrupted.given, DATA, out=interrupted.out, **SHORT)
    with pytest.raises(CheckpointError):
        interrupted.resume(prompt="a", seed=1)
    with pytest.raises(CheckpointError):
        interrupted.resume(DATA[5:])
    (tmp_path / "other").touch()
    with pytest.raises(CheckpointError, match="holds no comparison"):
        interrupted.resume(out=tmp_path)
    with pytest.raises(CheckpointError, match="'ngram' has another preset or other settings"):
        interrupted.resume(row_settings={"ngram": {"model": {"smoothing": "none"}}})


KILLED = """if True:
    import os, signal, sys
    from pathlib import Path
    import reviewgen
    from reviewgen.runs.trial_store import TrialStore
    from tests.analysis.test_compare import DATA, TWO
    add = TrialStore.add
    left = [int(sys.argv[1])]
    def add_or_die(self, key, results):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, key, results)
    TrialStore.add = add_or_die
    reviewgen.compare(TWO, DATA, out="out", resume=Path("out").exists(), steps=2, progress=False)
"""
TWO = {"first": "ngram-char", "second": "ngram-word"}


@pytest.mark.slow
@pytest.mark.parametrize("added", [3, 2])
def test_a_comparison_that_was_killed_trains_only_what_is_missing(added, tmp_path, monkeypatch):
    """Two entries are added before the first training, and one after each."""
    monkeypatch.chdir(tmp_path)
    done = run_python(["-c", KILLED, str(added)], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    trained = written(tmp_path / "out" / "models" / "first")
    assert trained
    result = reviewgen.compare(TWO, DATA, out="out", resume=True, steps=2, progress=False)
    assert written(tmp_path / "out" / "models" / "first") == trained
    whole = reviewgen.compare(TWO, DATA, steps=2, progress=False)
    for row, expected in zip(result.rows, whole.rows, strict=True):
        assert row.bits_per_character == expected.bits_per_character
        assert row.samples == expected.samples
    assert result.pairs == whole.pairs
    with pytest.raises(CheckpointError, match="another steps"):
        reviewgen.compare(TWO, DATA, out="out", resume=True, steps=3, progress=False)


def make(names, hostile=""):
    """Return a comparison of made-up models, the last of which has failed."""
    draw = np.random.default_rng(0)
    texts = ["x" * (50 + 13 * number % 400) for number in range(60)]
    sizes = np.array([len(text) for text in texts])
    comparison = Comparison(
        HeldOut(texts, [{}] * 60, 900, "test", f"reviews.csv{hostile}", "abc"), f"the {hostile}", 0
    )
    shared = draw.normal(0, 0.2, 60)
    for number, name in enumerate(names):
        bits = sizes * (2 + number / 50 + shared + draw.normal(0, 0.1, 60))
        mean = float(bits.sum() / sizes.sum())
        text = "the film was good and " * 14 + hostile
        row = ComparisonRow(
            name=name + hostile,
            source=f"hf://ana/{name}" if number % 2 else name,
            tokenizer="word" if number % 3 else "char",
            parameters=10 ** (3 + number % 5),
            bits_per_character=mean,
            bits_interval=(mean - 0.1, mean + 0.1),
            perplexity_per_token=2**mean,
            distinct={"1": 0.5, "2": 0.9, "3": None},
            samples=tuple(
                Sample(temperature, text, ((4, 90), (100, 160))) for temperature in (0.5, 0.8, 1.2)
            ),
            curve=tuple(CurvePoint(3.0 * n, 10_000 * n, mean + 3 / n) for n in range(1, 30)),
            seen=0.5 if number == 2 else 0.0,
            notes=(f"A note.{hostile}",),
            picture=f"<svg><title>{hostile}</title></svg>" if number == 1 else "",
        )
        comparison.add(Measured(row, bits[None] * math.log(2)))
    comparison.add(
        Measured(
            ComparisonRow(name=f"failed{hostile}", source="x", failed=f"The loss is NaN.{hostile}"),
            None,
        )
    )
    return comparison


def repeated(gain, seeds=3, shares=(None, None)):
    """Return a comparison of a made-up base and candidate, each trained from several seeds."""
    draw = np.random.default_rng(0)
    sizes = np.full(60, 100)
    comparison = Comparison(HeldOut(["x" * 100] * 60, [{}] * 60, 60, "all", "x", None), "", 0)
    for name, level, share in zip(("base", "new"), (2.0, 2.0 - gain), shares, strict=True):
        trainings = []
        for deviation in draw.normal(0, 0.01, (seeds, 1)):
            nats = (level + deviation + draw.normal(0, 0.01, 60)) * sizes * math.log(2)
            row = ComparisonRow(
                name=name,
                source="x",
                bits_per_character=float(nats.sum() / sizes.sum() / math.log(2)),
                perplexity_per_token=2.0,
                processor_share=share,
            )
            trainings.append(Measured(row, nats[None]))
        comparison.add(average_seeds(trainings, comparison.held_out))
    return comparison


@pytest.mark.parametrize("gain, better", [(0.1, True), (-0.1, False), (0.001, "unknown")])
def test_json_says_whether_a_change_is_better(gain, better):
    comparison = repeated(gain)
    facts = comparison.to_dict()
    assert facts["better"] == better
    assert facts["rows"][1]["better"] == better
    assert "better" not in facts["rows"][0]
    assert facts["pairs"][0]["is_over_seeds"]
    assert facts["seed_spread"]["degrees"] == 4


def test_one_seed_says_nothing_about_a_change_without_the_spread_of_other_trainings():
    comparison = repeated(0.1, seeds=1)
    assert comparison.pairs[0].is_significant
    assert comparison.to_dict()["better"] == "unknown"
    assert comparison.is_better("new", SeedSpread(0.01, 6)) is True
    with pytest.raises(ConfigError, match="Did you mean 'new'"):
        comparison.is_better("mew")


def test_rows_of_a_busy_machine_are_not_compared(tmp_path, capsys):
    comparison = repeated(0.1, shares=(0.9, 0.4))
    facts = comparison.to_dict()
    said = "Not comparable with the other rows"
    assert facts["better"] == "unknown"
    assert said in facts["not_comparable"]
    assert said in page_of(comparison, tmp_path)
    for drawn in draw_tables(comparison, 120):
        Console(width=120).print(drawn)
    assert said in capsys.readouterr().out
    fair = repeated(0.1, shares=(0.9, 0.8)).to_dict()
    assert fair["better"] is True
    assert fair["not_comparable"] is None


NETWORK = {
    "settings": {"model": {"hidden_size": 8, "embedding_size": 4, "ngrams": 1}},
    "progress": False,
}


@pytest.mark.slow
def test_a_row_of_several_seeds_has_the_mean_and_the_spread_of_its_trainings(tmp_path):
    given = {"narrow": "rnn-char", "wide": "rnn-char"}
    own = {"wide": {"model": {"hidden_size": 16}}}
    result = reviewgen.compare(
        given, DATA, steps=3, seed=5, seeds=2, row_settings=own, out=tmp_path / "out", **NETWORK
    )
    texts = result.held_out.texts
    for row, size in zip(result.rows, (8, 16), strict=True):
        bits = []
        for seed in (5, 6):
            settings = NETWORK["settings"]["model"] | {"hidden_size": size}
            model = reviewgen.train(
                "rnn-char", DATA, steps=3, seed=seed, model=settings, progress=False
            )
            bits.append(sum(model.score(text).bits for text in texts) / sum(map(len, texts)))
        assert row.seeds == 2
        assert row.bits_per_character == pytest.approx(np.mean(bits), rel=1e-4)
        assert row.spread == pytest.approx(np.std(bits, ddof=1), rel=0.02)
    assert result.rows[1].settings == {"model.hidden_size": 16}
    saved = reviewgen.load(tmp_path / "out" / "models-seed-6" / "wide")
    assert saved.model.config.hidden_size == 16
    assert "±" in page_of(result, tmp_path)


@pytest.mark.slow
def test_a_time_budget_records_the_share_of_processor_time():
    [row] = reviewgen.compare(["rnn-char"], DATA, budget=1, **NETWORK).rows
    assert 0 < row.processor_share <= 1
    [row] = reviewgen.compare(["rnn-char"], DATA, steps=2, **NETWORK).rows
    assert row.processor_share is None


def test_settings_of_a_row_need_a_row_that_is_trained(models):
    own = {"charr": {"model": {"order": 3}}}
    with pytest.raises(ConfigError, match="no row has this name"):
        reviewgen.compare({"char": "ngram-char"}, "missing.csv", row_settings=own)
    with pytest.raises(ConfigError, match="'char' is a trained model"):
        reviewgen.compare(models, "missing.csv", row_settings={"char": own["charr"]})
    with pytest.raises(ConfigError, match="seeds"):
        reviewgen.compare(["ngram-char"], "missing.csv", seeds=0)


@pytest.mark.slow
def test_a_preset_without_probabilities_has_no_bits_from_several_seeds_either():
    settings = {"model": {"smoothing": "stupid-backoff", "order": 2}}
    [row] = reviewgen.compare(["ngram-char"], DATA, settings=settings, seeds=2, progress=False).rows
    assert row.failed is None and row.bits_per_character is None


def page_of(comparison, tmp_path):
    comparison.save_html(tmp_path / "page.html", overwrite=True)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_everything_from_models_files_and_users_is_escaped(tmp_path):
    comparison = make(["gru-char", "lstm-char"], HOSTILE)
    for html in (page_of(comparison, tmp_path), comparison._repr_html_()):
        page = LexborHTMLParser(html)
        executable = 'script:not([type="application/ld+json"])'
        assert page.css(f"{executable}, iframe, object, link, a") == [] and "133707" not in html
        attributes = list(
            chain.from_iterable(element.attributes.items() for element in page.css("*"))
        )
        assert not [name for name, value in attributes if name.startswith("on") or name == "href"]
        assert {value.partition(",")[0] for name, value in attributes if name == "src"} == {
            "data:image/svg+xml;base64"
        }
        for text in ("gru-char", "the ", "The loss is NaN.", "A note.", "reviews.csv"):
            assert text + HOSTILE in page.text()


def test_a_page_marks_copies_and_names_the_best(tmp_path):
    comparison = make(["a", "b", "c"])
    html = page_of(comparison, tmp_path)
    sample = comparison.rows[0].samples[0]
    assert re.findall(r'<mark class="copied">(.*?)</mark>', html)[:2] == [
        sample.text[4:90],
        sample.text[100:160],
    ]
    assert paired(comparison) == {"a", "b"}  # c has seen the texts
    assert "a has the fewest" in html and re.search(r"\d\*</td>", html) and "* c:" in html
    assert b64encode(comparison.rows[1].picture.encode()).decode() in html
    with pytest.raises(OutputExists):
        comparison.save_html(str(tmp_path / "page.html"))
    with pytest.raises(ConfigError):
        comparison.save_html(tmp_path / "page.png")


def test_a_page_of_thirty_models_stays_small(tmp_path):
    many = make([f"model-{number}" for number in range(30)], HOSTILE)
    html = page_of(many, tmp_path)
    assert len(html.encode()) < 1_000_000 and all(f"model-{number}" in html for number in range(30))


@pytest.mark.parametrize(
    "row",
    [
        ComparisonRow(name="failed", source="x", failed="Why."),
        ComparisonRow(name="empty", source="x"),
        ComparisonRow(
            name="infinite",
            source="x",
            bits_per_character=math.inf,
            perplexity_per_token=math.inf,
            parameters=0,
        ),
        ComparisonRow(
            name="huge",
            source="x",
            bits_per_character=1e300,
            parameters=10**15,
            samples=(Sample(0.5, "z" * 10**6, None), Sample(1.0, "", None)),
        ),
        None,
    ],
    ids=lambda row: row.name if row else "no row",
)
def test_odd_rows_have_a_page(row, tmp_path):
    comparison = Comparison(HeldOut(["ab"], [{}], 1, "all", "x", None), "", 0)
    if row is not None:
        comparison.add(Measured(row, None))
    html = page_of(comparison, tmp_path)
    assert len(html) < 60_000 and (row is None or row.name in html)
    assert ("No model was evaluated." in html) == (row is None or row.failed is not None)


@pytest.mark.browser
def test_a_browser_finds_no_fault_in_the_page_and_it_prints_on_paper(browser, tmp_path):
    comparison = make([f"m{n}" for n in range(9)], HOSTILE)
    comparison.add(
        Measured(
            replace(make(["x"]).rows[0], name="drawn", picture=reviewgen.graph("lstm-char").svg),
            None,
        )
    )
    page_of(comparison, tmp_path)
    for width, scheme in ((360, "light"), (1400, "dark")):
        assert problems(browser, tmp_path / "page.html", width, scheme) == []
    page = browser.new_page(color_scheme="dark")
    page.goto((tmp_path / "page.html").as_uri())
    assert (
        page.locator("figure.chart svg[role=img]").count() == 3
        and page.title() == "11 language models compared"
    )
    assert page.evaluate("getComputedStyle(document.body).colorScheme") != "light"
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
    page.close()


@pytest.fixture
def run(monkeypatch, models, tmp_path, run_command):
    """Run ``compare`` in a folder with data and a saved model."""
    models["char"].save_pretrained(tmp_path / "lr=0.1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("\n".join(DATA))
    return lambda *words: run_command("compare", *words)


@pytest.fixture
def words(tmp_path):
    words = ("[red]mine=./lr=0.1", "ngram-word", str(tmp_path / "lr=0.1"), "--data", "data.txt")
    words += ("--steps", 2, "--html", "page.html", "--set", "model.order=2")
    return (*words, "--prompt", "a\x1b[2J\x07[bold]b")


def test_the_command_prints_a_table_that_fits_and_writes_a_page(run, words, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, said, notes = run(*words)
    assert status == 0 and (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert max(map(len, said.splitlines())) <= 80
    assert "bits/char" in said and "[red]mine" in said and "held-out texts" in notes
    assert "\x1b" not in said and "\x07" not in said


def test_the_command_does_not_replace_a_page(run, words, tmp_path):
    (tmp_path / "page.html").touch()
    status, said, notes = run(*words)
    assert (status, said) == (1, "") and "--overwrite" in notes


def test_the_command_ends_with_1_if_a_row_fails(run, words, tmp_path):
    (tmp_path / "page.html").touch()
    status, said, _ = run(*words, "./gone", "--overwrite", "--json")
    result = json.loads(said)
    assert status == 1
    names = [each["name"] for each in result["rows"]]
    assert names[:3] == ["[red]mine", "ngram-word", "lr=0.1"]
    assert len(result["pairs"]) == 3 and "gone" in result["rows"][3]["failed"]


@pytest.mark.slow
def test_the_command_sets_a_setting_of_one_row(run):
    words = ("first=ngram-char", "second=ngram-char", "--data", "data.txt", "--steps", 2, "--json")
    words += ("--set", "model.order=1", "--set", "second:model.order=3", "--seeds", 2)
    status, said, _ = run(*words)
    result = json.loads(said)
    first, second = result["rows"]
    assert status == 0
    assert result["better"] is True
    assert (first["seeds"], first["spread"]) == (2, 0.0)  # an n-gram is the same from each seed
    assert first["settings"] == {}
    assert second["settings"] == {"model.order": "3"}
    assert second["parameters"] > first["parameters"]
    status, said, notes = run(*words, "--set", "secnod:model.order=3")
    assert (status, said) == (2, "")
    assert "Did you mean 'second'" in notes


@pytest.mark.parametrize(
    "words, expected",
    [
        (("a=ngram-char", "a=gru-char", "--data", "data.txt"), 2),
        (("ngram-char", "--html", "page.pdf", "--data", "data.txt"), 2),
        (("ngram-char", "--html", "missing/page.html", "--data", "data.txt"), 1),
        (("ngram-char", "--data", "missing.csv"), 1),
    ],
)
def test_a_bad_call_of_the_command_is_one_error(run, words, expected):
    status, said, notes = run(*words)
    assert (status, said) == (expected, "") and "error: " in notes and "Traceback" not in notes
