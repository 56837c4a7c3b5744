"""Known words: the automaton against a set of strings, texts of every kind of model, and what a
user asks of ``words``.
"""

import random
import re
from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import reviewgen
from reviewgen.compiled import HALF, Spelling, follow_all, mark_spelled, start_of_text
from reviewgen.errors import BundleError, ConfigError, DataError
from reviewgen.lexicon.automata import Automaton, minimal_automaton
from reviewgen.lexicon.lexicon import (
    Lexicon,
    add_words,
    build_lexicon,
    make_spelling,
    read_lexicon,
    write_lexicon,
)
from reviewgen.lexicon.token_bytes import Symbols, decode_texts, token_symbols
from reviewgen.lexicon.words import WordCounts, count_words, words_of
from reviewgen.registry.plugins import find_tokenizer
from reviewgen.saving.weights import ModelWeights
from tests.support.fakes import TEXTS
from tests.support.ngrams import Plain

DRAW = random.Random(3)
WORDS = (
    "the",
    "a",
    "don't",
    "naïve",
    "café",
    "movie",
    "movies",
    "moving",
    "was",
    "were",
    "good",
    "goods",
    "rock's",
    "Über",
)
SEPARATORS = " .,!\n'—🙂3"
CHARS = find_tokenizer("char")[0]
BPE = find_tokenizer("word")[0]
TOKENIZERS: dict[str, Any] = {
    "char": CHARS.train(["".join(WORDS) + SEPARATORS + "xyz"], CHARS.Config()),
    "word": BPE.train([" ".join(WORDS) + SEPARATORS] * 30, BPE.Config(vocab_size=330)),
}


def lexicon() -> Lexicon:
    counts = count_words([f"{' '.join(WORDS)} {SEPARATORS}"])
    return Lexicon.of(counts.words, counts.separators)


def spelling_of(name: str, known: Lexicon | None = None) -> Spelling:
    symbols = token_symbols(TOKENIZERS[name])
    assert symbols is not None
    return make_spelling(symbols, known)


# Words and automata.


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Don't say 'no'.", ["Don't", "say", "no"]),
        ("rock’n’roll — naïve?", ["rock’n’roll", "naïve"]),
        ("mp3 2nd x_y", ["mp", "nd", "x", "y"]),
        ("e\u0301te\u0301 हिन्दी", ["e\u0301te\u0301", "हिन्दी"]),
        ("12 !? '", []),
    ],
)
def test_words_are_runs_of_letters_with_their_marks(text, expected):
    assert words_of(text) == expected


@given(st.sets(st.binary(max_size=6), max_size=40))
def test_a_minimal_automaton_accepts_exactly_its_strings(strings):
    assert list(minimal_automaton(strings).strings()) == sorted(strings)


def strings_of(spelling: Spelling) -> set[bytes]:
    return set(Automaton(spelling.nodes, spelling.words).strings())


@given(
    st.sets(st.text("abé'", min_size=1, max_size=4)),
    st.sets(st.text("abcé", min_size=1, max_size=5)),
)
def test_words_are_added_to_a_spelling_as_if_they_had_been_known_before(known, added):
    symbols = Symbols(np.array([97], np.uint16), np.array([0, 1]))
    base = make_spelling(symbols, Lexicon.of(known, " "))
    extended = add_words(base, added)
    whole = make_spelling(symbols, Lexicon.of(known | added, " "))
    assert strings_of(extended) == strings_of(whole) and strings_of(base) == strings_of(
        make_spelling(symbols, Lexicon.of(known, " "))
    )
    follow = [
        {chr(byte) for byte in range(256) if spelling.first[1, byte]}
        for spelling in (extended, whole)
    ]
    assert follow[0] == follow[1]


# Which tokens may follow, against a set of strings.


