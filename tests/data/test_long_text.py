"""One long text: its parts are the text, held-out blocks are spread over it, and every command
finds the same ones again.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reviewgen
from reviewgen.data.open import SPLITS
from reviewgen.errors import ConfigError
from tests.support.models import NGRAM, SMALL
from tests.support.texts import corpus_of, write
from tests.support.trainings import ready


def play(characters, seed=0):
    """Return paragraphs of invented speeches."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))) for _ in range(2_000)]
    text = ""
    while len(text) < characters:
        lines = "\n".join(" ".join(rng.choices(words, k=7)) for _ in range(rng.randint(1, 4)))
        text += f"{rng.choice(words).upper()}:\n{lines}\n\n"
    return text[:characters]


PLAY = play(60_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("long")


@pytest.fixture(scope="module")
def file(folder):
    return write(folder / "play.txt", PLAY)


def read(folder, *contents, name="a.txt"):
    """Read a file as one long text, perhaps with a second one for validation."""
    files = [write(folder / f"{number}-{name}", content) for number, content in enumerate(contents)]
    return corpus_of(*files, documents="file")


@pytest.mark.slow
@given(st.text("ab \n\r😀\u0301", min_size=1, max_size=60), st.integers(500, 5000))
@settings(max_examples=40)
def test_the_parts_joined_are_the_text(folder, piece, characters):
    text = (piece * characters)[:characters].replace("\r", "")
    if len(text) < 500 or not text.strip():
        return
    cut = corpus_of(write(folder / "parts.txt", text), documents="file", clean=False)
    assert "".join(cut.texts) == text and all(cut.texts) and len(cut.texts) % 4 == 1
    assert cut.splits == [
        *["train", "validation", "train", "test"] * (len(cut.texts) // 4),
        "train",
    ]


def test_a_long_file_becomes_training_texts_with_held_out_blocks_between_them(tmp_path):
    cut = read(tmp_path, PLAY)
    assert "".join(cut.texts) == PLAY and cut.method == "blocks"
    assert cut.splits == [*["train", "validation", "train", "test"] * 6, "train"]
    train = "\0".join(cut.of("train"))
    held_out = cut.of("validation") + cut.of("test")
    assert not any(part in train for part in held_out)
    assert (cut.report.read, cut.report.kept, cut.report.characters) == (1, 1, len(PLAY))


def test_the_fingerprint_of_a_long_file_is_that_of_its_text(tmp_path):
    cut = read(tmp_path, PLAY)
    again = read(tmp_path, PLAY)
    packed = read(tmp_path, PLAY, name="b.txt.gz")
    assert again.texts == cut.texts and again.fingerprint == cut.fingerprint == packed.fingerprint
    assert read(tmp_path, PLAY[:-1]).fingerprint != cut.fingerprint


def test_a_validation_file_is_held_out_and_the_whole_first_one_trained_on(tmp_path):
    long = play(100_000, 1)
    held_out = play(60_000, 2)
    cut = read(tmp_path, long, held_out)
    assert "".join(cut.of("train")) == long and "".join(cut.of("validation")) == held_out
    assert all(part.startswith("\n\n") for part in cut.of("train")[1:])
    assert [len(cut.of(split)) for split in SPLITS] == [7, 4, 0] and cut.method == "source"
    assert all(4_000 < len(part) < 24_600 for part in cut.texts)
    assert read(tmp_path, "short but enough", "held out too").of("train") == ["short but enough"]


# Commands.


@pytest.fixture(scope="module")
def model(file):
    return reviewgen.train("ngram-char", file, documents="file", **NGRAM)


def test_evaluate_finds_the_blocks_of_the_training(model, file):
    held_out = model.training["held_out"]
    result = model.evaluate(file, documents="file", split="test")
    assert result.bits_per_character == pytest.approx(held_out["bits_per_character"], rel=1e-6)
    assert (result.reviews, result.characters) == (6, held_out["characters"])
    blocks = corpus_of(file, documents="file").of("test")
    assert model.evaluate(blocks, clean=False).bits_per_character == pytest.approx(
        result.bits_per_character, rel=1e-6
    )


def test_evaluate_measures_a_whole_file_as_score_does(model, file):
    whole = model.evaluate(file, documents="file")
    assert (whole.reviews, whole.characters) == (1, len(PLAY))
    assert whole.bits_per_character == pytest.approx(model.score(PLAY).bits_per_character, rel=1e-5)


def test_a_test_split_is_that_of_the_training(model, file):
    with pytest.raises(ConfigError, match="trained with documents='file'; use the same"):
        model.evaluate(file, split="test")
    by_line = reviewgen.train("ngram-char", file, **NGRAM)
    assert by_line.training["data"]["split"] == {
        "method": "hash",
        "words": "texts chosen by a hash of each",
    }
    with pytest.raises(ConfigError, match="trained with documents='line'; use the same"):
        by_line.evaluate(file, documents="file", split="test")
    assert by_line.evaluate(file, documents="paragraph", split="test").reviews > 6


def test_a_network_is_trained_on_the_parts_as_one_stream(file):
    run = ready("gru-char", file, documents="file", **SMALL)
    store = run.corpus.stores["train"]
    tokenizer = run.corpus.tokenizer
    parts = [store.document(number).tolist() for number in range(len(store))]
    assert [tokenizer.decode(ids[1:-1]) for ids in parts] == corpus_of(file, documents="file").of(
        "train"
    )
    assert all(
        tokenizer.bos_id not in ids[1:] and tokenizer.eos_id not in ids[:-1] for ids in parts
    )
    list(run)
    assert run.finish().novelty(PLAY[:300]).longest_text == PLAY[:300]
