"""What a model copies: the index in training and on disk, copy rates, the evaluator's choice, and the commands."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reviewgen
from reviewgen import ReviewModel
from reviewgen.data import DataConfig, gather
from reviewgen.errors import BundleError, ConfigError, DataError, NotADistribution
from reviewgen.evaluation import Totals
from reviewgen.model import GeneratedText
from reviewgen.novelty import CompactIndex, ExactIndex
from reviewgen.training import TrainingConfig, evaluator
from tests.support.fakes import LETTERS, TEXTS, QueueModel, run_command, train_tiny
from tests.support.forked import run_python

FORMS = ["exact", "compact"]
MADE_UP = "Zebras juggle 42 purple vacuums, quickly!"
FILE = "novelty.safetensors"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def models(cache: Path) -> dict[str, ReviewModel]:
    return {form: train_tiny("ngram-char", cache, training={"novelty": form}) for form in [*FORMS, "none"]}


@pytest.fixture(scope="module")
def saved(models: dict[str, ReviewModel], cache: Path) -> dict[str, Path]:
    for form, model in models.items():
        model.save_pretrained(cache / "saved" / form)
    return {form: cache / "saved" / form for form in models}


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_whole_training_review_is_found(models: dict[str, ReviewModel], tmp_path: Path) -> None:
    reviews = list(gather(TEXTS, tmp_path, DataConfig()).texts("train"))
    assert len(reviews) > 40
    for number, review in enumerate(reviews):
        exact, compact = (models[form].novelty(review) for form in FORMS)
        ids = models["exact"].tokenizer.encode(review)
        assert (exact.longest_text, exact.longest_tokens, exact.longest_characters) == (review, len(ids), len(review))
        assert [span.review for span in exact.spans] == [number] and exact.spans[0].excerpt == review
        assert compact.longest_tokens == len(ids) and compact.longest_text == review
        assert compact.spans[0].review is None
        assert set(exact.windows.values()) == set(compact.windows.values()) == {1.0}
        inside = models["exact"].novelty(f"{MADE_UP} {review[4:-4]}!")
        assert review[4:-4] in inside.longest_text and inside.longest_tokens < len(ids) + 4


def test_a_made_up_text_is_not_found(models: dict[str, ReviewModel]) -> None:
    exact, compact = (models[form].novelty(MADE_UP) for form in FORMS)
    assert exact.longest_tokens < 8 and exact.spans == () and set(exact.windows.values()) == {0.0}
    assert compact.longest_tokens < 20 and (compact.windows[20] or 0.0) < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_a_report_changes_no_text(models: dict[str, ReviewModel], form: str) -> None:
    model, given = models[form], {"num_return_sequences": 6, "seed": 2}
    texts = model.generate("the ", novelty="report", **given)
    assert texts == model.generate("the ", **given)
    for text in texts:
        assert isinstance(text, GeneratedText) and isinstance(text, str)
        assert text.novelty == model.novelty(text) and not text.exceeds_max_copy
        assert text.novelty.form == form
    assert json.loads(json.dumps(texts)) == texts
    assert not any(isinstance(text, GeneratedText) for text in model.generate("the ", **given))
    one = model.generate_one(novelty="filter", seed=1)  # about 50 characters
    assert isinstance(one, GeneratedText) and model.novelty(one).longest_characters <= 50


@pytest.mark.parametrize(
    ("form", "settings", "kind", "said"),
    [
        ("exact", {"novelty": "x"}, ConfigError, "'report' or 'filter'"),
        ("exact", {"max_copy": 5}, ConfigError, "needs novelty='filter'"),
        ("exact", {"novelty": "report", "max_copy": 5}, ConfigError, "needs novelty='filter'"),
        ("exact", {"novelty": "filter", "max_copy": -1}, ConfigError, "max_copy must be .* got -1"),
        ("exact", {"novelty": "filter", "max_copy": True}, ConfigError, "max_copy must be .* got True"),
        ("compact", {"novelty": "filter", "max_copy": -1}, ConfigError, "max_copy must be .* got -1"),
        ("compact", {"novelty": "filter", "max_copy": 6}, ConfigError, "compact index of this model supports 7 or more"),
        ("none", {"novelty": "filter"}, DataError, "no index"),
        ("none", {"novelty": "report"}, DataError, "no index"),
    ],
    ids=str,
)
def test_invalid_settings(
    models: dict[str, ReviewModel], form: str, settings: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        models[form].generate("the ", **settings)
    assert len(str(caught.value).splitlines()) == 1 and str(caught.value).endswith(".")


def test_settings_of_a_wrong_type(saved: dict[str, Path]) -> None:
    """In a subprocess, since pytest's runtime type checker would raise first in this one."""
    script = f"""
import reviewgen
from reviewgen.errors import ConfigError
model = reviewgen.load({str(saved["exact"])!r})
for call in (
    lambda: model.generate(novelty="filter", max_copy=1.5),
    lambda: model.generate(novelty="filter", max_copy="5"),
    lambda: model.generate(novelty=3),
    lambda: model.novelty(7),
    lambda: reviewgen.sweep("ngram-char", ["a"], "model.order", "24"),
):
    try:
        call()
    except ConfigError as error:
        print(error)
"""
    done = run_python(["-c", script], check=True)
    wanted = ["max_copy must be", "max_copy must be", "novelty must be", "The text must be", "Give a list of at least one value"]
    assert len(done.stdout.splitlines()) == len(wanted)
    assert all(line.startswith(start) for line, start in zip(done.stdout.splitlines(), wanted, strict=True))


