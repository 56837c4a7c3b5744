"""Known words: the automaton against a set of strings, texts of every model, and what a user asks of ``words``."""

import json
import random
import re
from collections import Counter

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_word.tokenizer import WordConfig, WordTokenizer
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.compiled.sampling import Constraints
from reviewgen.compiled.spelling import HALF, follow_all, mark_spelled, start_of_text
from reviewgen.config import GenerationConfig
from reviewgen.errors import BrokenPlugin, BundleError, ConfigError, DataError
from reviewgen.generation.decode import make_sampling_params
from reviewgen.lexicon import (
    Lexicon,
    WordCounts,
    build_lexicon,
    decoding,
    make_spelling,
    read_lexicon,
    token_symbols,
    unknown_word_share,
    words,
    words_of,
    write_lexicon,
)
from reviewgen.lexicon.automaton import minimal_automaton, utf8_automaton
from tests.support.fakes import LETTERS, TableModel, review_model, table

DRAW = random.Random(3)
WORDS = ("the", "a", "don't", "naïve", "café", "movie", "movies", "moving", "was", "were", "good", "goods", "rock's", "Über")
SEPARATORS = " .,!\n'—🙂3"
VOCABULARY = ["the", "a", "movie", "movies", "was", "café", "don't", "good", "so"]
REVIEWS = [" ".join(DRAW.choices(VOCABULARY, k=12)) + "." for _ in range(120)]
TOKENIZERS = {
    "char": CharTokenizer.train(["".join(WORDS) + SEPARATORS + "xyz"], CharTokenizer.Config()),
    "word": WordTokenizer.train([" ".join(WORDS) + SEPARATORS] * 30, WordConfig(vocab_size=330)),
}


def lexicon() -> Lexicon:
    counts = WordCounts()
    counts.add(f"{' '.join(WORDS)} {SEPARATORS}")
    return Lexicon.of(counts.words, counts.separators)


def is_spelled(text: str) -> bool:
    """Whether a text is made of known words and separators, by regular expression."""
    known = {word for entry in WORDS for word in words_of(entry)}
    return all(word in known for word in words_of(text)) and all(c in SEPARATORS or re.match(r"[^\W\d_]", c) for c in text)


# --- words and automata


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't say 'no'.", ["Don't", "say", "no"]),
        ("rock’n’roll — naïve?", ["rock’n’roll", "naïve"]),
        ("mp3 2nd x_y", ["mp", "nd", "x", "y"]),
        ("e\u0301te\u0301 हिन्दी", ["e\u0301te\u0301", "हिन्दी"]),
        ("", []),
        ("12 !? '", []),
    ],
)
def test_words_are_runs_of_letters_with_their_marks(text, expected):
    assert words_of(text) == expected


@settings(max_examples=200, deadline=None)
@given(st.sets(st.binary(max_size=6), max_size=40))
def test_a_minimal_automaton_accepts_its_strings_and_no_others(strings):
    automaton = minimal_automaton(strings)
    assert list(automaton.strings()) == sorted(strings)


def test_it_is_the_smallest():
    """Endings are shared: of ten beginnings and four endings, there are as many nodes as of one beginning."""
    strings = [f"{letter}walk{ending}".encode() for letter in "abcdefghij" for ending in ("", "s", "ed", "ing")]
    assert len(minimal_automaton(strings).nodes) == len(minimal_automaton(strings[:4]).nodes) + 9  # nine more edges


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=5))
def test_the_automaton_of_utf_8_is_python_s_decoder(raw):
    automaton, node = utf8_automaton(), utf8_automaton().root
    for byte in raw:
        node = dict(automaton.edges(node)).get(byte, 0)
    try:
        raw.decode()
    except UnicodeDecodeError:
        assert not automaton.nodes[node] & 1
    else:
        assert automaton.nodes[node] & 1


