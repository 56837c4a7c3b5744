"""Stand-ins that need no training: language models of given answers, a tiny tokenizer, and helpers
to make a ReviewModel.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reviewgen.conditions import Conditions
from reviewgen.config import GenerationConfig
from reviewgen.model.review_model import ReviewModel
from reviewgen.registry.metadata import Plugin
from reviewgen.saving.layout import Bundle
from reviewgen.saving.weights import ModelWeights

TEXTS = [
    f"the {thing} was {how} and I liked the {other}."
    for thing, how, other in product(
        ("movie", "acting", "music", "ending", "plot"),
        ("good", "bad", "très bon", "so so"),
        ("theme", "others", "movie"),
    )
]


@dataclass(frozen=True, kw_only=True)
class FakeConfig:
    """The settings of a stand-in."""

    vocab_size: int = 2


class LetterTokenizer:
    """One id per given character, nothing else; ids 0 and 1 are bos and eos, an unseen character is
    left out.
    """

    Config = FakeConfig
    bos_id = 0
    eos_id = 1

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.vocab_size = 2 + len(characters)

    @classmethod
    def train(cls, texts: Iterable[str], config: Any) -> "LetterTokenizer":
        return cls("".join(sorted(set("".join(texts)))))

    def encode(self, text: str) -> list[int]:
        return [2 + self.characters.index(c) for c in text if c in self.characters]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[i - 2 : i - 1] for i in ids if i >= 2)

    def save(self, folder: Path) -> None:
        (folder / "letters.txt").write_text(self.characters, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "LetterTokenizer":
        return cls((folder / "letters.txt").read_text(encoding="utf-8"))


LETTERS = LetterTokenizer("abcdefgh ")


class TableModel:
    """Scores the next token by a fixed table of logits, (V, V): a row for each last token. Its
    state counts the tokens read.
    """

    Config = FakeConfig

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.config = FakeConfig(vocab_size=len(table))
        self.calls: list[tuple[int, ...]] = []  # the shapes of ids that it was called with

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1, dtype=torch.int64)

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        self.calls.append(tuple(ids.shape))
        return self.table[ids], state + ids.shape[1]

    def state_dict(self) -> dict[str, Tensor]:
        return {"table": self.table}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        self.table = tensors["table"]


class QueueModel(TableModel):
    """Answers with the tokens of a queue, one a step, whatever it reads; each row has its own place
    in the queue.
    """

    def __init__(self, answers: Sequence[int], tokenizer: Any, skip: int = 1) -> None:
        super().__init__(torch.eye(tokenizer.vocab_size))
        self.answers = torch.tensor([*answers, tokenizer.eos_id])  # eos for ever
        self.skip = skip  # tokens read before the first answer, bos among them

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        places = state + torch.arange(1, ids.shape[1] + 1) - self.skip  # (B, T)
        tokens = self.answers[places.clamp(0, len(self.answers) - 1)]
        logits = torch.full((*ids.shape, self.config.vocab_size), -1e4).scatter(
            -1, tokens.unsqueeze(-1), 0.0
        )
        return logits, state + ids.shape[1]


class ScoringTable(TableModel):
    """The same distribution as ``TableModel``, scored without the dense table."""

    def score(self, ids: Tensor, targets: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.table.log_softmax(-1)[ids, targets], state + ids.shape[1]


def table(vocab_size: int, seed: int = 0, scale: float = 2.0, eos: float | None = None) -> Tensor:
    """Return random logits (V, V); ``eos`` sets the end token's."""
    logits = (
        torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale
    )
    if eos is not None:
        logits[:, 1] = eos
    return logits


class SlowModel(TableModel):
    """Takes some time for each token, and never ends a text."""

    seconds = 0.002

    def __init__(self) -> None:
        super().__init__(table(LETTERS.vocab_size, eos=-1e9))

    def __call__(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        time.sleep(self.seconds)
        return super().__call__(ids, state)


def review_model(model: Any, tokenizer: Any, **generation: Any) -> ReviewModel:
    """Return a ReviewModel of any two parts."""
    plugin = Plugin("model", "fake", "tests", "0")
    settings = GenerationConfig(**({"temperature": 1.0, "max_new_tokens": 30} | generation))
    bundle = Bundle(
        preset="fake-fake",
        weights=ModelWeights(model),
        tokenizer=tokenizer,
        model_plugin=plugin,
        tokenizer_plugin=plugin,
        tokenizer_config=FakeConfig(),
        conditions=Conditions(first_id=tokenizer.vocab_size),
        generation=settings,
    )
    return ReviewModel(bundle)


@torch.inference_mode()
def brute_bits(
    model: ReviewModel, text: str | Sequence[int], prefix: Sequence[int] = ()
) -> list[float]:
    """Return the bits of each token of a text, or of its ids, and of the end after a prefix: one
    call of the model a token.
    """
    tokens = model.tokenizer.encode(text) if isinstance(text, str) else text
    state = model.model.initial_state(1)
    bits = []
    for before, after in pairwise(
        [model.tokenizer.bos_id, *prefix, *tokens, model.tokenizer.eos_id]
    ):
        logits, state = model.model(torch.tensor([[before]]), state)
        bits.append(-float(logits[0, 0].double().log_softmax(-1)[after]) / math.log(2))
    return bits[len(prefix) :]


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises an error, whatever it is called with."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def run_command(monkeypatch: Any, capsys: Any, *words: Any) -> tuple[int, str, str]:
    """Run a command in this process and return its status, and what it said on standard output and
    standard error.
    """
    from reviewgen.cli import main

    monkeypatch.setattr("sys.argv", ["reviewgen", *map(str, words)])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    capsys.readouterr()
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    said = capsys.readouterr()
    return status, said.out, said.err
