"""``compare``: figures against independent code, bad input, failures, Ctrl-C and resuming."""

import itertools
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.stats
import torch

import reviewgen
from reviewgen.bundle import read_bundle
from reviewgen.comparison import Comparison, Row, Sample
from reviewgen.comparison.held_out import HeldOut, find_seen, measure_bits, read_held_out
from reviewgen.comparison.intervals import bits_interval, compare_pairs
from reviewgen.comparison.measuring import Measured, count_parameters
from reviewgen.errors import CheckpointError, ConfigError, DataError, OutputExists, SourceError, StorageError, UnknownPlugin
from reviewgen.registry import plugins
from tests.support.fakes import LETTERS, TEXTS, TableModel, review_model, run_command, table, train_tiny

DATA = [f"{text} And then {number} more of the same came along, to my surprise." for number, text in enumerate(TEXTS)]
SHORT = {"steps": 2, "settings": {"model": {"order": 2}}, "progress": False}
QUICK = {"steps": 2, "settings": {"training": {"evaluations": 1, "batch_size": 4}}, "progress": False}
LETTER_TEXTS = ["abc", "hgf e dcba", "", "a b c d e f g h" * 5, "cab"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two models of different tokenizers, trained on the same texts."""
    folder = tmp_path_factory.mktemp("models")
    char = train_tiny("ngram-char", folder, DATA, model={"order": 3}, training={"novelty": "exact"})
    word = train_tiny("ngram-word", folder, DATA, model={"order": 2})
    return {"char": char, "word": word}


@pytest.fixture(scope="module")
def compared(models, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVIEWGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return reviewgen.compare({**models, "trained": "ngram-char"}, DATA, **QUICK)


def letters(seed=0, **options):
    return review_model(TableModel(table(LETTERS.vocab_size, seed, **options)), LETTERS)


def fake_held_out(texts=("abc", "a b c d")):
    return HeldOut(list(texts), [{} for _ in texts], len(texts), "test", "fake", None)


def row(name, bits=2.0, **values):
    return Row(name=name, source=name, tokenizer="char", bits_per_character=bits, **values)


# Figures


def test_bits_are_those_of_a_plain_loop(compared, models):
    """Chain rule, token by token, with no batches."""
    for result, model in zip(compared.rows, models.values(), strict=False):
        bits, characters = 0.0, 0
        for text in compared.held_out.texts:
            ids = [model.tokenizer.bos_id, *model.tokenizer.encode(text), model.tokenizer.eos_id]
            state = model.bundle.model.initial_state(1)
            for before, after in itertools.pairwise(ids):
                logits, state = model.bundle.model(torch.tensor([[before]]), state)
                bits -= float(logits[0, 0].log_softmax(-1)[after]) / math.log(2)
            characters += len(text)
        assert result.bits_per_character == pytest.approx(bits / characters, rel=1e-4)


def test_all_are_evaluated_on_texts_that_no_row_was_trained_on(compared):
    trained = reviewgen.train("ngram-char", DATA, steps=2, model={"order": 3}, progress=False)
    assert trained.training["data"]["fingerprint"] == compared.held_out.corpus
    assert trained.training["data"]["reviews"]["test"] == compared.held_out.total > 0
    assert all(result.is_same_split and not result.has_seen_held_out for result in compared.rows)


@pytest.mark.parametrize("is_network", [True, False])
def test_parameters_are_those_of_torch(is_network):
    if is_network:
        network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
        assert count_parameters(network) == 3 * 5 + 5 + 5 + 5  # buffers are not parameters
    else:
        assert count_parameters(TableModel(torch.zeros(7, 7))) == 49


def test_intervals_are_those_of_scipy():
    generator = np.random.default_rng(1)
    characters = generator.integers(20, 900, 150)
    first = characters * generator.normal(2.0, 0.3, 150)
    second = first + characters * generator.normal(0.01, 0.05, 150)

    def rate(bits, sizes, axis=-1):
        return bits.sum(axis) / sizes.sum(axis)

    def difference(one, other, sizes, axis=-1):
        return (one - other).sum(axis) / sizes.sum(axis)

    options = {"method": "percentile", "n_resamples": 20_000, "vectorized": True, "paired": True, "rng": 5}
    theirs = scipy.stats.bootstrap((first, characters), rate, **options).confidence_interval
    ours = bits_interval(first, characters, 0)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low))
    theirs = scipy.stats.bootstrap((first, second, characters), difference, **options).confidence_interval
    (pair,) = compare_pairs({"a": first, "b": second}, characters, 0)
    assert pair.interval == pytest.approx((theirs.low, theirs.high), abs=0.15 * (theirs.high - theirs.low))
    assert pair.difference == pytest.approx((first.sum() - second.sum()) / characters.sum())


def test_a_pair_is_told_apart_by_the_same_texts_though_the_intervals_overlap():
    generator = np.random.default_rng(0)
    characters = np.full(100, 100)
    hard = generator.normal(200, 60, 100)
    bits = {"a": hard, "b": hard + 1 + generator.normal(0, 0.1, 100), "c": hard + generator.normal(0, 0.1, 100)}
    pairs = {(pair.first, pair.second): pair for pair in compare_pairs(bits, characters, 0)}
    one, other = (bits_interval(bits[name], characters, 0) for name in "ab")
    assert one[1] > other[0]
    assert pairs["a", "b"].is_told_apart and "a is better than b by 0.010" in pairs["a", "b"].describe()
    assert not pairs["a", "c"].is_told_apart and "not told apart" in pairs["a", "c"].describe()
    assert compare_pairs(bits, characters, 0) == compare_pairs(bits, characters, 0)


def test_infinite_bits_have_no_interval():
    logits = table(LETTERS.vocab_size)
    logits[:, 5] = -math.inf
    impossible = review_model(TableModel(logits), LETTERS)
    measured = measure_bits(impossible, fake_held_out(["abcdefgh", "aaa"]))
    assert measured.zero_probability_tokens == 1 and math.isinf(measured.bits.sum()) and math.isfinite(measured.bits[1])
    assert bits_interval(measured.bits, np.array([8, 3]), 0) is None
    (pair,) = compare_pairs({"a": measured.bits, "b": np.ones(2)}, np.array([8, 3]), 0)
    assert pair.difference == math.inf and pair.interval is None and not pair.is_told_apart
    both = compare_pairs({"a": measured.bits, "b": measured.bits}, np.array([8, 3]), 0)
    assert both[0].difference == 0.0


def test_one_held_out_text_gives_no_interval():
    assert bits_interval(np.array([5.0]), np.array([3]), 0) is None
    (pair,) = compare_pairs({"a": np.array([5.0]), "b": np.array([6.0])}, np.array([2]), 0)
    assert pair.interval is None and pair.difference == -0.5


def test_a_row_has_every_figure(compared):
    for result in compared.rows:
        assert result.failed is None
        assert result.bits_interval[0] <= result.bits_per_character <= result.bits_interval[1]
        assert [sample.temperature for sample in result.samples] == [0.5, 0.8, 1.2]
        assert all(sample.text.startswith("the ") for sample in result.samples)
        assert result.characters_per_second > 0 and result.bytes_on_disk > 1000 and result.words_measured > 0
        assert 0 < result.distinct["1"] <= result.distinct["2"] <= 1 and 0 <= result.new_words <= 1
        assert result.copy_rate is not None and result.curve
    char, word, trained = compared.rows
    assert char.tokenizer == "char" and word.tokenizer == "word" and trained.is_trained_here and not char.is_trained_here
    orders = [point.order for point in trained.orders]
    assert orders == sorted(orders) and len(orders) > 4 and trained.orders[0].train_bits > trained.orders[-1].train_bits


def test_perplexity_and_bits_are_one_measurement_in_two_units(compared, models):
    tokens = sum(len(models["char"].tokenizer.encode(text)) + 1 for text in compared.held_out.texts)
    characters = int(compared.held_out.characters.sum())
    result = compared.rows[0]
    assert result.perplexity_per_token == pytest.approx(2 ** (result.bits_per_character * characters / tokens))


def test_a_model_that_was_trained_on_the_held_out_texts_is_marked(models, compared, tmp_path):
    settings = {"model": {"order": 3}, "training": {"novelty": "exact"}}
    other = reviewgen.train("ngram-char", DATA, validation=["Something else.", "More."], steps=2, progress=False, **settings)
    result = reviewgen.compare({"seen": other, **models}, DATA, **QUICK)
    assert result.rows[0].seen == 1.0 and result.rows[0].has_seen_held_out and "too low" in result.rows[0].notes[0]
    assert {name for pair in result.pairs for name in (pair.first, pair.second)} == {"char", "word"}
    assert find_seen(models["char"], compared.held_out) == 0.0
    assert result.to_json()["rows"][0]["has_seen_held_out"] is True


def test_a_preset_that_is_trained_on_the_held_out_texts_is_marked(compared):
    """Short texts, which an index does not find: the training text is at hand."""
    short = [f"line {number} of many" for number in range(60)]
    unseen = [f"Verse {number} of a song" for number in range(60)]
    seen, other = (reviewgen.compare(["ngram-char"], short, held_out=each, **SHORT).rows[0] for each in (short + unseen, unseen))
    assert 0.4 < seen.seen < 0.5 and seen.has_seen_held_out and "It was trained on" in seen.notes[0]
    assert other.seen == 0.0 and not other.notes


def test_a_long_held_out_text_is_found_in_the_training_text_as_a_whole(models):
    long, part = "x" * 80, "y" * 80
    held_out = fake_held_out([long, part, "short"])
    assert find_seen(models["char"], held_out, iter([long, part + "z", "short"])) == 0.5


def test_a_model_without_an_index_and_with_other_data_is_marked_as_unknown(compared):
    from reviewgen.comparison.entries import Entry
    from reviewgen.comparison.measuring import measure_model

    measured = measure_model(letters(), Entry("x", letters(), False), fake_held_out(["abc abc", "fed"]), "a", 0)
    assert measured.row.seen is None and "is not known" in measured.row.notes[0]


# Bad input


@pytest.mark.parametrize(
    ("models", "options", "error"),
    [
        ([], {}, ConfigError),
        ("gru-char", {}, ConfigError),
        ([3], {}, ConfigError),
        (["gru-char", "gru-char"], {}, ConfigError),
        (["gru-char", "gru-chra"], {}, UnknownPlugin),
        (["no such thing"], {}, SourceError),
        ({"": "gru-char"}, {}, ConfigError),
        ({"a": "gru-char", "A": "lstm-char"}, {}, ConfigError),
        (["gru-char"], {"budget": "soon"}, ConfigError),
        (["gru-char"], {"budget": "1m", "steps": 3}, ConfigError),
        (["gru-char"], {"settings": {"training": {"no_such": 1}}}, ConfigError),
        (["gru-char"], {"resume": True}, ConfigError),
        (["gru-char"], {"prompt": 7}, ConfigError),
        (["gru-char"], {"sede": 7}, ConfigError),
        (["gru-char"], {"seed": -1}, ConfigError),
        (["gru-char"], {"out": "/dev/null/x"}, StorageError),
    ],
)
def test_what_is_unusable_is_refused_before_any_work(monkeypatch, models, options, error):
    monkeypatch.setattr("reviewgen.comparison.held_out.gather", None)
    with pytest.raises(error) as raised:
        reviewgen.compare(models, DATA, progress=False, **options)
    assert len(str(raised.value)) < 500


def test_data_that_can_be_read_once_is_refused():
    with pytest.raises(ConfigError, match="iterator"):
        reviewgen.compare(["gru-char"], iter(DATA), progress=False)


@pytest.mark.parametrize("held_out", [[], ["", "  "]])
def test_an_empty_held_out_set_is_an_error(models, held_out):
    with pytest.raises(DataError):
        reviewgen.compare(models, DATA, held_out=held_out, progress=False)


def test_a_single_text_cannot_be_split():
    with pytest.raises(DataError):
        read_held_out(["one text"], None, {})


@pytest.mark.parametrize(
    ("texts", "split", "said"),
    [
        (["ab"], "all", "the same 1 held-out text (2 characters): fake."),
        (["ab", "c"], "test", "the same 2 held-out texts (3 characters): the test split of fake."),
    ],
)
def test_the_held_out_texts_are_described(texts, split, said):
    held_out = replace(fake_held_out(texts), split=split)
    assert Comparison(held_out, "", 0).describe_held_out() == f"All are evaluated on {said}"


def test_a_separate_source_is_evaluated_on_as_a_whole():
    held_out = read_held_out(None, ["one text", "another", ""], {})
    assert held_out.texts == ["one text", "another"] and held_out.split == "all" and held_out.corpus is None


def test_a_long_held_out_set_is_sampled_evenly():
    held_out = read_held_out(None, [f"text {number} " + "x" * 990 for number in range(1000)], {})
    numbers = [int(text.split()[1]) for text in held_out.texts]
    assert 140 <= len(numbers) <= 160 and held_out.total == 1000
    assert numbers == sorted(numbers) and 480 < np.mean(numbers) < 520
    short = read_held_out(None, ["x" * 1000 + str(number) for number in range(1000)], {}, budget=20.0)
    assert sum(map(len, short.texts)) == pytest.approx(50_000, rel=0.05)


def test_two_models_of_one_preset_need_names(models):
    with pytest.raises(ConfigError, match="Two rows have the name 'ngram-char'"):
        reviewgen.compare([models["char"], "ngram-char"], DATA, progress=False)


def test_a_model_that_fails_is_a_row_and_the_others_go_on(models, tmp_path):
    class Broken(TableModel):
        def __call__(self, ids, state):
            raise RuntimeError("<b>kernel</b>\npanic")

    class Leaves(TableModel):
        def __call__(self, ids, state):
            raise SystemExit(3)

    broken, leaves = (review_model(kind(table(LETTERS.vocab_size)), LETTERS) for kind in (Broken, Leaves))
    nan = letters(scale=math.nan)
    given = {"broken": broken, "leaves": leaves, "nan": nan, "gone": tmp_path / "missing", "char": models["char"]}
    result = reviewgen.compare(given, DATA, **QUICK)
    reasons = {each.name: each.failed for each in result.rows}
    assert reasons["broken"] == "RuntimeError: <b>kernel</b> panic" and "SystemExit" in reasons["leaves"]
    assert reasons["nan"] and "missing" in reasons["gone"] and reasons["char"] is None
    assert result.has_failed and [each.name for each in result.rows] == list(given)


def test_a_budget_that_is_too_small_for_two_steps_is_said_in_the_row(models):
    small = {"model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}, "training": {"batch_size": 4}}
    result = reviewgen.compare({"late": "gru-char", **models}, DATA, budget=0.001, settings=small, progress=False)
    assert "one step only" in result.rows[0].notes[0]
    assert all(each.failed is None and not each.notes for each in result.rows[1:])


class Uniform(torch.nn.Module):
    """A model without parameters, as reviewgen-uniform's: nothing in it can be trained."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        vocab_size: int

    def __init__(self, config):
        super().__init__()
        self.config = config

    def initial_state(self, batch_size):
        return ()

    def forward(self, ids, state):
        return torch.zeros(*ids.shape, self.config.vocab_size), ()


class Hooked(Uniform):
    def __init__(self, config):
        super().__init__(config)
        self.register_forward_hook(self._raise)

    @staticmethod
    def _raise(*arguments):
        raise RuntimeError("hook <b>")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(plugins, "_registered", {})
    reviewgen.register_model("uniform", Uniform)
    reviewgen.register_model("hooked", Hooked)


@pytest.mark.usefixtures("registered")
def test_a_model_without_parameters_goes_through_everything(models, tmp_path):
    result = reviewgen.compare({"none": "uniform-char", **models}, DATA, out=tmp_path / "out", **QUICK)
    uniform = result.rows[0]
    vocab_size = reviewgen.load(tmp_path / "out" / "models" / "none").tokenizer.vocab_size
    assert uniform.failed is None and uniform.parameters == 0 and "<svg" in uniform.picture
    assert uniform.perplexity_per_token == pytest.approx(vocab_size, rel=1e-5)
    assert [pair.is_told_apart for pair in result.pairs if pair.first == "none"] == [True, True]
    assert result.to_pandas().loc["none", "parameters"] == 0
    result.save_html(tmp_path / "page.html")
    assert "The computational graph of none" in (tmp_path / "page.html").read_text()
    again = reviewgen.compare({"none": "uniform-char", **models}, DATA, out=tmp_path / "out", resume=True, **QUICK)
    assert again.rows == result.rows


@pytest.mark.usefixtures("registered")
def test_a_forward_hook_that_raises_is_said_in_the_row(models):
    result = reviewgen.compare({"hooked": "hooked-char", **models}, DATA, **QUICK)
    assert result.rows[0].failed == "RuntimeError: hook <b>" and all(each.failed is None for each in result.rows[1:])


# Ctrl-C, resuming, files


def interrupt_second(monkeypatch):
    from reviewgen.comparison import comparing

    measure, calls = comparing._measure, []

    def once(*arguments):
        calls.append(arguments[0].name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(comparing, "_measure", once)
    return calls


def test_an_interrupted_comparison_reports_what_is_there_and_resumes(monkeypatch, tmp_path):
    given, out = ["ngram-char", "ngram-word"], tmp_path / "out"
    calls = interrupt_second(monkeypatch)
    first = reviewgen.compare(given, DATA, out=out, **SHORT)
    assert [each.name for each in first.rows] == ["ngram-char"] and first.is_interrupted
    with pytest.raises(OutputExists, match="resume"):
        reviewgen.compare(given, DATA, out=out, **SHORT)
    second = reviewgen.compare(given, DATA, out=out, resume=True, **SHORT)
    assert calls == ["ngram-char", "ngram-word", "ngram-word"] and not second.is_interrupted
    assert second.rows[0] == first.rows[0] and len(second.pairs) == 1
    assert read_bundle(out / "models" / "ngram-char").preset == "ngram-char"
    with pytest.raises(CheckpointError, match="another prompt, seed"):
        reviewgen.compare(given, DATA, out=out, resume=True, prompt="a", seed=1, **SHORT)
    with pytest.raises(CheckpointError, match="corpus"):
        reviewgen.compare(given, DATA[5:], out=out, resume=True, **SHORT)


def test_a_damaged_row_is_measured_again_without_training(monkeypatch, tmp_path):
    out = tmp_path / "out"
    first = reviewgen.compare(["ngram-char"], DATA, out=out, **SHORT)
    (out / "rows" / "ngram-char.json").write_text('{"row": {"name": 3}}')
    monkeypatch.setattr("reviewgen.comparison.training.TrainingRun", None)
    again = reviewgen.compare(["ngram-char"], DATA, out=out, resume=True, **SHORT)
    assert again.rows[0].bits_per_character == first.rows[0].bits_per_character


def test_a_folder_that_is_not_a_comparison_is_not_resumed(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(CheckpointError, match="not the folder of a comparison"):
        reviewgen.compare(["ngram-char"], DATA, out=tmp_path, resume=True, progress=False)


def test_a_row_survives_json():
    samples = (Sample(0.5, "a\ud800<script>", ((0, 1),)), Sample(0.8, "b", None))
    full = row("x", math.inf, bits_interval=None, zero_probability_tokens=2, perplexity_per_token=math.inf, samples=samples)
    from reviewgen.comparison.rows import to_json

    assert Row.from_json(json.loads(json.dumps(to_json(full), allow_nan=False))) == full


def test_a_data_frame_has_the_figures(compared):
    frame = compared.to_pandas()
    assert list(frame.index) == ["char", "word", "trained"]
    assert frame.loc["word", "bits_per_character"] == compared.rows[1].bits_per_character
    assert {"bits_low", "bits_high", "distinct_2", "parameters"} <= set(frame.columns)
    assert Comparison(fake_held_out(), "a", 0).to_pandas().empty


# The command


def test_the_command_prints_a_table_that_fits(monkeypatch, capsys, models, tmp_path):
    models["char"].save_pretrained(tmp_path / "saved")
    file, page = tmp_path / "data.txt", tmp_path / "page.html"
    file.write_text("\n".join(DATA))
    monkeypatch.setenv("COLUMNS", "80")
    words = (
        "compare",
        f"mine={tmp_path / 'saved'}",
        "ngram-word",
        "--data",
        file,
        "--steps",
        2,
        "--html",
        page,
        "--set",
        "model.order=2",
    )
    status, said, notes = run_command(monkeypatch, capsys, *words)
    assert status == 0 and page.read_text().startswith("<!DOCTYPE html>")
    assert max(map(len, said.splitlines())) <= 80 and "bits/char" in said and "mine" in said and "held-out texts" in notes
    before = page.read_bytes()
    status, said, notes = run_command(monkeypatch, capsys, *words)
    assert (status, said) == (1, "") and "--overwrite" in notes and page.read_bytes() == before
    status, said, _ = run_command(monkeypatch, capsys, *words, "--overwrite", "--json")
    result = json.loads(said)
    assert status == 0 and [each["name"] for each in result["rows"]] == ["mine", "ngram-word"] and len(result["pairs"]) == 1


def test_only_a_row_that_is_given_a_name_has_another_one(tmp_path):
    from reviewgen.cli.compare import _name_rows

    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert _name_rows(["gru-char", str(folder)]) == ["gru-char", str(folder)]
    named = _name_rows([f"mine={folder}", str(folder), "gru-char"])
    assert named == {"mine": str(folder), "lr=0.1": str(folder), "gru-char": "gru-char"}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("a=ngram-char", "a=gru-char"), 2),
        (("ngram-char", "b=gru-char", "ngram-char"), 2),
        (("ngram-char", "--html", "page.pdf"), 2),
        (("ngram-char", "--html", "missing/page.html"), 1),
        (("ngram-char", "--data", "missing.csv"), 1),
    ],
)
def test_bad_usage_ends_with_one_sentence(monkeypatch, capsys, tmp_path, words, status):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.txt").write_text("\n".join(DATA))
    given = words if "--data" in words else (*words, "--data", "data.txt")
    found, said, notes = run_command(monkeypatch, capsys, "compare", *given)
    assert (found, said) == (status, "") and "error: " in notes and "Traceback" not in notes