# --- following a text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_token_may_follow_if_a_known_text_goes_on_with_it(name):
    """Against all known texts of a few words: what may follow a beginning of one, and no beginning of any other."""
    tokenizer = TOKENIZERS[name]
    spelling = make_spelling(token_symbols(tokenizer), lexicon())
    allowed = np.zeros(tokenizer.vocab_size, np.bool_)
    checked = 0
    for _ in range(150):
        text = "".join(DRAW.choice([DRAW.choice(WORDS).strip("'"), ""]) + DRAW.choice(SEPARATORS) for _ in range(4))
        if not is_spelled(text):
            continue
        ids, place = tokenizer.encode(text), start_of_text(spelling)
        for token in ids:
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            assert allowed[token], (text, token)
            follow_all(spelling, place, [token])
            checked += 1
        allowed = mark_spelled(spelling, place, tokenizer.eos_id)
        assert allowed[tokenizer.eos_id], text
    assert checked > 500


@pytest.mark.parametrize(
    ("text", "token", "may_follow"),
    [
        ("the mov", "i", True),
        ("the mov", " ", False),
        ("the mov", "x", False),
        ("the movie", "s", True),
        ("the movie", " ", True),
        ("the movie", "—", True),
        ("the movie'", " ", True),
        ("the movie'", "s", False),
        ("don'", "t", True),
        ("don'", " ", False),  # don is not a word of its own
        ("naï", "v", True),
        ("naï", ".", False),
        ("", "'", True),
        ("'", "t", True),
        ("the 3", "3", True),
        ("the 3", "m", True),
        ("the", "x", False),
        ("the ", "x", False),
        ("the glorb", "x", True),  # an unknown word is left alone
        ("the glorb", " ", True),
        ("the glorb ", "x", False),
        ("the glorb ", "m", True),
        ("the 日本", "m", True),
        ("the 日本 ", "x", False),
    ],
)
def test_what_may_follow(text, token, may_follow):
    tokenizer = TOKENIZERS["char"]
    spelling = make_spelling(token_symbols(tokenizer), lexicon())
    place, allowed = start_of_text(spelling), np.zeros(tokenizer.vocab_size, np.bool_)
    follow_all(spelling, place, tokenizer.encode(text))
    allowed = mark_spelled(spelling, place, tokenizer.eos_id)
    assert allowed[tokenizer.encode(token)[0]] == may_follow
    assert allowed[tokenizer.eos_id] == (is_spelled(text) or "glorb" in text or "日本" in text)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_without_a_lexicon_every_valid_text_may_follow_and_no_other(name):
    tokenizer = TOKENIZERS[name]
    spelling = make_spelling(token_symbols(tokenizer))
    allowed, draw = np.zeros(tokenizer.vocab_size, np.bool_), np.random.default_rng(0)
    for text in ("naïve 日本 🙂", "zzz", "\u0301", "\U0010ffff"):
        place = start_of_text(spelling)
        for token in tokenizer.encode(text):
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            assert allowed[token]
            follow_all(spelling, place, [token])
    for _ in range(200):  # any sequence of allowed tokens decodes without U+FFFD
        place, ids = start_of_text(spelling), []
        while len(ids) < 12 or not allowed[tokenizer.eos_id]:
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            partial = [token for token in np.flatnonzero(allowed) if token not in (tokenizer.bos_id, tokenizer.eos_id)]
            ids.append(int(draw.choice(partial[:60])))
            follow_all(spelling, place, ids[-1:])
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            assert len(ids) < 60
        assert "\ufffd" not in tokenizer.decode(ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_bytes_of_tokens_are_those_of_their_text(name):
    tokenizer = TOKENIZERS[name]
    symbols = tokenizer.token_bytes()
    assert len(symbols) == tokenizer.vocab_size
    for text in ("the café—", "日本 🙂", "\x00\x7f"):
        values = [value for token in tokenizer.encode(text) for value in symbols[token]]
        halves = [value - HALF for value in values if value >= HALF]
        whole = [value for value in values if value < HALF]
        if halves:
            assert sorted([16 * a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] + whole) == sorted(text.encode())
        else:
            assert bytes(whole) == text.encode()


# --- trained models


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found = {}
    for preset in ("ngram-char", "ngram-word", "lstm-char", "lstm-word", "nnlm-char"):
        options = {} if preset.startswith("ngram") else {"steps": 3}
        settings = {"tokenizer": {"vocab_size": 300, "min_frequency": 2}} if preset.endswith("word") else {}
        found[preset] = reviewgen.train(preset, REVIEWS, **options, **settings, progress=False)
    return found


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "lstm-char", "lstm-word", "nnlm-char"])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.7}, {"top_p": 0.9}, {"do_sample": False}])
def test_texts_have_known_words_only_whatever_the_settings(models, preset, options):
    model = models[preset]
    assert model.generation_config.words == "known"
    count = {} if options.get("do_sample") is False else {"num_return_sequences": 20}
    texts = model.generate("", seed=2, max_new_tokens=60, **count, **options)
    known = {word for review in REVIEWS for word in words_of(review)}
    for text in texts:
        whole = words_of(text)[:-1]  # the last may be cut off
        assert all(word in known or word[0].lower() + word[1:] in known for word in whole), text
    free = model.generate("", seed=2, max_new_tokens=60, words="any", num_return_sequences=20, temperature=1.7)
    if not preset.startswith("ngram"):  # the networks have learned next to nothing
        assert unknown_word_share(free, known) > 0.2
    assert "\ufffd" not in "".join([*free, *texts])