# On disk.


@pytest.mark.parametrize("form", FORMS)
def test_an_index_survives_on_disk(models: dict[str, ReviewModel], saved: dict[str, Path], form: str, tmp_path: Path) -> None:
    reviewgen.load(saved[form]).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / FILE).read_bytes() == (saved[form] / FILE).read_bytes()
    model, before = reviewgen.load(tmp_path / "again"), models[form]
    assert isinstance(model._bundle.index, ExactIndex if form == "exact" else CompactIndex)
    for text in (TEXTS[3], MADE_UP, f"{MADE_UP} {TEXTS[3]}"):
        assert model.novelty(text) == before.novelty(text)
    given = {"novelty": "filter", "max_copy": 9, "seed": 4, "num_return_sequences": 4}
    assert model.generate(**given) == before.generate(**given) != before.generate(seed=4, num_return_sequences=4)


def test_the_index_of_another_model_is_an_error(saved: dict[str, Path], cache: Path, tmp_path: Path) -> None:
    folder, others = copy(saved["exact"], tmp_path / "m"), {}
    others["corpus"] = train_tiny("ngram-char", cache, [text.upper() for text in TEXTS], training={"novelty": "exact"})
    others["tokenizer"] = train_tiny("ngram-word", cache, training={"novelty": "exact"})
    for name, other in others.items():
        other.save_pretrained(tmp_path / name)
        (folder / FILE).write_bytes((tmp_path / name / FILE).read_bytes())
        with pytest.raises(BundleError, match="belongs to another model"):
            reviewgen.load(folder)


def test_a_damaged_index_is_an_error_and_so_is_using_a_missing_one(saved: dict[str, Path], tmp_path: Path) -> None:
    folder = copy(saved["exact"], tmp_path / "m")
    whole = (folder / FILE).read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"\xff" * 200):
        (folder / FILE).write_bytes(damaged)
        with pytest.raises(BundleError, match="novelty index"):
            reviewgen.load(folder)
    (folder / FILE).unlink()
    model = reviewgen.load(folder, accept_changes=True)
    assert model.generate(seed=1) == reviewgen.load(saved["exact"]).generate(seed=1)
    for ask in (lambda: model.novelty("the"), lambda: model.generate(novelty="report")):
        with pytest.raises(DataError, match="no index of its training text"):
            ask()
    model.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / FILE).exists()


def test_the_folder_records_copy_rates_and_what_the_index_reveals(saved: dict[str, Path]) -> None:
    cards = {form: (folder / "README.md").read_text(encoding="utf-8") for form, folder in saved.items()}
    facts = {form: json.loads((folder / "training.json").read_text(encoding="utf-8")) for form, folder in saved.items()}
    assert "membership tests" in cards["compact"] and "false-positive" in cards["compact"]
    assert "contains the whole training text" in cards["exact"] and "membership tests" not in cards["exact"]
    for form in FORMS:
        found = facts[form]["novelty"]
        assert found["form"] == form and 0 < found["token_copy_rate"] <= 1 and 0 < found["held_out_token_copy_rate"] <= 1
        assert [evaluation["token_copy_rate"] for evaluation in facts[form]["evaluations"]] == [found["token_copy_rate"]]
        assert f"Copy rate: {found['copy_rate']:.1%} of the characters" in cards[form] and "spans of 50 characters" in cards[form]
        assert f"{found['held_out_copy_rate']:.1%} of those of held-out reviews" in cards[form]
    assert set(facts["compact"]["novelty"]["false_positive_rates"]) == {"8", "12", "20"}
    assert facts["none"]["novelty"]["form"] == "none" and facts["none"]["novelty"]["token_copy_rate"] is None
    assert facts["none"]["evaluations"][0]["token_copy_rate"] is None
    assert "Copy rate: 0.0% of the characters" in cards["none"] and FILE not in cards["none"]