@cache
def is_beginning(text: str) -> bool:
    """Whether a text of whole characters begins a text of known words and separators."""
    whole, last = re.fullmatch(r"(.*?)((?:[^\W\d_]+['’])*[^\W\d_]*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if last.endswith(("'", "’")):
        last_is_right = last[:-1] in WORDS or any(word.startswith(last) for word in WORDS)
    else:
        last_is_right = any(word.startswith(last) for word in WORDS) or not last
    # behind a word, any apostrophe closes a quotation
    rest = re.sub(r"(?<=[^\W\d_])['’]", "", whole)
    return (
        last_is_right
        and all(word in WORDS for word in words_of(whole))
        and all(c in SEPARATORS or re.match(r"[^\W\d_]", c) for c in rest)
    )


@cache
def may_begin(raw: bytes) -> bool:
    """Whether bytes, which may end inside a character, begin a text of known words and
    separators.
    """
    for tail in range(4):
        try:
            text = raw[: len(raw) - tail].decode()
            rest = raw[len(raw) - tail :]
        except UnicodeDecodeError:
            continue
        if not rest:
            return is_beginning(text)
        characters = {
            c
            for c in "".join(WORDS) + SEPARATORS + "’"
            if c.encode().startswith(rest) and c.encode() != rest
        }
        return any(is_beginning(text + c) for c in characters)
    return False


def is_complete(text: str) -> bool:
    return is_beginning(text + " ")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_token_may_follow_exactly_if_a_known_text_goes_on_with_it(name):
    tokenizer = TOKENIZERS[name]
    spelling = spelling_of(name, lexicon())
    table = tokenizer.token_bytes()
    seen = Counter[bool]()
    halves = 0
    texts = ["the movie’ don't rock's’ naïve——🙂🙂"]
    for _ in range(25):
        parts = [
            DRAW.choice([DRAW.choice(WORDS), DRAW.choice(WORDS), ""]) + DRAW.choice(SEPARATORS)
            for _ in range(4)
        ]
        texts.append("".join(parts))
    for text in texts:
        if not is_complete(text):
            continue
        ids = tokenizer.encode(text)
        place = start_of_text(spelling)
        for number in range(len(ids) + 1):
            values = list(chain.from_iterable(table[token] for token in ids[:number]))
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            if (
                any(value >= HALF for value in values[-1:])
                and sum(value >= HALF for value in values) % 2
            ):
                # the first half of a byte: what may follow is any second half that completes a
                # right byte
                halves += 1
                follow_all(spelling, place, ids[number : number + 1])
                continue
            raw = as_bytes(values)
            for token in range(tokenizer.vocab_size):
                if token == tokenizer.eos_id:
                    expected = raw.decode("utf-8", "replace").encode() == raw and is_complete(
                        raw.decode()
                    )
                elif len(table[token]) == 1 and table[token][0] >= HALF:
                    expected = any(
                        may_begin(raw + bytes([16 * (table[token][0] - HALF) + low]))
                        for low in range(16)
                    )
                else:
                    expected = token != tokenizer.bos_id and may_begin(raw + as_bytes(table[token]))
                    expected |= token == tokenizer.bos_id  # no bytes; never sampled
                assert allowed[token] == expected, (raw, token, table[token])
                seen[expected] += 1
            follow_all(spelling, place, ids[number : number + 1])
    assert min(seen.values()) > 300 and (halves > 0) == (name == "char")


def as_bytes(values: Any) -> bytes:
    """Return the bytes of symbols, of which two halves make one."""
    raw = []
    waiting = -1
    for value in values:
        if value < HALF:
            raw.append(value)
        elif waiting < 0:
            waiting = value - HALF
        else:
            raw.append(16 * waiting + value - HALF)
            waiting = -1
    return bytes(raw)


@pytest.mark.parametrize(
    "text, token, may_follow",
    [
        ("don'", " ", False),  # don is not a word of its own
        ("'", "t", True),
        ("the glorb", "x", True),  # an unknown word is left alone
        ("the glorb", " ", True),
        ("the glorb ", "x", False),
        ("the glorb ", "m", True),
        ("the 日本", "m", True),
        ("the 日本 ", "x", False),
    ],
)
def test_what_may_follow_known_and_unknown_words(text, token, may_follow):
    for name, tokenizer in TOKENIZERS.items():
        spelling = spelling_of(name, lexicon())
        place = start_of_text(spelling)
        follow_all(spelling, place, tokenizer.encode(text))
        allowed = mark_spelled(spelling, place, tokenizer.eos_id)
        if len(ids := tokenizer.encode(token)) == 1:
            assert allowed[ids[0]] == may_follow
        assert allowed[tokenizer.eos_id] == (text not in ("don'",))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_without_a_lexicon_every_valid_text_may_follow_and_no_other(name):
    tokenizer = TOKENIZERS[name]
    spelling = spelling_of(name)
    rng = np.random.default_rng(0)
    for text in (
        "naïve 日本 🙂",
        "zzz",
        "\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U000fffff\U0010ffff",
    ):
        place = start_of_text(spelling)
        for token in tokenizer.encode(text):
            assert mark_spelled(spelling, place, tokenizer.eos_id)[token]
            follow_all(spelling, place, [token])
    for _ in range(60):  # any sequence of allowed tokens decodes without U+FFFD
        place = start_of_text(spelling)
        ids = []
        allowed = np.zeros(tokenizer.vocab_size, np.bool_)
        while len(ids) < 12 or not allowed[tokenizer.eos_id]:
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            partial = [
                token
                for token in np.flatnonzero(allowed)
                if token not in (tokenizer.bos_id, tokenizer.eos_id)
            ]
            ids.append(int(rng.choice(partial[:60])))
            follow_all(spelling, place, ids[-1:])
            allowed = mark_spelled(spelling, place, tokenizer.eos_id)
            assert len(ids) < 60
        assert "\ufffd" not in tokenizer.decode(ids)


# Texts of models.


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "lstm-char", "lstm-word"])
def test_texts_have_known_words_only_whatever_the_settings(micro, preset):
    model = micro(preset)
    known = set(model.bundle.lexicon)
    assert model.generation_config.words == "known"
    free = model.generate(
        "", seed=2, max_new_tokens=60, words="any", num_return_sequences=10, temperature=1.7
    )
    if preset == "lstm-char":  # it has learned next to nothing
        written = list(chain.from_iterable(map(words_of, free)))
        assert sum(word not in known for word in written) > 0.2 * len(written)
    texts = list(free)
    for options in (
        {},
        {"temperature": 1.7},
        {"top_p": 0.9, "repetition_penalty": 1.2},
        {"do_sample": False},
        {"num_beams": 3},
    ):
        options |= {
            "num_return_sequences": 1 if len({"do_sample", "num_beams"} & options.keys()) else 10
        }
        found = model.generate("", seed=2, max_new_tokens=60, **options)
        for text in found:
            whole = words_of(text)[:-1]  # the last may be cut off
            assert all(word in known for word in whole), text
        texts += found
    assert "\ufffd" not in "".join(texts)


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "lstm-char", "lstm-word"])
def test_known_words_do_not_depend_on_other_prompts_and_keep_the_prompt(micro, preset):
    model = micro(preset)
    together = model.generate(
        ["the ", "a mov", "zzz", "the glorbx"], seed=5, num_return_sequences=3, max_new_tokens=50
    )
    assert model.generate("the ", seed=5, max_new_tokens=50) == together[:1]
    assert "".join(model.stream("the ", seed=5, max_new_tokens=50)) == together[0]
    assert all(text.startswith("the glorbx") for text in together[-3:])


