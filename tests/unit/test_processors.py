"""Logits processors by name: found, called, saved, replayed, and what goes wrong in them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import reviewgen
from reviewgen.bundle import read_bundle
from reviewgen.config import GenerationConfig
from reviewgen.errors import BrokenPlugin, ConfigError, GenerationError, PluginConflict, UnknownPlugin
from reviewgen.model import ReviewModel
from reviewgen.receipts import make_receipt, replay
from tests.support.fakes import LETTERS, TEXTS, TableModel, review_model, run_command, table
from tests.unit.test_registry import Install, install, untouched_registry

__all__ = ["install", "untouched_registry"]  # fixtures

V = LETTERS.vocab_size
CODE = """
import torch

class NoVowels:
    def __init__(self, tokenizer):
        texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.banned = [token for token, text in enumerate(texts) if set(text) & set("aeiou")]

    def __call__(self, ids, scores):
        scores[:, self.banned] = -torch.inf
        return scores

def add_e(tokenizer):
    (token,) = tokenizer.encode("e")
    def process(ids, scores):
        scores = scores.clone()
        scores[:, token] = scores.max() + 50
        return scores
    return process

def raises(tokenizer): raise ValueError("no such tokenizer")
def returns_text(tokenizer): return "not a function"
def nan(tokenizer): return lambda ids, scores: scores * torch.nan
def narrow(tokenizer): return lambda ids, scores: scores[:, 1:]
def fails(tokenizer): return lambda ids, scores: scores[7]
def nothing(tokenizer): return lambda ids, scores: torch.full_like(scores, -torch.inf)
def array(tokenizer): return lambda ids, scores: scores.numpy()
"""
NAMES = {
    "no-vowels": "NoVowels", "add-e": "add_e", "raises": "raises", "returns-text": "returns_text", "nan": "nan",
    "narrow": "narrow", "fails": "fails", "nothing": "nothing", "array": "array", "gone": "not_there",
}  # fmt: skip


@pytest.fixture(autouse=True)
def filters(install: Install) -> None:
    """Install a package of processors, good and bad."""
    points = {"logits_processors": {name: f"fake_filters:{value}" for name, value in NAMES.items()}}
    install("reviewgen-filters", points, {"fake_filters": CODE})


@pytest.fixture
def model() -> ReviewModel:
    return review_model(TableModel(table(V, 2, eos=-3.0)), LETTERS)


def count(texts: list[str], letters: str) -> int:
    return sum(text.count(letter) for text in texts for letter in letters)


def test_a_forbidden_token_is_never_generated(model: ReviewModel) -> None:
    given: dict[str, Any] = {"num_return_sequences": 200, "seed": 1}
    assert count(model.generate(**given), "ae") > 200
    texts = model.generate(**given, logits_processor="no-vowels")
    assert count(texts, "bcdfgh") > 200
    assert count(texts, "ae") == 0


def test_a_text_is_the_same_alone_and_in_a_batch(model: ReviewModel) -> None:
    given: dict[str, Any] = {"seed": 3, "logits_processor": "no-vowels", "num_return_sequences": 6}
    batch = model.generate(["b", "bad cafe"], **given)
    assert [next(iter(model.generate_each(["b", "bad cafe"], first=n, **given))).text for n in range(12)] == batch
    assert next(iter(model.stream("b", seed=3, logits_processor="no-vowels"))) == "b"
    assert "".join(model.stream("b", seed=3, logits_processor="no-vowels")) == batch[0]


def test_names_and_functions_are_called_in_order(model: ReviewModel) -> None:
    seen: list[bool] = []
    e = LETTERS.encode("e")[0]

    def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(bool(scores[0].argmax() == e))
        return scores

    (output,) = model.generate(max_new_tokens=5, logits_processor=[watch, "add-e", watch], seed=1, return_dict_in_generate=True)
    assert output.text == "eeeee"
    assert all(seen[1::2])
    assert not all(seen[::2])
    assert output.request.config.logits_processors == ("add-e",)


def test_beams_are_found_among_what_processors_leave(model: ReviewModel) -> None:
    given: dict[str, Any] = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 12}
    assert count(model.generate(**given), "ae")
    assert count(model.generate(**given, logits_processor="no-vowels"), "ae") == 0


def test_saved_names_are_used_and_replaced(tmp_path: Path) -> None:
    trained = reviewgen.train("ngram-char", TEXTS, progress=False)
    trained.save_pretrained(tmp_path / "m")
    model = reviewgen.load(tmp_path / "m")
    model.save_generation_config(tmp_path / "m", logits_processors=["no-vowels"])
    assert json.loads((tmp_path / "m" / "generation_config.json").read_text())["logits_processors"] == ["no-vowels"]
    saved = reviewgen.load(tmp_path / "m")
    given: dict[str, Any] = {"seed": 1, "num_return_sequences": 20, "words": "any", "max_new_tokens": 40}
    texts = saved.generate(**given)
    assert count(texts, "aeiou") == 0 < count(texts, "tdsm")
    assert texts == model.generate(**given, logits_processor=["no-vowels"])
    for off in ({"logits_processors": []}, {"logits_processor": []}):
        assert saved.generate(**given, **off) == model.generate(**given)
    assert count(saved.generate(**given, logits_processor="add-e"), "e") > 100


def test_a_receipt_records_the_names_and_is_replayed(model: ReviewModel) -> None:
    given: dict[str, Any] = {"num_return_sequences": 3, "return_dict_in_generate": True}
    texts = model.generate("b", seed=5, logits_processor="no-vowels", **given)
    receipt = json.loads(json.dumps(make_receipt(model, texts[2])))
    assert receipt["settings"]["generation_config"]["logits_processors"] == ["no-vowels"]
    assert receipt["versions"]["reviewgen-filters"] == "1.2.3"
    assert replay(receipt, model).is_equal
    receipt["settings"]["generation_config"]["logits_processors"] = []
    assert not replay(receipt, model).is_equal
    receipt["versions"]["reviewgen-filters"] = "1.0"
    receipt["settings"]["generation_config"]["logits_processors"] = ["no-vowels"]
    result = replay(receipt, model)
    assert result.is_equal
    assert any("reviewgen-filters is 1.2.3" in line for line in result.differences)
    mixed = model.generate(logits_processor=["no-vowels", lambda ids, scores: scores], **given)
    with pytest.raises(ConfigError, match="functions cannot be saved"):
        make_receipt(model, mixed[0])


def test_the_next_tokens_of_a_walk_are_those_that_are_left(model: ReviewModel) -> None:
    plain = {each.text: each.probability for each in model.walk("b").next_tokens(V).alternatives}
    left = {each.text: each.probability for each in model.walk("b", logits_processor="no-vowels").next_tokens(V).alternatives}
    kept = {text: probability for text, probability in plain.items() if text not in {"a", "e"}}
    assert left == pytest.approx({text: value / sum(kept.values()) for text, value in kept.items()}, rel=1e-5)
    walk = model.walk("b", logits_processor="no-vowels", seed=1)
    walk.draw(60)
    assert count([walk.text], "ae") == 0


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("no-vowel", UnknownPlugin, ["logits processor 'no-vowel'", "Did you mean 'no-vowels'"]),
        ("raises", BrokenPlugin, ["'raises' of reviewgen-filters 1.2.3", "ValueError: no such tokenizer"]),
        ("returns-text", BrokenPlugin, ["function of ids and scores", "returned str"]),
        ("gone", BrokenPlugin, ["'gone'", "reviewgen-filters", "not_there"]),
        ("nan", GenerationError, ["'nan' of reviewgen-filters", "NaN"]),
        ("narrow", GenerationError, ["'narrow' of reviewgen-filters", f"shape (1, {V})", f"(1, {V - 1})"]),
        ("array", GenerationError, ["'array' of reviewgen-filters", "returned ndarray"]),
        ("fails", GenerationError, ["'fails' of reviewgen-filters", "after 2 tokens", "IndexError"]),
        ("nothing", GenerationError, ["rule out every token after 2 tokens"]),
        ("No Vowels", ConfigError, ["'No Vowels' is not one"]),
        ("../filters.py", ConfigError, ["'../filters.py' is not one"]),
        (["add-e", "add-e"], ConfigError, ["'add-e' twice"]),
        (7, ConfigError, ["got 7"]),
        ([b"add-e"], ConfigError, ["b'add-e'"]),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(model: ReviewModel, name: Any, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as problem:
        model.generate("ba", logits_processor=name)
    assert len(str(problem.value)) < 500
    assert str(problem.value).count("\n") == 0
    for word in words:
        assert word in str(problem.value)


def test_two_packages_of_one_name(model: ReviewModel, install: Install) -> None:
    install("reviewgen-others", {"logits_processors": {"no-vowels": "fake_others:Other"}}, {"fake_others": "Other = None"})
    with pytest.raises(PluginConflict, match=r"reviewgen-filters and reviewgen-others provide the logits processor"):
        model.generate(logits_processor="no-vowels")
    assert model.generate_one(logits_processor="add-e", max_new_tokens=2) == "ee"


def test_both_names_of_the_argument_are_refused(model: ReviewModel) -> None:
    with pytest.raises(ConfigError, match="both given"):
        model.generate(logits_processor="add-e", logits_processors=["add-e"])


@pytest.mark.parametrize("name", ["acme-shouting:shout", "shout"])
def test_a_saved_name_that_is_not_installed(name: str) -> None:
    model = review_model(TableModel(table(V)), LETTERS, logits_processors=(name,))
    with pytest.raises(UnknownPlugin, match="names the logits processor 'shout', which is not installed") as problem:
        model.generate()
    assert ("pip install acme-shouting" in str(problem.value)) == (name != "shout")
    assert "logits_processors=[]" in str(problem.value)
    assert model.generate(logits_processors=[], max_new_tokens=3)


@pytest.mark.parametrize("names", ["add-e", ["Add"], ["a" * 101], ["x", "x"], ["os.path:join/x"], [3], [""]])
def test_a_saved_folder_has_plain_names_only(tmp_path: Path, names: Any) -> None:
    reviewgen.train("ngram-char", TEXTS[:9], progress=False).save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"logits_processors": names}))
    with pytest.raises(reviewgen.errors.BundleError, match="logits_processors"):
        reviewgen.load(tmp_path / "m")


def test_code_in_a_downloaded_folder_is_not_run(tmp_path: Path) -> None:
    """A module and an entry point that lie in the folder of a model are not looked at."""
    reviewgen.train("ngram-char", TEXTS[:9], progress=False).save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"logits_processors": ["evil"]}))
    (tmp_path / "m" / "evil.py").write_text("raise SystemExit('was run')")
    info = tmp_path / "m" / "evil-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[reviewgen.logits_processors]\nevil = evil:make\n")
    (info / "METADATA").write_text("Name: evil\nVersion: 1\n")
    model = ReviewModel(read_bundle(tmp_path / "m", strict=False, accept_changes=True))
    with pytest.raises(UnknownPlugin, match="not installed"):
        model.generate()
    assert "evil" not in sys.modules


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reviewgen.train("ngram-char", TEXTS, progress=False).save_pretrained(tmp_path / "m")
    words = ["generate", str(tmp_path / "m"), "-n", "20", "--seed", "1", "--words", "any"]
    receipts = ["--logits-processor", "no-vowels", "--receipt", str(tmp_path / "r.jsonl")]
    assert count([run_command(monkeypatch, capsys, *words)[1]], "aeiou") > 100
    status, texts, _ = run_command(monkeypatch, capsys, *words, *receipts)
    assert (status, count([texts], "aeiou")) == (0, 0)
    assert run_command(monkeypatch, capsys, "replay", str(tmp_path / "r.jsonl"))[0] == 0
    status, shown, _ = run_command(
        monkeypatch, capsys, "play", str(tmp_path / "m"), "--logits-processor", "no-vowels", "-k", "99", "--json"
    )
    assert status == 0
    assert not {"a", "e", "o"} & {each["text"] for each in json.loads(shown)["alternatives"]}
    status, _, error = run_command(monkeypatch, capsys, *words, "--logits-processor", "no-vowel")
    assert (status, "Did you mean 'no-vowels'" in error) == (1, True)
    assert "Traceback" not in error
    listed = json.loads(run_command(monkeypatch, capsys, "list", "--json")[1])
    assert "no-vowels" in {each["name"] for each in listed["logits_processors"]}


def test_names_of_a_config() -> None:
    assert GenerationConfig(logits_processors=("no-digits", "reviewgen-filters:shout")).logits_processors[0] == "no-digits"