@pytest.mark.parametrize("preset", ["ngram-char", "lstm-word"])
def test_a_text_does_not_depend_on_the_others(models, preset):
    model = models[preset]
    together = model.generate(["the ", "a mov", "zzz"], seed=5, num_return_sequences=4, max_new_tokens=80)
    assert model.generate("the ", seed=5, max_new_tokens=80)[0] == together[0]
    streamed = "".join(model.stream("the ", seed=5, max_new_tokens=80))
    assert streamed == together[0]


@pytest.mark.parametrize("preset", ["ngram-char", "lstm-char", "lstm-word"])
def test_an_unknown_word_of_a_prompt_is_left_alone(models, preset):
    for text in models[preset].generate("the glorbx", seed=1, num_return_sequences=5, max_new_tokens=40):
        assert text.startswith("the glorbx")


def test_beams_and_processors_keep_to_known_words(models):
    known = {word for review in REVIEWS for word in words_of(review)}
    (beam,) = models["lstm-word"].generate("the ", num_beams=3, max_new_tokens=20)
    processed = models["lstm-word"].generate("the ", seed=1, max_new_tokens=20, logits_processor=lambda ids, scores: scores)
    for text in (beam, *processed):
        assert all(word.lower() in known for word in words_of(text)[:-1]), text


def test_the_distribution_is_the_model_s_own_among_allowed_tokens():
    """Of a model with a sampler of its own and of one without, against the model's probabilities."""
    from scipy.stats import chisquare

    model = reviewgen.train("ngram-char", REVIEWS, model={"order": 2})
    spelling = make_spelling(token_symbols(model.tokenizer), model.bundle.lexicon)
    ids = model.tokenizer.encode("the mo")
    place, allowed = start_of_text(spelling), np.zeros(model.tokenizer.vocab_size, np.bool_)
    follow_all(spelling, place, ids)
    allowed = mark_spelled(spelling, place, model.tokenizer.eos_id)
    logits, _ = model.bundle.weights.stepper().forward(
        np.array([[model.tokenizer.bos_id, *ids]]), model.bundle.weights.stepper().initial_state(1)
    )
    for temperature in (0.8, 1.0, 1.3):
        weights = np.where(allowed, np.exp(logits[0, : len(allowed)].astype(np.float64) / temperature), 0)
        weights[model.tokenizer.bos_id] = 0
        texts = model.generate("the mo", seed=4, num_return_sequences=3000, max_new_tokens=1, temperature=temperature)
        weights[[token for token, values in enumerate(model.tokenizer.token_bytes()) if max(values, default=0) >= HALF]] = 0
        texts = [text for text in texts if text != "the mo"]  # of half a byte nothing is left
        counts = np.bincount([model.tokenizer.encode(text)[-1] for text in texts], minlength=len(allowed))
        expected = weights / weights.sum() * len(texts)
        assert counts[expected == 0].sum() == 0
        large = expected > 5
        assert (
            large.sum() == 1
            or chisquare(
                np.append(counts[large], counts[~large].sum() + 1e-9), np.append(expected[large], expected[~large].sum() + 1e-9)
            ).pvalue
            > 1e-4
        )