@pytest.mark.parametrize("preset", ["ngram-char", "ngram-word", "lstm-char", "lstm-word"])
def test_texts_have_known_words_with_a_logits_processor(micro, preset):
    model = micro(preset)
    known = set(model.bundle.lexicon)
    processed = model.generate(
        "the ", seed=1, max_new_tokens=20, logits_processor=lambda ids, scores: scores
    )
    assert all(word in known for word in words_of(processed[0])[:-1])


@pytest.mark.parametrize("kind", [lambda own: own, Plain], ids=["own loop", "generic loop"])
def test_among_allowed_tokens_a_model_keeps_its_own_distribution(kind):
    from scipy.stats import chisquare

    model = reviewgen.train("ngram-char", TEXTS, model={"order": 2})
    model.bundle.weights = ModelWeights(kind(model.model))
    tokenizer = model.tokenizer
    symbols = token_symbols(tokenizer)
    assert symbols is not None
    spelling = make_spelling(symbols, model.bundle.lexicon)
    ids = tokenizer.encode("the m")
    place = start_of_text(spelling)
    stepper = model.bundle.weights.stepper()
    follow_all(spelling, place, ids)
    allowed = mark_spelled(spelling, place, tokenizer.eos_id)
    # of half a byte nothing is left
    allowed &= np.array([max(values, default=0) < HALF for values in tokenizer.token_bytes()])
    logits, _ = stepper.forward(np.array([[tokenizer.bos_id, *ids]]), stepper.initial_state(1))
    for temperature in (0.8, 1.3):
        weights = np.where(
            allowed, np.exp(logits[0, : len(allowed)].astype(np.float64) / temperature), 0
        )
        weights[tokenizer.bos_id] = 0
        texts = model.generate(
            "the m", seed=4, num_return_sequences=2000, max_new_tokens=1, temperature=temperature
        )
        texts = [text for text in texts if text != "the m"]
        counts = np.bincount([tokenizer.encode(text)[-1] for text in texts], minlength=len(allowed))
        expected = weights / weights.sum() * len(texts)
        large = expected > 5
        assert counts[expected == 0].sum() == 0
        assert large.sum() > 1
        pairs = [np.append(each[large], each[~large].sum() + 1e-9) for each in (counts, expected)]
        assert chisquare(*pairs).pvalue > 1e-4