# The evaluator.

SCRIPTS = {
    "the best within the limit": ([(3.0, 0.2), (2.0, 0.9), (2.5, 0.4), (2.6, 0.1), (2.4, 0.5)], [0, 2, 4], False),
    "none within it": ([(3.0, 0.9), (2.0, 0.8), (1.0, 0.95), (0.5, 0.8)], [0, 1], True),
    "within it at last": ([(1.0, 0.9), (3.0, 0.3), (0.5, 0.6)], [0, 1], False),
    "no window to evaluator": ([(3.0, None), (4.0, 0.1), (2.0, 0.9)], [0], False),
    "not a number": ([(math.nan, 0.1), (2.0, 0.1), (math.nan, 0.0)], [1], False),
    "no distribution": ([(None, 0.9), (None, 0.1), (None, 0.05)], [0, 1], False),
}


def evaluated(monkeypatch: Any, index: Any, config: TrainingConfig, script: list[tuple[float | None, float | None]]) -> Any:
    """Return an evaluator after evaluations with these bits and copy rates, and which of them were the best."""

    def add_up(*_: Any) -> Totals:
        if bits[0] is None:
            raise NotADistribution("It has no bits.")
        return Totals(bits[0] * math.log(2), 1, 1, 1)

    bits: list[float | None] = [None]
    rates = iter([rate for _, rate in script])
    monkeypatch.setattr(evaluator, "add_up_documents", add_up)
    monkeypatch.setattr(ExactIndex, "token_copy_rate", lambda self, texts: next(rates))
    found, best = evaluator.Evaluator(LETTERS, [], config, index), []
    for number, (bits[0], rate) in enumerate(script):
        verdict = found.evaluate(QueueModel(LETTERS.encode("bad cafe"), LETTERS))
        assert verdict.sample == "bad cafe" and verdict.token_copy_rate == rate
        best += [number] if verdict.is_best else []
    return found, best


