"""One long text: its parts are the text, held-out blocks are spread over it, and every command finds the same ones again."""

import gzip
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reviewgen
from reviewgen.bundle.write import write_bundle
from reviewgen.data import SPLITS, DataConfig, gather
from reviewgen.data.long_text import SPLIT_CYCLE, cut_text, divide_text
from reviewgen.errors import ConfigError, DataError
from tests.support.fakes import GRU, NGRAM, run_command

ONE_TEXT = DataConfig(documents="file")


def play(characters, seed=0):
    """Return paragraphs of invented speeches."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(2_000)]
    text = ""
    while len(text) < characters:
        lines = "\n".join(" ".join(rng.choices(words, k=7)) for _ in range(rng.randint(1, 4)))
        text += f"{rng.choice(words).upper()}:\n{lines}\n\n"
    return text[:characters]


@pytest.fixture(scope="module")
def text():
    return play(120_000)


@pytest.fixture
def corpus_of(tmp_path):
    """Gather a corpus from bytes or texts of one or two files."""
    numbers = iter(range(100))

    def gather_files(*contents, name="play.txt", config=ONE_TEXT):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        files = [folder / f"{number}-{name}" for number in range(len(contents))]
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        (folder / "work").mkdir()
        return gather(files[0], folder / "work", config, *files[1:])

    return gather_files


def rejoin(corpus):
    """Return the parts of a corpus in the order of the text, each with its split, by the order within each split."""
    parts = {split: list(corpus.texts(split)) for split in SPLITS}
    return [(parts[SPLITS[code]].pop(0), SPLITS[code]) for code in corpus.splits]


@given(st.text("ab \n\r😀\u0301", min_size=1, max_size=60), st.integers(500, 5000), st.floats(0.01, 0.2))
@settings(max_examples=100, deadline=None)
def test_the_parts_joined_are_the_text(piece, characters, held_out):
    text = (piece * characters)[:characters]
    parts = cut_text(text, held_out)
    assert "".join(parts) == text and all(parts) and len(parts) % 4 == 1


@given(st.text("ab \n", min_size=1, max_size=60), st.integers(1, 100_000))
@settings(max_examples=100, deadline=None)
def test_blocks_joined_are_the_text(piece, characters):
    text = (piece * characters)[:characters]
    blocks = divide_text(text)
    assert "".join(blocks) == text
    assert len(blocks) == 1 or all(4_000 < len(block) < 24_600 for block in blocks)


@pytest.mark.parametrize("characters", [500, 7_000, 60_000, 300_000, 12_000_000])
def test_held_out_blocks_are_spread_and_have_the_usual_shares(characters):
    text = ("x" * 40 + "\n") * (characters // 41 + 1)
    parts = cut_text(text, 0.05)
    splits = [SPLIT_CYCLE[number % 4] for number in range(len(parts))]
    middles = {split: [] for split in SPLITS}
    shares = dict.fromkeys(SPLITS, 0.0)
    start = 0
    for part, split in zip(parts, splits, strict=True):
        middles[split].append((start + len(part) / 2) / len(text))
        shares[split] += len(part) / len(text)
        start += len(part)
    assert shares["validation"] == pytest.approx(0.05, rel=0.5 if characters < 100_000 else 0.05)
    assert shares["test"] == pytest.approx(0.05, rel=0.5 if characters < 100_000 else 0.05)
    longest = max(len(part) for part, split in zip(parts, splits, strict=True) if split != "train")
    assert longest <= 1.5 * max(16_384, characters / 20)
    if characters >= 300_000:
        assert len(middles["validation"]) == len(middles["test"]) >= 16
        for split in ("validation", "test"):
            assert {int(middle * 3) for middle in middles[split]} == {0, 1, 2}
            gaps = [after - before for before, after in zip(middles[split], middles[split][1:], strict=False)]
            assert max(gaps) < 1.5 * min(gaps)


def test_parts_begin_with_a_blank_line_else_a_line_end_else_a_space(text):
    assert all(part.startswith("\n\n") and part[2].isupper() for part in cut_text(text, 0.05)[1:])
    lines, words = re.sub(r"\n+", "\n", text), re.sub(r"\s+", " ", text)
    assert all(part.startswith("\n") for part in cut_text(lines, 0.05)[1:])
    assert all(part.startswith(" ") for part in cut_text(words, 0.05)[1:])
    assert "".join(cut_text("é" * 9_000, 0.05)) == "é" * 9_000


def test_a_long_file_becomes_training_texts_with_held_out_blocks_between_them(corpus_of, text):
    corpus = corpus_of(text)
    parts = rejoin(corpus)
    assert "".join(part for part, _ in parts) == text
    assert [split for _, split in parts] == ["train", "validation", "train", "test"] * 12 + ["train"]
    train = "\0".join(corpus.texts("train"))
    assert not any(part in train for part, split in parts if split != "train")
    assert (corpus.report.read, corpus.report.kept, corpus.report.characters) == (1, 1, len(text))
    again, other = corpus_of(text), corpus_of(text[:-1])
    assert rejoin(again) == parts and again.fingerprint == corpus.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one\r\ntwo\r\n\r\n" * 800, "one\ntwo\n\n" * 800),
        (b"no line end here " * 800, None),
        (b"a" * 20_000, None),
        ("😀👩‍👩‍👧 ดี é\n".encode() * 900, None),
        (b"caf\xc3\xa9, bad \xff byte\n" * 900, "café, bad \ufffd byte\n" * 900),
        (b"\xef\xbb\xbf" + b"marked\n" * 900, "marked\n" * 900),
        (b"fish &amp; chips<br />\n" * 500, "fish & chips\n\n" * 500),
    ],
)
def test_line_ends_symbols_and_damage(corpus_of, content, expected):
    parts = rejoin(corpus_of(content))
    assert "".join(part for part, _ in parts) == (content.decode() if expected is None else expected)
    assert {split for _, split in parts} == set(SPLITS)


def test_a_gzipped_file_gives_the_same_corpus(corpus_of, text):
    assert corpus_of(gzip.compress(text.encode()), name="play.txt.gz").fingerprint == corpus_of(text).fingerprint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n \n", "No reviews are left"),
        (b"To be, or not to be.", "one text, of 20 characters; to hold out parts of it, it needs at least 500"),
    ],
)
def test_a_file_that_cannot_be_split_gets_one_sentence(corpus_of, content, words):
    with pytest.raises(DataError, match=words):
        corpus_of(content)


def test_several_files_are_texts_as_before(tmp_path, text):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(text[number * 1000 : number * 1000 + 1000])
    (tmp_path / "work").mkdir()
    corpus = gather(str(tmp_path / "*.txt"), tmp_path / "work", ONE_TEXT)
    assert (corpus.split_method, len(corpus.splits)) == ("hash", 30)


def test_a_validation_file_is_held_out_and_the_whole_first_one_trained_on(corpus_of, text):
    corpus = corpus_of(text[:100_000], text[100_000:] * 3)
    assert "".join(corpus.texts("train")) == text[:100_000]
    assert all(part.startswith("\n\n") for part in list(corpus.texts("train"))[1:])
    assert "".join(corpus.texts("validation")) == text[100_000:] * 3
    assert [corpus.count(split) for split in SPLITS] == [7, 4, 0]
    assert corpus.split_method == "source"
    assert list(corpus_of("short but enough", "held out too").texts("train")) == ["short but enough"]


@pytest.fixture(scope="module")
def file(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("long") / "play.txt"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def model(file):
    return reviewgen.train("ngram-char", file, documents="file", **NGRAM)


def test_what_is_trained_on_and_held_out_stands_in_the_record_and_the_card(model, file, tmp_path):
    data = model.training["data"]
    assert data["reviews"] == {"train": 25, "validation": 12, "test": 12}
    assert data["split"]["method"] == "blocks"
    assert data["split"]["words"].startswith("24 blocks of about 500 characters, spread evenly over one text, each between two")
    write_bundle(model.bundle, tmp_path / "m")
    assert f"- Held out: {data['split']['words']}\n" in (tmp_path / "m" / "README.md").read_text()
    plain = reviewgen.train("ngram-char", file, documents="paragraph", **NGRAM).training["data"]["split"]
    assert plain == {"method": "hash", "words": "texts chosen by a hash of each"}
    second = reviewgen.train("ngram-char", file, documents="file", validation=file, **NGRAM).training["data"]["split"]
    assert second == {"method": "source", "words": "a separate source"}


def test_evaluate_finds_the_blocks_of_the_training(model, file, text):
    held_out = model.training["held_out"]
    result = model.evaluate(file, documents="file", split="test")
    assert result.bits_per_character == pytest.approx(held_out["bits_per_character"], rel=1e-6)
    assert (result.reviews, result.characters) == (12, held_out["characters"])
    blocks = cut_text(text, 0.05)[3::4]  # by the rule, not by gather
    assert model.evaluate(blocks).bits_per_character == pytest.approx(result.bits_per_character, rel=1e-6)
    whole = model.evaluate(file, documents="file")
    assert (whole.reviews, whole.characters) == (1, len(text))
    assert whole.bits_per_character == pytest.approx(model.score(text).bits_per_character, rel=1e-5)


def test_another_way_of_cutting_the_file_has_another_split(model, file):
    with pytest.raises(ConfigError, match="trained with documents='file'; use the same"):
        model.evaluate(file, split="test")
    by_line = reviewgen.train("ngram-char", file, **NGRAM)
    with pytest.raises(ConfigError, match="trained with documents='line'; use the same"):
        by_line.evaluate(file, documents="file", split="test")
    assert by_line.evaluate(file, documents="paragraph", split="test").reviews > 12


def test_a_model_of_other_texts_is_evaluated_on_the_blocks_and_trained_on_the_rest(file):
    reviews = [f"The food was {number}." for number in range(60)]
    other = reviewgen.train("gru-char", reviews, steps=2, **GRU)
    before = other.evaluate(file, documents="file", split="test")
    assert before.reviews == 12
    tuned = reviewgen.train(other, file, documents="file", steps=2)
    after = tuned.evaluate(file, documents="file", split="test")
    assert after.bits_per_character == pytest.approx(tuned.training["held_out"]["bits_per_character"], rel=1e-4)


def test_a_network_is_trained_on_the_parts_as_one_stream(file, text):
    run = reviewgen.TrainingRun("gru-char", file, documents="file", steps=4, **GRU)
    run.read()
    run.tokenize()
    store, tokenizer = run.stores["train"], run.tokenizer
    parts = [store.document(number).tolist() for number in range(len(store))]
    assert [tokenizer.decode(ids[1:-1]) for ids in parts] == cut_text(text, 0.05)[::2]
    assert all(tokenizer.bos_id not in ids[1:] and tokenizer.eos_id not in ids[:-1] for ids in parts)
    for _ in run:
        pass
    model = run.finish()
    assert model.generate_one("", seed=1, max_new_tokens=20)
    assert model.novelty(text[:300]).longest_text == text[:300]


def test_sweep_tune_and_blend_read_one_long_text(model, file):
    rows = list(reviewgen.sweep("ngram-char", file, "model.order", [2, 4], documents="file", steps=1))
    assert len(rows) == 2
    assert rows[1].held_out_bits == pytest.approx(
        model.evaluate(file, documents="file", split="test").bits_per_character, rel=1e-6
    )
    trials = list(reviewgen.tune("ngram-char", file, trials=1, search={"model.order": [3]}, documents="file", steps=1))
    assert len(trials) == 1
    blend = reviewgen.blend([model, model], data=file, documents="file", split="validation")
    assert blend.training["weights"]["characters"] == sum(map(len, cut_text(file.read_text(), 0.05)[1::4]))


def test_the_command_says_how_text_is_held_out(monkeypatch, capsys, file, tmp_path):
    words = ("train", "ngram-char", "--data", file, "--documents", "file", "--out", tmp_path / "m", "--steps", 1)
    status, _, said = run_command(monkeypatch, capsys, *words)
    assert status == 0
    assert "Split: train 25, validation 12, test 12. Held out: 24 blocks of about 500 characters, spread evenly" in " ".join(
        said.split()
    )
    facts = json.loads((tmp_path / "m" / "training.json").read_text())
    status, out, _ = run_command(
        monkeypatch, capsys, "evaluate", tmp_path / "m", "--data", file, "--documents", "file", "--split", "test", "--json"
    )
    assert status == 0
    assert json.loads(out)["bits_per_character"] == pytest.approx(facts["held_out"]["bits_per_character"], rel=1e-6)