def test_saved_and_loaded_it_is_the_same(models, tmp_path):
    model = models["ngram-word"]
    model.save_pretrained(tmp_path / "m")
    again = reviewgen.load(tmp_path / "m")
    assert set(again.bundle.lexicon) == set(model.bundle.lexicon) > {"the", "The", "don't", "café"}
    assert again.generate("", seed=9, num_return_sequences=3) == model.generate("", seed=9, num_return_sequences=3)
    (tmp_path / "m" / "lexicon.safetensors").unlink()
    (tmp_path / "m" / "manifest.json").unlink()  # on purpose
    with pytest.raises(DataError, match="no lexicon"):
        reviewgen.load(tmp_path / "m").generate("")
    assert reviewgen.load(tmp_path / "m").generate("", words="any", seed=1)


def test_a_language_without_spaces_has_no_lexicon():
    letters = [chr(0x4E00 + number) for number in range(300)]
    texts = ["".join(DRAW.choices(letters, k=30)) + "。" for _ in range(60)]
    model = reviewgen.train("ngram-char", texts)
    assert model.bundle.lexicon is None and model.generation_config.words == "any"
    assert model.generate("", seed=1)
    with pytest.raises(DataError, match="words=any"):
        model.generate("", words="known")


def test_words_is_one_of_two():
    model = review_model(TableModel(table(LETTERS.vocab_size, 0)), LETTERS)
    with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match="words"):
        model.generate("", words="some")


def test_a_word_seen_twice_is_known_with_a_capital_at_a_sentence_s_beginning():
    tokenizer = TOKENIZERS["char"]
    texts = ["movie the movie", "The was once was", "goods"] + ["the was movie"] * 20
    ids = np.concatenate([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts])
    found = build_lexicon(words.count_words([ids], token_symbols(tokenizer)))
    assert set(found) == {"movie", "Movie", "the", "The", "was", "Was"}
    assert "goods" not in found and "once" not in found and "MOVIE" in found and len(found) == 6
    joined = found | Lexicon.of(["café"], ["!"])
    assert set(joined) == {*found, "café"}
    assert found | found is found


@pytest.mark.parametrize("name", ["words", "separators"])
@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_harmless(name, seed, tmp_path):
    """Whatever a flipped bit makes of it: compiled loops do not check bounds."""
    file, draw = tmp_path / "lexicon.safetensors", np.random.default_rng(seed)
    write_lexicon(lexicon(), file)
    tensors = load_file(file)
    nodes = tensors[name].copy()
    nodes[draw.integers(len(nodes))] ^= np.uint32(1 << int(draw.integers(32)))
    save_file(tensors | {name: nodes}, file, metadata={"reviewgen.lexicon": "1"})
    try:
        found = read_lexicon(file)
    except BundleError as error:
        assert "lexicon" in str(error)
        return
    tokenizer = TOKENIZERS["word"]
    spelling = make_spelling(token_symbols(tokenizer), found)
    assert int((spelling.nodes >> 8).max()) < 1 << 24
    place = start_of_text(spelling)
    follow_all(spelling, place, draw.integers(0, tokenizer.vocab_size, 2000).tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors | {"more": np.zeros(1, np.uint32)}, "header and arrays"),
        (lambda tensors: tensors | {"words": tensors["words"].astype(np.int64)}, "dtype"),
        (lambda tensors: tensors | {"words": tensors["words"][:-1].copy()}, "end where"),
        (lambda tensors: tensors | {"words": np.zeros(1, np.uint32)}, "shape"),
    ],
)
def test_other_files_are_refused(change, message, tmp_path):
    file = tmp_path / "lexicon.safetensors"
    write_lexicon(lexicon(), file)
    save_file(change(load_file(file)), file, metadata={"reviewgen.lexicon": "1"})
    with pytest.raises(BundleError, match=message):
        read_lexicon(file)
    file.write_text(json.dumps({}))
    with pytest.raises(BundleError, match="damaged"):
        read_lexicon(file)
    save_file(load_file(_written(tmp_path)), file, metadata={"reviewgen.lexicon": "2"})
    with pytest.raises(BundleError, match="schema"):
        read_lexicon(file)