def test_a_failed_row_ends_with_status_1(monkeypatch, capsys, tmp_path):
    (tmp_path / "data.txt").write_text("\n".join(DATA))
    monkeypatch.chdir(tmp_path)  # long paths would be wrapped
    words = ("compare", "ngram-char", "./gone", "--data", "data.txt", "--steps", 2)
    status, said, _ = run_command(monkeypatch, capsys, *words)
    assert status == 1 and "gone failed:" in said and "ngram-char" in said


def test_control_characters_do_not_reach_the_terminal():
    from io import StringIO

    from rich.console import Console

    from reviewgen.comparison.table import draw_tables

    comparison = Comparison(fake_held_out(), "a", 0)
    sample = Sample(0.5, "a\x1b[2J\x07[bold]b\n", ())
    comparison.add(Measured(replace(row("[red]x"), samples=(sample,)), (1.0, 2.0)))
    console = Console(file=StringIO(), width=80)
    console.print(draw_tables(comparison, 80))
    said = console.file.getvalue()
    assert "\x1b" not in said and "\x07" not in said and "[bold]b" in said and "[red]x" in said


def test_a_run_on_a_prepared_corpus_gives_the_same_model(models):
    from reviewgen.errors import TrainingError
    from reviewgen.runs import TrainingRun
    from reviewgen.runs.prepare import prepare

    options = {"steps": 2, "model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}, "training": {"batch_size": 4}}
    run = TrainingRun("gru-char", DATA, **options)
    run.start_on(prepare(run.plan))
    with pytest.raises(TrainingError, match="has a corpus already"):
        run.start_on(prepare(run.plan))
    assert run.corpus.count("train") > 0 and len(list(run)) >= 2
    one, other = run.finish(), reviewgen.train("gru-char", DATA, progress=False, **options)
    tensors = other.model.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.model.state_dict().items())