@pytest.mark.parametrize(("stride", "texts"), [(1, 16), (32, 16), (64, 32), (256, 128), (4096, 128)])
def test_more_text_is_generated_if_an_index_can_look_up_few_windows(
    stride: int, texts: int, monkeypatch: Any, models: dict[str, ReviewModel]
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(ExactIndex, "stride", stride)
    monkeypatch.setattr(ExactIndex, "token_copy_rate", lambda self, texts: seen.append(len(texts)))
    found = evaluator.Evaluator(LETTERS, [], TrainingConfig(), models["exact"]._bundle.index)
    monkeypatch.setattr(evaluator, "add_up_documents", lambda *_: Totals(1.0, 1, 1, 1))
    assert found.evaluate(QueueModel(LETTERS.encode("bad cafe"), LETTERS)).token_copy_rate is None
    assert seen == [texts]


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_weights_kept_under_a_copy_limit(name: str, monkeypatch: Any, models: dict[str, ReviewModel]) -> None:
    script, wanted, is_said = SCRIPTS[name]
    config, index = TrainingConfig(keep="best-under-copy", copy_limit=0.5), models["exact"]._bundle.index
    found, best = evaluated(monkeypatch, index, config, script)
    assert best == wanted
    assert found.best_token_copy_rate == script[best[-1]][1] and found.without_gain == len(script) - 1 - best[-1]
    assert len(found.notes()) == is_said
    assert not is_said or "copy_limit=0.5; the weights with the lowest, 0.800, are kept" in found.notes()[0]
    plain, best = evaluated(monkeypatch, index, TrainingConfig(), script)
    scores = [math.inf if bits is None else bits for bits, _ in script]
    assert best[-1] == min((n for n in range(len(scores)) if not math.isnan(scores[n])), key=lambda n: scores[n])
    assert plain.notes() == ()


def test_weights_within_the_copy_limit_are_kept(cache: Path) -> None:
    small = {"batch_size": 4, "bptt": 32, "precision": "no", "threads": 1, "learning_rate": 0.02, "evaluations": 8, "patience": 8}
    under = {"keep": "best-under-copy", "copy_limit": 0.02, "novelty": "exact", "copy_tokens": 400}
    model = {"hidden_size": 48, "embedding_size": 12, "layer": "fused"}
    model = train_tiny("gru-char", cache, steps=160, model=model, training=small | under)
    found = model.training["evaluations"]
    within = [each for each in found if (each["token_copy_rate"] or 0.0) <= 0.02]
    kept = [each for each in found if each["is_best"]][-1]
    assert kept == min(within, key=lambda each: each["bits_per_character"])
    assert kept["bits_per_character"] > min(each["bits_per_character"] for each in found) + 0.01
    assert model.training["novelty"]["token_copy_rate"] == kept["token_copy_rate"] and model.training["notes"] == []
    index = model._bundle.index
    assert index is not None
    plain = {"words": "any", "finish": "anywhere", "max_new_tokens": 100}
    texts = [model.tokenizer.encode(model.generate_one(seed=seed, **plain)) for seed in range(8)]
    assert (index.token_copy_rate([np.array(ids) for ids in texts]) or 0.0) < 0.1


def test_a_limit_that_cannot_be_met_is_reported(cache: Path) -> None:
    model = train_tiny("ngram-char", cache, training={"keep": "best-under-copy", "copy_limit": 0.0})
    assert any("No evaluation had a token copy rate within training.copy_limit=0" in note for note in model.training["notes"])
    for wrong in ({"novelty": "none"}, {"copy_tokens": 0}):
        with pytest.raises(ConfigError, match="needs a token copy rate"):
            train_tiny("ngram-char", cache, training={"keep": "best-under-copy", **wrong})
    model = train_tiny("ngram-char", cache, training={"copy_tokens": 0})
    assert model.training["novelty"]["copy_rate"] is None and model.training["evaluations"][0]["token_copy_rate"] is None
    assert "Copy rate" not in model._bundle.card and "membership tests" in model._bundle.card


def test_a_model_that_is_not_a_distribution_completes_its_training(cache: Path, tmp_path: Path) -> None:
    train_tiny("ngram-char", cache, model={"smoothing": "stupid-backoff"}, out=tmp_path / "m")
    model = reviewgen.load(tmp_path / "m")
    assert model.training["held_out"] is None and "bits_per_character" not in model.training["evaluations"][0]
    assert model.training["novelty"]["token_copy_rate"] > 0 and "Not evaluated" in model._bundle.card
    assert model.generate_one("the ", seed=1).startswith("the ")
    for measure in (lambda: model.evaluate(TEXTS), lambda: model.score("the")):
        with pytest.raises(NotADistribution, match="no bits per character") as caught:
            measure()
        assert len(str(caught.value).splitlines()) == 1


# The commands.


def test_the_commands_print_the_results_of_the_api(saved: dict[str, Path], monkeypatch: Any, capsys: Any) -> None:
    model, text = reviewgen.load(saved["exact"]), f"{MADE_UP} {TEXTS[3]}"
    status, out, _ = run_command(monkeypatch, capsys, "novelty", saved["exact"], "--text", text, "--json")
    found, wanted = json.loads(out), model.novelty(text)
    assert status == 0 and found["longest_tokens"] == wanted.longest_tokens and len(found["spans"]) == len(wanted.spans)
    assert found["windows"] == {str(length): share for length, share in wanted.windows.items()}
    _, out, _ = run_command(monkeypatch, capsys, "novelty", saved["exact"], "--text", text)
    assert out.splitlines()[: len(wanted.describe())] == wanted.describe()
    words = ("generate", saved["exact"], "-n", 2, "--seed", 3, "--novelty")
    for more in ({"novelty": "report"}, {"novelty": "filter", "max_copy": 9}):
        flags = [more["novelty"], *(["--max-copy", 9] if "max_copy" in more else [])]
        texts = model.generate(num_return_sequences=2, seed=3, **more)
        _, out, err = run_command(monkeypatch, capsys, *words, *flags)
        assert out == "\n---\n".join(texts) + "\n"
        assert err.count("longest copied span") == 2
        found = json.loads(run_command(monkeypatch, capsys, *words, *flags, "--json")[1])
        assert found["texts"] == texts
        for facts, each in zip(found["novelty"], texts, strict=True):
            assert isinstance(each, GeneratedText)
            assert (facts["longest_tokens"], facts["exceeds_max_copy"]) == (each.novelty.longest_tokens, each.exceeds_max_copy)


def test_errors_of_the_commands_are_one_sentence(saved: dict[str, Path], monkeypatch: Any, capsys: Any) -> None:
    for words, wanted in (
        (["generate", saved["exact"], "--novelty", "x"], 2),
        (["generate", saved["exact"], "--max-copy", "3"], 2),
        (["generate", saved["compact"], "--novelty", "filter", "--max-copy", "3"], 2),
        (["generate", saved["none"], "--novelty", "report", "--json"], 1),
        (["novelty", saved["none"], "--text", "a"], 1),
    ):
        status, out, err = run_command(monkeypatch, capsys, *words)
        assert (status, out) == (wanted, "") and err.startswith("error: ") and len(err.splitlines()) == 1