def _written(folder):
    write_lexicon(lexicon(), folder / "good.safetensors")
    return folder / "good.safetensors"


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "lstm-word"])
def test_the_size_of_a_block_changes_nothing(models, preset, temperature):
    """Random numbers that a call has not used are passed again."""
    model = models[preset]
    stepper, ids = model.bundle.weights.stepper(), np.full((20, 1), model.tokenizer.bos_id)
    spelling = make_spelling(token_symbols(model.tokenizer), model.bundle.lexicon)
    params = make_sampling_params(GenerationConfig(temperature=temperature, max_new_tokens=10_000), model.tokenizer)
    uniform = np.random.default_rng(1).random((20, 600))
    found = []
    for size in (32, 33, 100, 600):
        _, state = stepper.forward(ids, stepper.initial_state(20))
        texts = [[] for _ in range(20)]
        for row in range(20):
            place, begun = start_of_text(spelling)[None], 0
            own = tuple(part[row : row + 1] for part in state) if isinstance(state, tuple) else state[row : row + 1]
            while begun + 9 < 600 and (not texts[row] or texts[row][-1] >= 0):
                constraints = Constraints(None, 0, spelling, place)
                given = uniform[row : row + 1, begun : begun + size]
                new = np.array([len(texts[row])])
                tokens, used, own = stepper.sample(own, given, params, np.zeros((1, 0), np.int64), new, constraints)
                if not used[0]:
                    break
                begun += int(used[0])
                texts[row] += tokens[0][tokens[0] >= 0].tolist()
                if model.tokenizer.eos_id in texts[row]:
                    break
        found.append(texts)
    lengths = [min(len(texts[row]) for texts in found) for row in range(20)]
    assert min(lengths) > 3 or sum(lengths) > 200
    for texts in found[1:]:
        assert [text[:length] for text, length in zip(texts, lengths, strict=True)] == [
            text[:length] for text, length in zip(found[0], lengths, strict=True)
        ]


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_is_the_text_even_at_dead_ends(models, seed):
    """No trigram of characters may repeat, so at some point no known word is left."""
    options = {"no_repeat_ngram_size": 3, "temperature": 1.0, "max_new_tokens": 300, "finish": "anywhere", "seed": seed}
    model = models["lstm-char"]
    assert "".join(model.stream("", **options)) == model.generate_one("", **options)


def test_training_further_on_a_language_without_spaces_knows_no_words():
    first = reviewgen.train("gru-char", REVIEWS, steps=1)
    letters = [chr(0x4E00 + number) for number in range(300)]
    further = reviewgen.train(first, ["".join(DRAW.choices(letters, k=30)) + "。" for _ in range(60)], steps=1)
    assert further.bundle.lexicon is None and further.generation_config.words == "any"


def test_a_tokenizer_that_says_wrong_bytes_is_refused(monkeypatch):
    tokenizer = TOKENIZERS["char"]
    right = tokenizer.token_bytes()
    for wrong in (right[:-1], [*right[:-1], (300,)], [b"a", *right[1:]]):
        monkeypatch.setattr(CharTokenizer, "token_bytes", lambda self, wrong=wrong: wrong)
        with pytest.raises(BrokenPlugin, match="token_bytes"):
            token_symbols(tokenizer)


def test_long_texts_are_counted_in_parts(monkeypatch):
    tokenizer = TOKENIZERS["word"]
    text = " ".join(DRAW.choices(["movie", "café", "don't"], k=5000))
    monkeypatch.setattr(decoding, "_PART_TOKENS", 64)
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
    counts = words.count_words([ids], token_symbols(tokenizer))
    assert counts.words == Counter(text.split())


def test_training_further_adds_the_new_words():
    first = reviewgen.train("gru-char", REVIEWS, steps=1)
    assert "café" in first.bundle.lexicon
    further = reviewgen.train(first, [f"zebra zebra the good movie was so good the movie {n % 5}" for n in range(60)], steps=1)
    assert {"café", "zebra"} <= set(further.bundle.lexicon)