def test_a_stream_is_the_text_even_at_dead_ends(micro):
    """No trigram of characters may repeat, so at some point no known word is left."""
    for seed in range(3):
        options = {
            "no_repeat_ngram_size": 3,
            "temperature": 1.0,
            "max_new_tokens": 150,
            "finish": "anywhere",
            "seed": seed,
        }
        assert "".join(micro("lstm-char").stream("", **options)) == micro("lstm-char").generate_one(
            "", **options
        )


@pytest.mark.wrong_types
def test_a_lexicon_is_saved_with_its_model(micro, tmp_path):
    model = micro("ngram-word")
    model.save_pretrained(tmp_path / "m")
    again = reviewgen.load(tmp_path / "m")
    assert set(again.bundle.lexicon or ()) == set(model.bundle.lexicon) > {"the", "The", "très"}
    (tmp_path / "m" / "lexicon.safetensors").unlink()
    (tmp_path / "m" / "manifest.json").unlink()  # on purpose
    with pytest.raises(DataError, match="no lexicon"):
        reviewgen.load(tmp_path / "m").generate("")
    assert reviewgen.load(tmp_path / "m").generate("", words="any", seed=1)
    with pytest.raises(ConfigError, match="words"):
        model.generate("", words="some")


def test_a_language_without_spaces_has_no_lexicon(micro):
    letters = [chr(0x4E00 + number) for number in range(300)]
    texts = ["".join(DRAW.choices(letters, k=30)) + "。" for _ in range(40)]
    model = reviewgen.train("ngram-char", texts)
    assert model.bundle.lexicon is None and model.generation_config.words == "any"
    with pytest.raises(DataError, match="words=any"):
        model.generate("", words="known")
    further = reviewgen.train(micro("gru-char"), texts, steps=1)
    assert further.bundle.lexicon is None and further.generation_config.words == "any"


