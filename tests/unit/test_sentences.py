"""Where sentences end, and texts that are cut off."""

import pytest

import reviewgen
from reviewgen.sentences import sentence_ends


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It was good. It was bad", ["It was good."]),
        ("Mr. Doe and Dr. Roe left. Then", ["Mr. Doe and Dr. Roe left."]),
        ("J. R. R. Tolkien wrote it. So", ["J. R. R. Tolkien wrote it."]),
        ("So do I. And you", ["So do I."]),
        ("Rated 3.5 of 5. Fine", ["Rated 3.5 of 5."]),
        ("it rained. he waited... so", ["it rained.", "he waited..."]),
        ("What?! No! 'Yes.' Then", ["What?!", "No!", "'Yes.'"]),
        ("e.g. this, i.e. that. Then", ["e.g. this, i.e. that."]),
        ("etc. and so on. Then", ["etc. and so on."]),
        ("See it again? No. Never", ["See it again?", "No."]),
        ("No. 5 is alive. Yes", ["No. 5 is alive."]),
        ("Born Jan. 3 or in March. Yes", ["Born Jan. 3 or in March."]),
        ("J'aime ce que c'est. Oui", ["J'aime ce que c'est."]),
        ("「はい。」それは良い。次", ["「はい。」", "それは良い。"]),
        ("no end", []),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    ends = sentence_ends(text)
    assert [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)] == sentences


@pytest.fixture(scope="module")
def model():
    texts = [f"The food of Mr. Doe was good number {n}. I liked the {n % 7} drinks there! Would you go again?" for n in range(60)]
    return reviewgen.train("ngram-char", texts)


def test_a_text_that_is_cut_off_ends_with_a_sentence(model):
    assert model.generation_config.finish == "sentence"
    texts = model.generate("", seed=1, num_return_sequences=30, max_new_tokens=120)
    assert all(text[-1] in ".!?" for text in texts)
    assert not any(text.endswith("Mr.") for text in texts)
    assert any(len(text) < 100 for text in texts)


@pytest.mark.parametrize("seed", range(8))
def test_a_stream_gives_the_same_text_sentence_by_sentence(model, seed):
    pieces = list(model.stream("The food", seed=seed, max_new_tokens=130))
    assert "".join(pieces) == model.generate_one("The food", seed=seed, max_new_tokens=130)
