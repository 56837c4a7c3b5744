"""A language model of some texts, and how probable it finds others."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from reviewgen.api import train
from reviewgen.assessment.texts import Texts
from reviewgen.data.tokens import frame_texts
from reviewgen.evaluation.evaluate import evaluate_totals

_TOKENS = 400  # maximum number of tokens of a text that are scored, from its beginning
_QUIET: Any = {"training": {"novelty": "none", "copy_tokens": 0}, "progress": False}


class Scored(NamedTuple):
    """How probable a text is: its nats, and for how many tokens and characters they are."""

    nats: float
    tokens: int
    characters: int


def model_of(texts: Texts) -> Any:
    """Return an n-gram of characters that has learned from texts."""
    return train("ngram-char", list(texts.texts), **_QUIET)


def score(model: Any, texts: Sequence[str]) -> list[Scored]:
    """Return how probable the beginning of each text is under a model. A text that is cut has no
    end token, which would be a surprise there.
    """
    given = model.conditions.unspecified_ids
    framed = list(frame_texts(((text, given) for text in texts), model.tokenizer))
    documents = [(ids[: _TOKENS + 1], length) for ids, length in framed]
    nats = list[float]()  # appended by ``evaluate_totals``
    evaluate_totals(model.bundle.model, documents, model.tokenizer.vocab_size, nats=nats)
    found = []
    for value, (cut, length), (whole, _) in zip(nats, documents, framed, strict=True):
        # if a text was cut, the same share of its characters counts as of its tokens
        found.append(Scored(value, len(cut) - 1, round(length * len(cut) / len(whole))))
    return found