def lexicon_of_movies() -> Lexicon:
    tokenizer = TOKENIZERS["char"]
    texts = ["movie the movie", "The was once was", "goods"] + ["the was movie"] * 20
    ids = np.concatenate(
        [[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    )
    known = build_lexicon(count_words(list(decode_texts([ids], tokenizer))))
    assert known is not None
    return known


def test_a_word_of_two_texts_is_known_also_with_a_capital():
    known = lexicon_of_movies()
    assert set(known) == {"movie", "Movie", "the", "The", "was", "Was"}
    assert "goods" not in known and "once" not in known and "MOVIE" in known and len(known) == 6


def test_lexicons_are_joined():
    known = lexicon_of_movies()
    joined = known | Lexicon.of(["café"], ["!"])
    assert set(joined) == {*known, "café"} and known | known is known


def test_a_lexicon_covers_85_percent_of_all_words_or_is_none():
    rare = Counter({"the": 17, **{f"w{c}": 1 for c in "abc"}})
    assert build_lexicon(WordCounts(rare, rare)) is not None  # 17 of 20 words are known, 85 %
    more = rare + Counter({"zz": 1})
    assert build_lexicon(WordCounts(more, more)) is None


def test_a_lexicon_of_further_texts_keeps_the_words_before():
    known = lexicon_of_movies()
    again = build_lexicon(WordCounts(Counter({"new": 9})), before=known)
    assert (
        again is not None
        and {"new", "movie"} <= set(again)
        and (known.min_texts, again.min_texts) == (2, 2)
    )


@given(st.lists(st.text(alphabet="aAbé e\u0301'’.“—\n", max_size=30), min_size=1, max_size=8))
def test_words_are_counted_by_text_as_one_by_one(texts):
    counts = count_words(texts)
    found = [words_of(text) for text in texts]
    assert counts.words == Counter(chain.from_iterable(found))
    folded = ({word.casefold() for word in words} for words in found)
    assert counts.texts == Counter(chain.from_iterable(folded))


NAME_ONCE = ["Zyx Qwv, ZYX “Zyx” and zyx.", *["The film is good and the end is bad."] * 9]


@pytest.mark.parametrize(
    "least, is_written, said",
    [(1, True, "each of a training text;"), (2, False, "each of at least 2 training texts;")],
)
def test_a_name_from_one_review_is_written_only_if_one_text_is_enough(least, is_written, said):
    options = {
        "tokenizer": {"vocab_size": 300},
        "validation": NAME_ONCE[1:],
        "clean": False,
        "training": {"copy_tokens": 0},
    }
    model = reviewgen.train("ngram-word", NAME_ONCE, min_texts=least, **options)
    assert {"zyx" in model.bundle.lexicon, "Qwv" in model.bundle.lexicon} == {is_written}
    texts = model.generate("", num_return_sequences=60, seed=0, temperature=1.5)
    assert ("Zyx" in " ".join(texts)) == is_written
    assert said in model.bundle.card


def test_words_of_a_single_text_are_known_if_they_are_repeated():
    book = reviewgen.train("ngram-char", ["It is. " * 60], validation=["It is."])
    assert set(book.bundle.lexicon) == {"It", "is", "Is"}


def test_parts_of_a_long_text_do_not_count_as_texts(tmp_path):
    (tmp_path / "book.txt").write_text(
        "".join(f"Once {'Ariel ' * 9 * (n == 2)}it was {n}. " for n in range(900)), encoding="utf-8"
    )
    parts = reviewgen.train("ngram-char", tmp_path / "book.txt", documents="file")
    assert {"Ariel", "Once"} <= set(parts.bundle.lexicon)


def test_min_texts_leaves_out_words_of_fewer_texts():
    counts = WordCounts(Counter(a=9, b=9, c=9), Counter(a=9, b=2, c=2))
    lexicon = build_lexicon(counts, 5)
    assert lexicon is not None and set(lexicon) == {"a", "A"}


def test_min_texts_below_one_is_refused():
    with pytest.raises(ConfigError, match="min_texts must be at least 1; got 0"):
        reviewgen.train("ngram-char", NAME_ONCE, min_texts=0)


def test_long_texts_are_counted_in_parts():
    for name, tokenizer in TOKENIZERS.items():
        text = " ".join(DRAW.choices(["movie", "café", "don't", "日本"], k=30_000))
        ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id])
        assert len(ids) > 1 << 16
        assert count_words(list(decode_texts([ids], tokenizer))).words == Counter(text.split()), (
            name
        )


# Files.


def test_a_file_with_a_flipped_bit_is_refused_or_harmless(tmp_path):
    """Compiled loops do not check bounds."""
    file = tmp_path / "lexicon.safetensors"
    rng = np.random.default_rng(0)
    refused = 0
    write_lexicon(lexicon(), file)
    tensors = load_file(file)
    assert set(read_lexicon(file)) == set(lexicon())
    for number in range(40):
        name = ("words", "separators")[number % 2]
        nodes = tensors[name].copy()
        nodes[rng.integers(len(nodes))] ^= np.uint32(1 << int(rng.integers(32)))
        save_file(tensors | {name: nodes}, file, metadata={"reviewgen.lexicon": "1"})
        try:
            spelling = spelling_of("word", read_lexicon(file))
        except BundleError:
            refused += 1
            continue
        assert int((spelling.nodes >> 8).max()) < 1 << 24
        follow_all(
            spelling,
            start_of_text(spelling),
            rng.integers(0, TOKENIZERS["word"].vocab_size, 500).tolist(),
        )
    assert 5 < refused < 40
    for other, version in (
        (tensors | {"more": nodes}, "1"),
        (tensors | {"words": nodes.astype(np.int64)}, "1"),
        (tensors, "2"),
    ):
        save_file(other, file, metadata={"reviewgen.lexicon": version})
        with pytest.raises(BundleError, match=r"header and arrays|dtype|schema"):
            read_lexicon(file)
