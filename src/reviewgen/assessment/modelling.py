"""A language model of some texts, and how probable it finds others."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from reviewgen.api import train
from reviewgen.assessment.texts import Texts
from reviewgen.data.tokens import frame_texts
from reviewgen.evaluation.evaluate import evaluate_totals

_TOKENS = 400  # maximum number of tokens of a text that are scored, from its beginning
# options of a training that measures no copies and prints nothing
_QUIET: Any = {"training": {"novelty": "none", "copy_tokens": 0}, "progress": False}


class Scored(NamedTuple):
    """How probable the beginning of a text is: its nats, tokens and characters."""

    nats: float
    tokens: int
    characters: int


def model_of(texts: Texts) -> Any:
    """Return a new n-gram model of characters, trained on texts."""
    return train("ngram-char", list(texts.texts), **_QUIET)


def score(model: Any, texts: Sequence[str]) -> list[Scored]:
    """Return how probable the beginning of each text is under a model. A text that is cut has no
    end token, since the model does not expect an end there.
    """
    unspecified = model.conditions.unspecified_ids
    framed = list(frame_texts(((text, unspecified) for text in texts), model.tokenizer))
    documents = [(ids[: _TOKENS + 1], length) for ids, length in framed]
    nats = list[float]()  # ``evaluate_totals`` appends those of each document
    evaluate_totals(model.bundle.model, documents, model.tokenizer.vocab_size, nats=nats)
    return [
        # of the characters of a text, the same share counts as of its ids
        Scored(value, len(cut) - 1 - len(unspecified), round(length * len(cut) / len(whole)))
        for value, (cut, length), (whole, _) in zip(nats, documents, framed, strict=True)
    ]
