"""The novelty index against brute force in plain Python, through files and in trained models, and
on damaged files.
"""

import json
import os
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import reviewgen
from reviewgen.compiled import copies
from reviewgen.errors import BundleError, DataError, StorageError
from reviewgen.novelty import WINDOWS, build_index, build_sets, read_index, write_index
from tests.support.fakes import TEXTS

LETTERS = "^$abcdefgh"
FACTS: dict[str, Any] = {
    "bos_id": 0,
    "eos_id": 1,
    "vocab_size": len(LETTERS),
    "fingerprint": "of the model",
}
REVIEWS = ["abcdefgh" * 3 + "a", "hgfedcba", "", "aabbccddeeffgghh" * 2, "abc" * 9]
SMALLEST = 192  # bytes: three blocks, so that a few hundred tokens need a stride
FORMS = ["exact", "compact"]


def decode(ids: Sequence[int]) -> str:
    return "".join(LETTERS[i] for i in ids if i > 1)


def ids_of(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def build(texts: Sequence[Any], form: str = "exact", **changes: Any) -> Any:
    """Index texts of letters, or of ids."""
    parts = [ids_of(text) if isinstance(text, str) else text for text in texts]
    ids = np.array(list(chain.from_iterable((0, *part, 1) for part in parts)), np.int64)
    return build_index(ids, **FACTS | {"characters_per_token": 1.0, "form": form} | changes)


def holds(texts: Sequence[list[int]], part: list[int]) -> bool:
    return any(part in pieces_of(text, len(part)) for text in texts)


def pieces_of(text: list[int], length: int) -> list[list[int]]:
    return [text[start : start + length] for start in range(len(text) - length + 1)]


def longest_matches(texts: Sequence[list[int]], text: list[int]) -> list[int]:
    """Return the length in tokens of the longest match at each position, by brute force."""
    return [
        max(n for n in range(len(text) - i + 1) if not n or holds(texts, text[i : i + n]))
        for i in range(len(text))
    ]


@st.composite
def corpora(draw: Any) -> tuple[list[list[int]], list[int]]:
    """Texts of few letters, and one made of parts of them and of other letters."""
    letters = st.integers(2, draw(st.integers(2, 5)))
    texts = draw(st.lists(st.lists(letters, max_size=60), min_size=1, max_size=5).filter(any))
    text: list[int] = []
    for _ in range(draw(st.integers(0, 4))):
        source = draw(st.sampled_from(texts))
        start = draw(st.integers(0, len(source)))
        text += source[start : draw(st.integers(start, len(source)))] + draw(
            st.lists(st.integers(2, 6), max_size=3)
        )
    return texts, text


@given(corpora())
def test_the_exact_form_equals_brute_force(corpus):
    texts, text = corpus
    index = build(texts)
    lengths = longest_matches(texts, text)
    assert index.match(index.check_text(text))[0].tolist() == lengths
    exact = index.examine(text, decode)
    best = max(lengths, default=0)
    assert (exact.form, exact.tokens, exact.characters, exact.false_positive_rate) == (
        "exact",
        len(text),
        len(text),
        0.0,
    )
    assert (exact.longest_tokens, exact.longest_characters) == (best, best)
    assert exact.longest_text == (decode(text[lengths.index(best) :][:best]) if text else "")
    assert index.token_copy_rate([np.array(text, np.int64)]) == exact.windows[20]
    for length in WINDOWS:
        held = [n >= length for n in lengths[: max(0, len(text) - length + 1)]]
        assert exact.windows[length] == (sum(held) / len(held) if held else None)


@given(corpora())
def test_spans_of_the_exact_form_are_all_that_no_other_one_holds(corpus):
    texts, text = corpus
    lengths = longest_matches(texts, text)
    exact = build(texts).examine(text, decode)
    whole = {(i, i + n) for i, n in enumerate(lengths) if n >= 8}
    maximal = {
        (a, b)
        for a, b in whole
        if not any((c, d) != (a, b) and c <= a and b <= d for c, d in whole)
    }
    assert {(span.start, span.end) for span in exact.spans} == maximal
    assert [span.tokens for span in exact.spans] == sorted(
        (b - a for a, b in maximal), reverse=True
    )
    for span in exact.spans:
        source = decode(texts[span.review])
        assert span.text == decode(text[span.start : span.end])
        starts = [i for i in range(len(source)) if source.startswith(span.text, i)]
        assert span.excerpt in [source[max(0, i - 60) : i + len(span.text) + 60] for i in starts]


def stored_thinly(texts: list[list[int]]) -> tuple[list[list[int]], int]:
    """Return more texts, and so few bytes that an index of them leaves windows out."""
    return [*texts * 5, [2, 3, 4, 5, 6, 2, 4, 6, 3, 5] * 9], SMALLEST


@given(corpora(), st.booleans())
def test_the_compact_form_never_reports_less_than_the_exact_form(corpus, thin):
    texts, text = corpus
    texts, limit = stored_thinly(texts) if thin else (texts, 4_000_000)
    exact = build(texts).examine(text, decode)
    index = build(texts, "compact", max_bytes=limit)
    compact = index.examine(text, decode)
    assert compact.longest_tokens >= exact.longest_tokens
    # else the windows stored are too few
    is_known = index.stride == 1 or compact.longest_tokens > index.smallest_max_copy
    assert (
        compact.longest_characters == compact.longest_tokens
        and len(compact.longest_text) == is_known * compact.longest_tokens
    )
    for length in WINDOWS:
        assert (
            index.stride > 1
            or exact.windows[length] is None
            or compact.windows[length] >= exact.windows[length]
        )
    spans = (
        [(compact.longest_text, compact.longest_tokens, None)]
        if is_known and compact.longest_tokens >= 8
        else []
    )
    assert [(span.text, span.tokens, span.review) for span in compact.spans] == spans


@given(corpora(), st.booleans())
def test_sets_of_pieces_that_are_built_by_themselves_are_those_of_the_index(corpus, thin):
    texts, limit = stored_thinly(corpus[0]) if thin else (corpus[0], 4_000_000)
    index = build(texts, "compact", max_bytes=limit)
    parts = build_sets([np.array([0, *own, 1]) for own in texts], (0, 1), limit)
    for own, whole in zip(parts, index.sets, strict=True):
        assert np.array_equal(own.bits, whole.bits)


@given(corpora(), st.integers(0, 12))
def test_a_guard_catches_every_longer_copy(corpus, max_copy):
    texts, text = corpus
    ids = np.array([*text, 2, 3], np.int64)
    missed = 0
    needless = 0
    for index in (build(texts), *([build(texts, "compact")] if max_copy >= 7 else [])):
        windows, run = index.guard(max_copy)
        for end in range(len(ids)):
            truth = end >= max_copy and holds(texts, ids[end - max_copy : end + 1].tolist())
            answer = copies(windows, ids, end, run)
            missed += truth and not answer
            needless += answer and not truth and index.form == "exact"
    assert missed == 0 and needless <= 2  # false positives, one in a thousand


@pytest.mark.parametrize(
    "vocab_size, dtype",
    [(256, np.uint8), (257, np.int16), (32_768, np.int16), (32_769, np.int32)],
)
def test_vocabularies_of_any_size(vocab_size, dtype):
    rng = np.random.default_rng(1)
    frequent = rng.choice(np.arange(2, vocab_size), 40)
    frequent[0] = vocab_size - 1
    texts = [rng.choice(frequent, 50).tolist() for _ in range(20)]
    index = build(texts, vocab_size=vocab_size)
    text = texts[3][10:22] + texts[7][:9] + [vocab_size - 1]
    assert (index.ids.dtype, index.suffixes.dtype) == (dtype, np.int32)
    assert index.match(index.check_text(text))[0].tolist() == longest_matches(texts, text)
    assert (
        build(texts, "compact", vocab_size=vocab_size)
        .examine(text, lambda ids: "." * len(ids))
        .longest_tokens
        == 12
    )


# Files.


@pytest.fixture(params=FORMS)
def saved(request, tmp_path) -> tuple[Any, Path]:
    index = build(REVIEWS, request.param)
    file = tmp_path / "novelty.safetensors"
    write_index(index, file)
    return index, file


def read(file: Path, fingerprint: str = "of the model", vocab_size: int = 10) -> Any:
    return read_index(file, fingerprint, vocab_size)


def test_a_file_gives_the_same_index_and_only_to_its_model(saved):
    index, file = saved
    again = read(file)
    whole = file.read_bytes()
    write_index(again, file.with_name("again"))
    assert file.with_name("again").read_bytes() == whole and type(again) is type(index)
    for message, options in (
        ("belongs to another model", {"fingerprint": "x"}),
        ("10 tokens; its model has 11", {"vocab_size": 11}),
    ):
        with pytest.raises(BundleError, match=message):
            read(file, **options)
    file.write_bytes(b"")  # what was read does not depend on the file
    for text in ("abcdefghabcd" + REVIEWS[3], "", "hhh"):
        assert again.examine(ids_of(text), decode) == index.examine(ids_of(text), decode)
    assert (
        again.guard(9)[1] == index.guard(9)[1]
        and again.guard(9)[0].bits.tolist() == index.guard(9)[0].bits.tolist()
    )
    for length in (0, 5, 100, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BundleError, match="damaged"):
            read(file)


def change(file: Path, tensors: Any = None, header: Any = None, **facts: Any) -> None:
    """Write a file again with changed tensors, facts or header; None leaves a name out."""
    with safe_open(file, framework="np") as old:
        arrays = {n: old.get_tensor(n) for n in old.keys()}  # noqa: SIM118
        old_facts = json.loads(old.metadata()["reviewgen.novelty"])
    arrays = {
        name: array for name, array in (arrays | (tensors or {})).items() if array is not None
    }
    facts = {name: value for name, value in (old_facts | facts).items() if value is not None}
    save_file(arrays, file, metadata=header or {"reviewgen.novelty": json.dumps(facts)})


N = sum(len(review) + 2 for review in REVIEWS)
DAMAGE: dict[str, list[dict[str, Any]]] = {
    "both": [
        {"header": {"reviewgen.novelty": "["}},
        {"schema": 2},
        {"fingerprint": None},
        {"colour": "red"},
        {"bos_id": 10},
        {"vocab_size": 1 << 40},
        *({"characters_per_token": value} for value in (0.0, 1e-320, 1e300, -1.0)),
    ],
    "exact": [
        {"tensors": {"suffixes": None}},
        {"tensors": {"ids": np.zeros((N, 1), np.uint8)}},
        {"tensors": {"ids": np.full(N, 10, np.uint8)}},
        *(
            {"tensors": {"suffixes": np.full(size, value, np.int32)}}
            for size, value in ((N, N), (N, -1), (N - 1, 0))
        ),
        {"form": "compact"},
    ],
    "compact": [
        {"tensors": {"windows_8": np.zeros(8, np.int64)}},
        *({"tensors": {"windows_20": np.zeros(size, np.uint64)}} for size in (0, 12)),
        *({"stride": value} for value in (0, 3, 1 << 64)),
        *({"probes": value} for value in (0, 8)),
    ],
}


@pytest.mark.posix
def test_a_damaged_file_is_refused_or_harmless(saved, tmp_path):
    index, file = saved
    whole = file.read_bytes()
    for changes in DAMAGE["both"] + DAMAGE[index.form]:
        file.write_bytes(whole)
        change(file, **changes)
        with pytest.raises(BundleError, match=r"^The novelty index .*\.$"):
            read(file)
    # a shuffled suffix array stays within bounds
    for seed in range(10 if index.form == "exact" else 0):
        file.write_bytes(whole)
        change(file, {"suffixes": np.random.default_rng(seed).integers(0, N, N).astype(np.int32)})
        assert all(read(file).examine(ids_of(text), decode).tokens == len(text) for text in REVIEWS)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", ""):
        with pytest.raises(BundleError):
            read(tmp_path / name)
    with pytest.raises(StorageError, match="cannot be written"):
        write_index(index, tmp_path / "nowhere" / "novelty")


# Trained models.

MADE_UP = "Zebras juggle 42 purple vacuums, quickly!"
FILE = "novelty.safetensors"


def test_training_reviews_are_found(micro):
    exact = micro("exact")
    compact = micro("ngram-char")
    reports = [(exact.novelty(review), compact.novelty(review), review) for review in TEXTS[:20]]
    whole = [each for each in reports if each[0].longest_text == each[2]]
    assert len(whole) > 10  # the others are held out
    assert [one.spans[0].review for one, _, _ in whole] == list(range(len(whole)))
    for one, other, review in whole:
        ids = exact.tokenizer.encode(review)
        assert (one.longest_tokens, one.longest_characters, one.spans[0].excerpt) == (
            len(ids),
            len(review),
            review,
        )
        assert (other.longest_tokens, other.longest_text) == (len(ids), review)
        assert set(one.windows.values()) == set(other.windows.values()) == {1.0}


def test_made_up_text_is_not_found(micro):
    made_up = micro("exact").novelty(MADE_UP)
    assert (
        made_up.longest_tokens < 8
        and made_up.spans == ()
        and set(made_up.windows.values()) == {0.0}
    )


@pytest.mark.parametrize("name", ["exact", "ngram-char"])
def test_reports_change_no_text_and_are_those_of_novelty(name, micro):
    model = micro(name)
    texts = model.generate("the ", novelty="report", num_return_sequences=4, seed=2)
    assert texts == model.generate("the ", num_return_sequences=4, seed=2)
    for text in texts:
        assert text.novelty == model.novelty(text) and not text.exceeds_max_copy
    assert model.novelty(model.generate_one(novelty="filter", seed=1)).longest_characters <= 50


def test_an_index_is_saved_with_its_model_and_one_of_another_model_is_refused(
    micro, model_folder, tmp_path
):
    folder = shutil.copytree(model_folder("exact"), tmp_path / "m")
    model = micro("exact")
    facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))["novelty"]
    assert facts["form"] == "exact" and 0 < facts["token_copy_rate"] <= 1
    assert "contains the whole training text" in (folder / "README.md").read_text(encoding="utf-8")
    reviewgen.load(folder).save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / FILE).read_bytes() == (folder / FILE).read_bytes()
    options: dict[str, Any] = {
        "novelty": "filter",
        "max_copy": 9,
        "seed": 4,
        "num_return_sequences": 4,
    }
    assert reviewgen.load(tmp_path / "again").generate(**options) == model.generate(**options)
    shutil.copy(model_folder("ngram-word") / FILE, folder / FILE)
    with pytest.raises(BundleError, match="belongs to another model"):
        reviewgen.load(folder)
    (folder / FILE).unlink()
    without = reviewgen.load(folder, accept_changes=True)
    assert without.generate(seed=1) == model.generate(seed=1)
    with pytest.raises(DataError, match="no index of its training text"):
        without.novelty("the")
