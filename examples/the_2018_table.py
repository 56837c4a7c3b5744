"""The table that reviewgen began with, again: model, time of an epoch, nats per character, and a text that begins with "the ".

    pip install 'reviewgen[reviews]'
    python examples/the_2018_table.py                        # the film reviews, 30 seconds for each row
    python examples/the_2018_table.py reviews.csv --seconds 120 --svg table.svg

In 2018 each row was a notebook of its own, trained on 1.1 million characters of music reviews. The times are therefore given for
1.1 million characters too, whatever the corpus. Two rows do without reviewgen's models and trainer: a recurrent network whose
cell is spelled out in plain tensors, and ``nn.RNN``, both in the loop that a first notebook has.
"""

import argparse
import io
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.nn import functional as F

import reviewgen
from reviewgen.errors import ReviewgenError

CHARACTERS_2018 = 1_100_000
PROMPT = "the "
LANES, STEPS = 32, 64  # of a batch
EMBEDDING, HIDDEN = 64, 256  # of each network, so that the times compare
HELD_OUT = 150  # texts
SHOWN, LINE = 88, 44  # characters of a sample, and of each of its lines


@dataclass(frozen=True)
class Row:
    """A row of the table; the times are in seconds.

    Attributes:
        name: The model.
        in_2018: The time of an epoch in 2018, as it was noted then.
        epoch: The time of an epoch of this corpus, from the speed of the training.
        characters: The characters of that epoch.
        nats: Nats per character of the held-out texts.
        sample: A text.
        problem: Why training failed; empty if it did not.
    """

    name: str
    in_2018: str
    epoch: float = 0.0
    characters: int = 1
    nats: float = 0.0
    sample: str = ""
    problem: str = ""


class SpelledOut(nn.Module):
    """A simple recurrent network (Elman 1990) in plain tensors: h = tanh(x W + h U + b), logits = h V + c."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab_size, EMBEDDING))
        self.input = _matrix(EMBEDDING, HIDDEN)
        self.recurrent = _matrix(HIDDEN, HIDDEN)
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.output = _matrix(HIDDEN, vocab_size)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T, V) of ids (B, T), and the state (B, H) after the last of them."""
        logits = []
        for t in range(ids.shape[1]):
            embedded = self.embedding[ids[:, t]]  # (B, E)
            state = torch.tanh(embedded @ self.input + state @ self.recurrent + self.bias)  # (B, H)
            logits.append(state @ self.output + self.output_bias)  # (B, V)
        return torch.stack(logits, 1), state


class TorchRnn(nn.Module):
    """The same with ``nn.RNN``."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, EMBEDDING)
        self.recurrent = nn.RNN(EMBEDDING, HIDDEN, batch_first=True)
        self.output = nn.Linear(HIDDEN, vocab_size)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T, V) of ids (B, T), and the state (B, H) after the last of them."""
        outputs, state = self.recurrent(self.embedding(ids), state[None])
        return self.output(outputs), state[0]


def _matrix(rows: int, columns: int) -> nn.Parameter:
    limit = HIDDEN**-0.5  # as nn.RNN initializes its weights
    return nn.Parameter(torch.empty(rows, columns).uniform_(-limit, limit))


def plain_row(name: str, in_2018: str, make: Callable[[int], nn.Module], source: Any, seconds: float) -> Row:
    """Train a network in a plain loop, and return its row."""
    run = prepared("rnn-char", source, 600)
    store, tokenizer = run.stores["train"], run.tokenizer
    torch.manual_seed(0)
    network = make(tokenizer.vocab_size)
    took, tokens = train_plainly(network, np.asarray(store.ids), seconds)
    texts = held_out_texts(run)
    nats = sum(nats_of(network, tokenizer, text) for text in texts) / sum(map(len, texts))
    sample = sample_plainly(network, tokenizer)
    return Row(name, in_2018, took / tokens * store.tokens, int(store.characters.sum()), nats, sample)


def train_plainly(network: nn.Module, ids: np.ndarray, seconds: float) -> tuple[float, int]:
    """Train for some seconds, at least one step and at most an epoch; return the seconds taken and the number of tokens."""
    length = (len(ids) - 1) // LANES
    stream = torch.from_numpy(ids[: LANES * length + 1].astype(np.int64))
    lanes = torch.stack([stream[lane * length : (lane + 1) * length + 1] for lane in range(LANES)])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    state, start, steps = torch.zeros(LANES, HIDDEN), time.monotonic(), 0
    for first in range(0, max(1, length - STEPS), STEPS):
        batch = lanes[:, first : first + STEPS + 1]
        logits, state = network(batch[:, :-1], state.detach())
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
        if time.monotonic() - start > seconds:
            break
    return time.monotonic() - start, steps * LANES * min(STEPS, length)


@torch.no_grad()
def nats_of(network: nn.Module, tokenizer: Any, text: str) -> float:
    """Return the negative log likelihood of a text and its end."""
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])
    logits, _ = network(ids[:, :-1], torch.zeros(1, HIDDEN))
    return F.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()