def test_copied_spans_of_a_sample_are_those_of_the_training_text(models):
    from reviewgen.comparison.sampling import draw_samples

    text = draw_samples(models["char"], DATA[0][:20], 1.0, 0, None)[0].text
    training = ["x" * 30 + text[5:70] + "y" * 30]
    (sample, *_) = draw_samples(models["char"], DATA[0][:20], 1.0, 0, training)
    assert sample.text == text and sample.copied == ((5, 70),)
    for each in draw_samples(models["char"], DATA[0], 1.0, 0, None):  # by the exact index
        assert each.copied and each.copied[0][0] == 0 and each.copied[0][1] >= len(DATA[0])
    for each in draw_samples(models["word"], DATA[0], 1.0, 0, DATA):
        for start, end in each.copied:
            assert any(each.text[start:end] in text for text in DATA) or end - start > 50


def test_the_head_of_a_store_is_its_first_texts(tmp_path):
    from reviewgen.data.store import write_split

    store = write_split(["abc", "defg", "h"], LETTERS, tmp_path, "train", LETTERS.vocab_size)
    head = store.head(12)
    assert len(head) == 2 and head.tokens == 11 and head.characters.tolist() == [3, 4] and len(store) == 3
    assert [block.tolist() for block in head.blocks] == [store.ids[:11].tolist()]
    assert len(store.head(0)) == 1 and len(store.head(10**9)) == 3


def test_a_training_that_was_interrupted_is_resumed(monkeypatch, tmp_path):
    from contextlib import contextmanager

    from reviewgen.comparison import training

    steps = []

    @contextmanager
    def interrupting_bar(console):
        def show(report):
            steps.append(report.step)
            if len(steps) == 4:
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr(training, "training_bar", interrupting_bar)
    small = {"model": {"hidden_size": 8, "embedding_size": 4, "layer": "fused"}, "training": {"batch_size": 4, "evaluations": 2}}
    options = {"steps": 6, "settings": small, "out": tmp_path / "out", "progress": False}
    first = reviewgen.compare(["gru-char"], DATA, **options)
    assert first.rows == [] and first.is_interrupted and not (tmp_path / "out" / "models" / "gru-char").exists()
    second = reviewgen.compare(["gru-char"], DATA, resume=True, **options)
    assert second.rows[0].failed is None and steps[-1] == 6
    assert (tmp_path / "out" / "models" / "gru-char").exists()
