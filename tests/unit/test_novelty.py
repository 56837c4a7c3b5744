"""The novelty index against brute force in plain Python, through files, and on damaged files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from reviewgen.compiled.windows import copies
from reviewgen.errors import BundleError, ConfigError, DataError, StorageError
from reviewgen.novelty import WINDOWS, CompactIndex, ExactIndex, Novelty, Span, build_index, read_index, write_index
from reviewgen.novelty.base import check_max_copy
from reviewgen.novelty.report import decode_with_offsets

LETTERS = "^$abcdefgh"
FACTS = {"bos_id": 0, "eos_id": 1, "vocab_size": len(LETTERS), "fingerprint": "of the model"}
REVIEWS = ["abcdefgh" * 3 + "a", "hgfedcba", "", "aabbccddeeffgghh" * 2, "abc" * 9]
SMALLEST = 192  # bytes: three blocks, so that a few hundred tokens need a stride


def decode(ids):
    return "".join(LETTERS[i] for i in ids if i > 1)


def ids_of(text):
    return [LETTERS.index(letter) for letter in text]


def build(texts, form="exact", **changes):
    """Index texts of letters, or of ids."""
    parts = [ids_of(text) if isinstance(text, str) else text for text in texts]
    ids = np.array([token for part in parts for token in (0, *part, 1)], np.int64)
    return build_index(ids, **FACTS | {"characters": max(1, sum(map(len, parts))), "form": form} | changes)


def holds(texts, part):
    return any(part == text[start : start + len(part)] for text in texts for start in range(len(text) - len(part) + 1))


def longest_matches(texts, text):
    """Return the length in tokens of the longest match at each position, by brute force."""
    return [max(n for n in range(len(text) - i + 1) if not n or holds(texts, text[i : i + n])) for i in range(len(text))]


@st.composite
def corpora(draw):
    """Texts of few letters, and one made of parts of them and of other letters."""
    letters = st.integers(2, draw(st.integers(2, 5)))
    texts = draw(st.lists(st.lists(letters, max_size=60), min_size=1, max_size=5).filter(any))
    text = []
    for _ in range(draw(st.integers(0, 4))):
        source = draw(st.sampled_from(texts))
        start = draw(st.integers(0, len(source)))
        text += source[start : draw(st.integers(start, len(source)))] + draw(st.lists(st.integers(2, 6), max_size=3))
    return texts, text


def check_spans(found, texts, text, lengths):
    """Check the spans of the exact form against the longest matches."""
    whole = {(i, i + n) for i, n in enumerate(lengths) if n >= 8}
    maximal = {(a, b) for a, b in whole if not any((c, d) != (a, b) and c <= a and b <= d for c, d in whole)}
    assert {(span.start, span.end) for span in found.spans} == maximal
    assert [span.tokens for span in found.spans] == sorted((b - a for a, b in maximal), reverse=True)
    for span in found.spans:
        source = decode(texts[span.review])
        assert span.text == decode(text[span.start : span.end])
        assert span.text in span.excerpt
        assert span.excerpt in source
        around = (source[max(0, i - 60) : i + len(span.text) + 60] for i in range(len(source)) if source.startswith(span.text, i))
        assert span.excerpt in around


@settings(max_examples=150)
@given(corpora())
def test_the_exact_form_equals_brute_force(corpus):
    texts, text = corpus
    index, lengths = build(texts), longest_matches(texts, text)
    assert index.match(index.check_text(text))[0].tolist() == lengths
    found = index.examine(text, decode)
    assert (found.form, found.tokens, found.characters, found.false_positive_rate) == ("exact", len(text), len(text), 0.0)
    best = max(lengths, default=0)
    assert (found.longest_tokens, found.longest_characters) == (best, best)
    assert found.longest_text == (decode(text[lengths.index(best) :][:best]) if text else "")
    for length in WINDOWS:
        held = [n >= length for n in lengths[: max(0, len(text) - length + 1)]]
        assert found.windows[length] == (sum(held) / len(held) if held else None)
    check_spans(found, texts, text, lengths)
    assert index.token_copy_rate([np.array(text, np.int64)]) == found.windows[20]


@settings(max_examples=150)
@given(corpora(), st.booleans())
def test_the_compact_form_never_reports_too_little(corpus, thin):
    texts, text = corpus
    texts = texts * (5 if thin else 1) + ([[2, 3, 4, 5, 6, 2, 4, 6, 3, 5] * 9] if thin else [])
    exact = build(texts).examine(text, decode)
    index = build(texts, "compact", max_bytes=SMALLEST if thin else 4_000_000)
    found = index.examine(text, decode)
    assert found.longest_tokens >= exact.longest_tokens
    assert (found.longest_characters, len(found.longest_text)) == (found.longest_tokens, found.longest_tokens)
    for length in WINDOWS:
        if index.stride == 1 and exact.windows[length] is not None:
            assert found.windows[length] >= exact.windows[length]
    assert [(span.text, span.tokens, span.review, span.excerpt) for span in found.spans] == (
        [(found.longest_text, found.longest_tokens, None, None)] if found.longest_tokens >= 8 else []
    )


@settings(max_examples=60)
@given(corpora(), st.integers(0, 12))
def test_a_guard_catches_every_longer_copy(corpus, max_copy):
    texts, text = corpus
    ids, missed, needless = np.array([*text, 2, 3], np.int64), 0, 0
    for index in (build(texts), *([build(texts, "compact")] if max_copy >= 7 else [])):
        windows, run = index.guard(max_copy)
        for end in range(len(ids)):
            truth = end >= max_copy and holds(texts, ids[end - max_copy : end + 1].tolist())
            answer = copies(windows, ids, end, run)
            missed += truth and not answer
            needless += answer and not truth and index.form == "exact"
    assert missed == 0
    assert needless <= 2  # false positives, one in a thousand


def test_an_exact_guard_rejects_nothing_else():
    random = np.random.default_rng(0)
    index, text = build(random.integers(2, 10, (50, 200)).tolist()), random.integers(2, 10, 20_000)
    found = index.match(index.check_text(text))[0]
    for max_copy in (0, 2, 4, 6):
        windows, run = index.guard(max_copy)
        answers = [copies(windows, text, end, run) for end in range(max_copy, len(text))]
        truth = found[: len(text) - max_copy] > max_copy
        assert run == 1
        assert np.mean(answers) == pytest.approx(truth.mean(), abs=0.002)
    assert index.guard(6)[0] is windows
    assert index.guard(5)[0] is not windows


@pytest.mark.parametrize("max_copy", [-1, True, False, 1.5, "8", None])
def test_a_limit_that_is_not_a_number_of_tokens(max_copy):
    with pytest.raises(ConfigError, match=f"max_copy must be a whole number of tokens, 0 or more; got {max_copy!r}"):
        check_max_copy(max_copy)


@pytest.mark.parametrize("form", ["exact", "compact"])
def test_the_limits_of_a_guard(form):
    index = build(REVIEWS, form)
    for wrong in (-1, True):
        with pytest.raises(ConfigError, match="max_copy must be a whole number of tokens"):
            index.guard(wrong)
    for large in (10**6, 10**30):
        assert not copies(index.guard(large)[0], np.array(ids_of(REVIEWS[0])), 24, index.guard(large)[1])
    if form == "compact":
        assert [(index.guard(limit)[0].length, index.guard(limit)[1]) for limit in (7, 10, 11, 18, 19, 30)] == [
            *((8, 1), (8, 4), (12, 1), (12, 8), (20, 1), (20, 12))
        ]
        with pytest.raises(ConfigError, match=r"max_copy is 6 tokens, .* supports 7 or more.* training\.novelty=exact"):
            index.guard(6)
    else:
        assert copies(index.guard(0)[0], np.array([9]), 0, 1)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(256, np.uint8), (257, np.int16), (32_768, np.int16), (32_769, np.int32)])
def test_vocabularies_of_any_size(vocab_size, dtype):
    random = np.random.default_rng(1)
    frequent = random.choice(np.arange(2, vocab_size), 40)
    frequent[0] = vocab_size - 1
    texts = [random.choice(frequent, 50).tolist() for _ in range(20)]
    index = build(texts, vocab_size=vocab_size)
    assert (index.ids.dtype, index.suffixes.dtype) == (dtype, np.int32)
    text = texts[3][10:22] + texts[7][:9] + [int(frequent[0])]
    assert index.match(index.check_text(text))[0].tolist() == longest_matches(texts, text)
    compact = build(texts, "compact", vocab_size=vocab_size)
    assert compact.examine(text, lambda ids: "." * len(ids)).longest_tokens == 12


def test_a_stride_is_as_small_as_the_bytes_allow():
    texts = np.random.default_rng(2).integers(2, 10, (30, 1000)).tolist()
    strides = []
    for limit in (10**6, 60_000, 20_000, SMALLEST):
        index = build(texts, "compact", max_bytes=limit)
        assert sum(windows.bits.nbytes for windows in index.sets) <= limit
        strides.append(index.stride)
        assert index.examine(texts[4][100:300], decode).longest_tokens == 200
    assert strides == [1, 2, 8, 1024]  # of 3 x 30,000 windows, 10 bits each: 112 kB


def test_the_bound_is_tight_without_a_stride():
    random = np.random.default_rng(3)
    texts = random.integers(2, 10, (30, 1000)).tolist()
    exact, compact, extra = build(texts), build(texts, "compact"), []
    for length in (9, 13, 25, 60):
        text = random.integers(2, 10, 100).tolist() + texts[5][200 : 200 + length] + random.integers(2, 10, 100).tolist()
        extra.append(compact.examine(text, decode).longest_tokens - exact.examine(text, decode).longest_tokens)
    assert min(extra) == 0
    assert max(extra) <= 2


def test_the_bound_of_new_text_is_seven():
    index = build(["abcdefgh" * 9], "compact")
    assert index.examine(ids_of("ccccccccccccccccccccc"), decode).longest_tokens == 7


def test_an_excerpt_shows_sixty_characters_on_each_side():
    random = np.random.default_rng(7)
    letters = random.integers(2, 10, (3, 300)).tolist()
    index = build(letters, characters=3 * 300 * 4)

    def decode_wide(ids):
        assert not {0, 1} & set(ids)
        return "".join(LETTERS[i] * 4 for i in ids)

    for first, last in ((0, 20), (5, 25), (100, 140), (270, 299), (280, 300)):
        (span,) = index.examine(letters[1][first:last], decode_wide).spans
        whole = decode_wide(letters[1])
        assert (span.review, span.excerpt) == (1, whole[max(0, 4 * first - 60) : 4 * last + 60])


def test_the_false_positive_rate_is_that_of_new_text():
    random = np.random.default_rng(4)
    index = build(random.integers(2, 500, (60, 1000)).tolist(), "compact", vocab_size=1000)
    found = index.examine(random.integers(500, 1000, 50_000), lambda ids: "." * len(ids))
    assert found.false_positive_rate == max(index.false_positive_rates.values()) == pytest.approx(0.01, rel=0.3)
    for length in WINDOWS:
        assert found.windows[length] == pytest.approx(index.false_positive_rates[length], rel=0.2)


def test_a_compact_index_that_can_look_up_nothing():
    texts = np.random.default_rng(5).integers(2, 10, (30, 1000)).tolist()
    index = build(texts, "compact", max_bytes=SMALLEST)
    short = next(texts[0][i : i + 9] for i in range(900) if index.examine(texts[0][i : i + 9], decode).windows[8] is None)
    found = index.examine(short, decode)
    assert (found.windows, found.longest_tokens) == ({8: None, 12: None, 20: None}, 9)
    assert index.token_copy_rate([np.array(short)]) is None


@pytest.mark.parametrize("form", ["exact", "compact"])
def test_texts_that_are_too_short(form):
    index = build(REVIEWS, form)
    nothing = index.examine([], decode)
    assert (nothing.tokens, nothing.longest_tokens, nothing.longest_text, nothing.spans) == (0, 0, "", ())
    short = index.examine(ids_of("abcdefg"), decode)
    assert (short.windows, short.spans, short.longest_tokens) == ({8: None, 12: None, 20: None}, (), 7)
    assert index.token_copy_rate([]) is None
    assert index.token_copy_rate([np.array(ids_of("abc")), np.array([], np.int64)]) is None


@pytest.mark.parametrize("form", ["exact", "compact"])
@pytest.mark.parametrize("texts", [["a"], ["a" * 500], ["", "a", ""], ["abcdefg", "hgfed"]])
def test_corpora_of_equal_texts(form, texts):
    index = build(texts, form)
    assert index.characters_per_token == 1
    for text in ("a" * 40, "bcd" * 10, texts[0]):
        found = index.examine(ids_of(text), decode)
        truth = max(longest_matches([ids_of(t) for t in texts], ids_of(text)), default=0)
        assert found.longest_tokens == truth if form == "exact" else found.longest_tokens >= truth
    assert index.guard(7)


@pytest.mark.parametrize("form", ["exact", "compact"])
def test_a_span_never_crosses_a_separator(form):
    index = build(["abcdefgh", "hgfedcba"], form)
    found = index.examine([0, *ids_of("abcdefgh"), 1, 0, *ids_of("hgfedcba"), 1], decode)
    assert (found.longest_text, found.windows) == ("abcdefgh", {8: 1.0, 12: None, 20: None})
    assert found.characters == 16


def test_a_thinned_index_needs_many_windows_for_a_copy_rate():
    random = np.random.default_rng(8)
    trained = random.integers(2, 500, (40, 1000))
    index = build(trained.tolist(), "compact", vocab_size=1000, max_bytes=SMALLEST)
    assert index.stride >= 16
    copied, new = trained[:20], random.integers(500, 1000, (20, 1000))
    assert index.token_copy_rate([trained[0, :200]]) is None
    assert index.token_copy_rate([*copied, *new]) == pytest.approx(0.5, abs=0.15)
    assert build(trained.tolist(), "exact", vocab_size=1000).token_copy_rate([trained[0, :200]]) == 1.0


def test_the_copy_rate_of_all_texts():
    for form in ("exact", "compact"):
        index = build([np.arange(2, 62).tolist()], form, vocab_size=90)
        texts = [np.arange(2, 32), np.arange(70, 90), np.arange(5), np.arange(60, 89)]
        assert index.token_copy_rate(iter(texts)) == pytest.approx(11 / 22)  # 11 + 1 + 0 + 10 windows


@pytest.mark.parametrize("form", ["exact", "compact"])
@pytest.mark.parametrize("ids", [[2, 3, 10], [-1], [2.0, 3.0], np.zeros((2, 3), np.int64)])
def test_ids_that_are_not_valid(form, ids):
    with pytest.raises(DataError, match=r"is not an id of this model: its ids are 0 to 9|whole numbers"):
        build(REVIEWS, form).examine(np.asarray(ids), decode)


def test_corpora_that_cannot_be_indexed():
    for texts in ([], [""], ["", ""]):
        with pytest.raises(DataError, match="empty"):
            build(texts)
    with pytest.raises(DataError, match="empty"):
        build(["abc"], characters=0)
    with pytest.raises(DataError, match="ids from 0 to 10; the vocabulary has 0 to 9"):
        build([[2, 10]])
    with pytest.raises(ConfigError, match=r"'exakt' is not a form of the novelty index\. Did you mean 'exact'"):
        build(["abc"], "exakt")
    with pytest.raises(ConfigError, match="max_bytes is 191, but the smallest index takes 192"):
        build(["abc"], "compact", max_bytes=191)


def test_decoding_with_offsets():
    def of_bytes(ids):
        return bytes(ids).decode("utf-8", "replace")

    def of_words(ids):
        return " ".join("word"[: i % 4 + 1] for i in ids)

    def of_kinds(ids):
        return "".join(sorted({chr(97 + i % 26) for i in ids}))

    for way, ids in (
        (decode, ids_of("abcba")),
        (of_bytes, list("é👍 aส".encode())),
        (of_words, [3, 1, 2, 5]),
        (of_kinds, [1, 1, 3]),
    ):
        text, offsets = decode_with_offsets(ids, way)
        assert text == way(ids)
        assert offsets == [len(way(ids[:end])) for end in range(len(ids) + 1)]
    assert decode_with_offsets([], decode) == ("", [0])


def test_characters_and_tokens_differ():
    pieces = ["", "", "good", " ", "film", "."]
    texts = [[2, 3, 4, 5] * 3]
    index = build(texts, characters=30)
    found = index.examine([4, *texts[0][:10]], lambda ids: "".join(pieces[i] for i in ids))
    assert (found.tokens, found.characters) == (11, 29)
    assert (found.longest_tokens, found.longest_characters, found.longest_text) == (10, 25, "good film.good film.good ")
    assert found.spans == (Span(4, 29, "good film.good film.good ", 10, 0, "good film." * 3),)


def novelty(**changes):
    span = Span(0, 90, "ab\n cd" * 18, 90, 123, "so  they say " + "ab c" * 5)
    facts = {
        "form": "exact",
        "characters": 95,
        "tokens": 95,
        "longest_characters": 90,
        "longest_tokens": 90,
        "false_positive_rate": 0.0,
    }
    facts |= {"longest_text": "ab\n cd" * 18, "windows": {8: 0.5, 12: 0.123, 20: None}, "spans": (span,)}
    return Novelty(**facts | changes)


def test_the_sentences_of_the_exact_form():
    longest, shares, source = novelty().describe()
    assert longest.startswith('The longest copied span has 90 characters (90 tokens): "ab cdab cd')
    assert longest.endswith('…".')
    assert len(longest) < 150
    assert shares == (
        "Also in the training text: 50.0 % of its windows of 8 tokens, 12.3 % of its windows of 12 tokens. "
        "None of its windows of 20 tokens can be looked up."
    )
    assert novelty(tokens=10, windows={8: 0.5, 12: None, 20: None}).describe()[1] == (
        "Also in the training text: 50.0 % of its windows of 8 tokens. The text is too short for windows of 12 and 20 tokens."
    )
    assert novelty(tokens=1, windows={8: None, 12: None, 20: None}).describe()[1] == (
        "The text is too short for windows of 8, 12 and 20 tokens."
    )
    assert source == 'It comes from training review 123: "so they say ab cab cab cab cab c".'


def test_the_sentences_of_the_compact_form():
    lines = novelty(form="compact", spans=(), false_positive_rate=0.0123).describe()
    assert "at most 90 characters" in lines[0]
    assert "at most 50.0 %" in lines[1]
    assert lines[2:] == ["These are upper bounds: the compact index takes up to 1.2 % of all new windows for copied ones."]


def test_the_sentences_if_nothing_was_copied():
    nothing = novelty(longest_tokens=0, longest_characters=0, longest_text="", spans=())
    assert nothing.describe()[0] == "No token of the text occurs in the training text."
    assert novelty(tokens=0).describe()[0] == "The text is empty."


@pytest.fixture(params=["exact", "compact"])
def saved(request, tmp_path):
    index, file = build(REVIEWS, request.param), tmp_path / "novelty.safetensors"
    write_index(index, file)
    return index, file


def read(file, fingerprint=FACTS["fingerprint"], vocab_size=FACTS["vocab_size"]):
    return read_index(file, fingerprint, vocab_size)


def test_a_file_gives_the_same_index(saved):
    index, file = saved
    again = read(file)
    assert type(again) is type(index)
    for name in ("form", "bos_id", "eos_id", "vocab_size", "characters_per_token", "fingerprint"):
        assert getattr(again, name) == getattr(index, name)
    for text in ("abcdefghabcd" + REVIEWS[3], "", "hhh"):
        assert again.examine(ids_of(text), decode) == index.examine(ids_of(text), decode)
    assert again.guard(9)[1] == index.guard(9)[1]
    assert again.guard(9)[0].bits.tolist() == index.guard(9)[0].bits.tolist()
    write_index(again, file.with_name("again"))
    assert file.with_name("again").read_bytes() == file.read_bytes()


def test_a_thinned_index_through_a_file(tmp_path):
    texts = np.random.default_rng(6).integers(2, 10, (10, 1000)).tolist()
    index, file = build(texts, "compact", max_bytes=5000), tmp_path / "novelty"
    write_index(index, file)
    assert file.stat().st_size < 6000
    assert (read(file).stride, read(file).sets[0].probes) == (index.stride, index.sets[0].probes)
    assert read(file).examine(texts[0], decode) == index.examine(texts[0], decode)


def test_the_index_of_another_model(saved):
    _, file = saved
    with pytest.raises(BundleError, match="belongs to another model: its fingerprint is 'of the model', not 'of another'"):
        read(file, fingerprint="of another")
    with pytest.raises(BundleError, match="is for a vocabulary of 10 tokens; its model has 11"):
        read(file, vocab_size=11)


def change(file, tensors=None, header=None, **facts):
    """Write a file again with changed tensors, facts or header; None leaves a name out."""
    with safe_open(file, framework="np") as old:
        names, old_facts = list(old.keys()), json.loads(old.metadata()["reviewgen.novelty"])
        arrays = {name: old.get_tensor(name) for name in names}
    arrays = {name: array for name, array in (arrays | (tensors or {})).items() if array is not None}
    facts = {name: value for name, value in (old_facts | facts).items() if value is not None}
    save_file(arrays, file, metadata=header or {"reviewgen.novelty": json.dumps(facts)})


N = sum(len(review) + 2 for review in REVIEWS)
BOTH = [
    *(({"header": {"reviewgen.novelty": text}}, "its header cannot be read") for text in ("", "[" * 100_000)),
    ({"header": {"reviewgen.novelty": "[1]"}}, "the header of one is missing"),
    ({"header": {"format": "pt"}}, "the header of one is missing"),
    ({"schema": 2}, "schema 2; this version of reviewgen reads schema 1"),
    ({"schema": None}, "schema None"),
    ({"form": "fuzzy"}, "unknown form 'fuzzy'"),
    ({"form": []}, r"unknown form \[\]"),
    ({"form": None}, "unknown form None"),
    ({"colour": "red"}, "missing or unknown keys: colour"),
    ({"fingerprint": None}, "missing or unknown keys: .*fingerprint"),
    *(({"vocab_size": size}, f"vocab_size must be int in its header, and is {size!r}") for size in ("ten", "10", 10.0, True)),
    *(({"bos_id": position}, "bos_id or eos_id") for position in (-1, 10)),
    ({"eos_id": 10}, "bos_id or eos_id"),
    ({"vocab_size": 1 << 40}, "bos_id or eos_id"),
    ({"characters_per_token": float("nan")}, "the number NaN is not finite"),
    ({"characters_per_token": 0.0}, "0.0 characters per token"),
    ({"tensors": {"more": np.zeros(3)}}, "it contains .*more.* instead of"),
]
EXACT = [
    ({"tensors": {"suffixes": None}}, "it contains ids instead of ids, suffixes"),
    ({"tensors": {"ids": np.zeros(N, np.int16)}}, r"ids is I16 \[\d+\], not U8 with one axis"),
    ({"tensors": {"ids": np.zeros((N, 1), np.uint8)}}, "not U8 with one axis"),
    ({"tensors": {"suffixes": np.zeros(N, np.int64)}}, "suffixes is I64"),
    ({"tensors": {"suffixes": np.zeros(N - 1, np.int32)}}, f"{N} tokens and {N - 1} suffixes"),
    ({"tensors": {"ids": np.zeros(0, np.uint8), "suffixes": np.zeros(0, np.int32)}}, "0 tokens and 0 suffixes"),
    ({"tensors": {"ids": np.full(N, 10, np.uint8)}}, "ids outside its vocabulary"),
    ({"tensors": {"suffixes": np.full(N, N, np.int32)}}, "suffixes outside its text"),
    ({"tensors": {"suffixes": np.full(N, -1, np.int32)}}, "suffixes outside its text"),
    ({"stride": 1}, "missing or unknown keys: stride"),
    ({"form": "compact"}, "missing or unknown keys: probes, stride"),
]
COMPACT = [
    ({"tensors": {"windows_12": None}}, "instead of windows_8, windows_12, windows_20"),
    ({"tensors": {"windows_8": np.zeros(8, np.int64)}}, "windows_8 is I64"),
    ({"tensors": {"windows_8": np.zeros((1, 8), np.uint64)}}, "not U64 with one axis"),
    ({"tensors": {"windows_20": np.zeros(0, np.uint64)}}, "windows_20 has 0 words"),
    ({"tensors": {"windows_20": np.zeros(12, np.uint64)}}, "windows_20 has 12 words"),
    *(({"stride": stride}, "a stride of") for stride in (0, 3, -1, 1 << 64)),
    *(({"probes": probes}, "probes") for probes in (0, 8, -2)),
    ({"stride": None}, "missing or unknown keys: stride"),
    ({"form": "exact"}, "missing or unknown keys: probes, stride"),
]


@pytest.mark.parametrize(
    ("form", "changes", "message"),
    [(form, *case) for form, cases in (("exact", BOTH + EXACT), ("compact", BOTH + COMPACT)) for case in cases],
)
def test_a_damaged_file_is_one_sentence(form, changes, message, tmp_path):
    file = tmp_path / "novelty.safetensors"
    write_index(build(REVIEWS, form), file)
    change(file, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        read(file)
    assert str(caught.value).startswith(f"The novelty index {file} ")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_file(saved, length):
    _, file = saved
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(BundleError, match="is damaged, or not a novelty index"):
        read(file)


def test_a_file_that_is_cut_off_after_reading(saved):
    index, file = saved
    read_back = read(file)
    file.write_bytes(b"")  # of a mapped file, the next look would end the process
    assert [read_back.examine(ids_of(text), decode) for text in REVIEWS] == [
        index.examine(ids_of(text), decode) for text in REVIEWS
    ]


def test_files_that_are_not_an_index(tmp_path: Path):
    (tmp_path / "text").write_text("a review " * 100)
    save_file({"weight": np.zeros(3)}, tmp_path / "weights")
    for name, message in (
        ("text", "is damaged, or not a novelty index"),
        ("weights", "the header of one is missing"),
        ("nothing", "cannot be read"),
        ("", "novelty"),
    ):
        with pytest.raises(BundleError, match=message):
            read(tmp_path / name)
    with pytest.raises(StorageError, match="cannot be written"):
        write_index(build(REVIEWS), tmp_path / "nowhere" / "novelty")


def test_a_shuffled_suffix_array_stays_within_bounds(tmp_path):
    file = tmp_path / "novelty"
    write_index(build(REVIEWS), file)
    for seed in range(20):
        change(file, {"suffixes": np.random.default_rng(seed).integers(0, N, N).astype(np.int32)})
        index = read(file)
        assert isinstance(index, ExactIndex)
        for text in REVIEWS:
            assert index.examine(ids_of(text), decode).tokens == len(text)


def test_the_names_of_the_forms():
    assert (ExactIndex.form, CompactIndex.form) == ("exact", "compact")


def test_a_pipe_in_the_place_of_an_index_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "novelty.safetensors")
    with pytest.raises(BundleError, match="cannot be read: it is not a file"):
        read_index(tmp_path / "novelty.safetensors", "x", 10)