@torch.no_grad()
def sample_plainly(network: nn.Module, tokenizer: Any) -> str:
    """Return a text, drawn character by character from the whole distribution."""
    generator, ids = torch.Generator().manual_seed(1), [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    logits, state = network(torch.tensor([ids]), torch.zeros(1, HIDDEN))
    for _ in range(SHOWN):
        drawn = int(torch.multinomial(logits[0, -1].softmax(-1), 1, generator=generator))
        if drawn == tokenizer.eos_id:
            break
        ids.append(drawn)
        logits, state = network(torch.tensor([[drawn]]), state)
    return tokenizer.decode(ids[1:])


def preset_row(name: str, in_2018: str, preset: str, model: dict[str, Any], source: Any, seconds: float) -> Row:
    """Train a preset, and return its row."""
    start = time.monotonic()
    prepared(preset, source, 600, model)  # fills the cache
    run = prepared(preset, source, seconds + time.monotonic() - start, model)
    took, tokens = time_steps(run)
    trained, store = run.finish(), run.stores["train"]
    nats = trained.evaluate(held_out_texts(run), clean=False).nats_per_character
    sample = trained.generate_one(PROMPT, seed=1, max_new_tokens=SHOWN)
    return Row(name, in_2018, took / tokens * store.tokens, int(store.characters.sum()), nats, sample)


def time_steps(run: reviewgen.TrainingRun) -> tuple[float, int]:
    """Train; return the seconds and the tokens of all steps but those with an evaluation, or of the whole counting."""
    took, tokens, seen, before = 0.0, 0, 0, time.monotonic()
    for report in run:
        if report.evaluation is None or report.loss is None:
            took, tokens = took + time.monotonic() - before, tokens + report.tokens - seen
        seen, before = report.tokens, time.monotonic()
        last = report
    return (took, tokens) if tokens else (last.seconds, last.tokens)


def prepared(preset: str, source: Any, budget: float, model: dict[str, Any] | None = None) -> reviewgen.TrainingRun:
    """Return a run whose corpus is read and tokenized."""
    training = {"copy_tokens": 0, "novelty": "none", "metrics": (), "evaluations": 5}
    run = reviewgen.TrainingRun(preset, source, budget=budget, model=model or {}, training=training)
    run.read()
    run.tokenize()
    return run


def held_out_texts(run: reviewgen.TrainingRun) -> list[str]:
    """Return the same held-out texts for each row."""
    store = run.stores["test" if "test" in run.stores else "validation"]
    documents = (store.document(number) for number in range(min(HELD_OUT, len(store))))
    return [text for ids in documents if (text := run.tokenizer.decode(ids[1:-1].tolist()))]


def make_rows(source: Any, seconds: float) -> Iterator[Row]:
    """Train each model in turn; yield its row; if training fails, the row has the reason."""
    network = {"hidden_size": HIDDEN, "embedding_size": EMBEDDING}
    rows: list[tuple[Callable[..., Row], str, str, Any]] = [
        (preset_row, "n-gram", "", ("ngram-char", {})),
        (preset_row, "neural n-gram", "19 m", ("nnlm-char", network)),
        (plain_row, "RNN, spelled out", "24 m", (SpelledOut,)),
        (plain_row, "nn.RNN, naive loop", "5.51 s", (TorchRnn,)),
        (preset_row, "nn.RNN, our trainer", "1.47 s", ("rnn-char", network | {"layer": "fused"})),
        (preset_row, "GRU", "1.42 s", ("gru-char", network)),
        (preset_row, "LSTM", "1.92 s", ("lstm-char", network)),
        (preset_row, "n-gram, words", "", ("ngram-word", {})),
        (preset_row, "GRU, words", "", ("gru-word", network)),
        (preset_row, "LSTM, words", "", ("lstm-word", network)),
    ]
    for make, name, in_2018, arguments in rows:
        try:
            yield make(name, in_2018, *arguments, source, seconds)
        except ReviewgenError as error:
            yield Row(name, in_2018, problem=str(error))


def make_table(rows: list[Row], seconds: float) -> Table:
    """Return the table."""
    title = f"Ten models, {seconds:g} s of training each. The LSTM of 2018 ended at 1.5526 nats per character."
    caption = "1.1 MB: as many characters as the corpus of 2018 had. In 2018 the times were taken in part on a GPU."
    layout: Any = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}
    table = Table(title=title, caption=caption, **layout)
    table.add_column("model", no_wrap=True, min_width=19)
    for heading in ("time of\nan epoch", "time for\n1.1 MB", "1.1 MB\nin 2018", "nats per\nchar."):
        table.add_column(heading, justify="right", no_wrap=True, min_width=8 if "time" in heading else 7)
    table.add_column(f"a text that begins\nwith “{PROMPT}”", max_width=LINE, overflow="fold")
    for row in rows:
        if row.problem:
            table.add_row(row.name, "", "", row.in_2018, "", Text(row.problem, no_wrap=True, overflow="ellipsis"))
        else:
            scaled = row.epoch * CHARACTERS_2018 / row.characters
            table.add_row(
                row.name,
                duration(row.epoch),
                duration(scaled),
                row.in_2018,
                f"{row.nats:.3f}",
                Text(textwrap.shorten(row.sample, SHOWN, placeholder=" …")),
            )
    return table


def duration(seconds: float) -> str:
    """Return seconds in the style of 2018."""
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} m" if seconds < 5400 else f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} m"


def save_picture(table: Table, file: Path) -> None:
    """Save the table as SVG, which loads nothing from elsewhere."""
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(table)
    svg = console.export_svg(title="python examples/the_2018_table.py")
    file.write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8")


def main(arguments: list[str] | None = None) -> list[Row]:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="reviews", help="the reviews: a file, or 'reviews' for the film reviews")
    parser.add_argument("--seconds", type=float, default=30.0, help="the time for each row (30)")
    parser.add_argument("--svg", type=Path, help="a file to save the table in, as a picture")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # matrices this small gain nothing from more, and lose much on a busy machine
    console, rows = Console(stderr=True), []
    for row in make_rows(options.source, options.seconds):
        rows.append(row)
        console.print(f"{row.name}: {row.problem or f'{row.nats:.3f} nats per character'}", style="dim")
    table = make_table(rows, options.seconds)
    Console().print(table)
    if options.svg:
        save_picture(table, options.svg)
    return rows


if __name__ == "__main__":
    main()
