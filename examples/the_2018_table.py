"""The table that reviewgen began with in 2018, made again: model, graph, time of an epoch, nats per
character, a text.

    pip install 'reviewgen[reviews]'
    # film reviews, 30 seconds for each row
    python examples/the_2018_table.py --quick
    # five minutes for each row
    python examples/the_2018_table.py blogs.json --rows rows.json --svg table.svg

In 2018 the corpus was 1.4 million characters of music blogs, lower-cased, a fifth of its texts held
out. Another corpus is cut to that length and split in the same way. Each network has its size of
2018 and is trained on one CPU core until the time is up; the weights of its best evaluation are
kept. Two rows do without reviewgen's models and trainer: a recurrent network in plain tensors, and
``nn.RNN``, both in the training loop of a first notebook. All texts continue "the " with seed 1,
and are drawn from the whole distribution, as in 2018; the last two rows have the preset's own
settings. A text ends at the last word or sentence that fits its line.

The times of an epoch are those of equal work: the training texts once, batches of 32 x 64
characters, 32-bit floats, AdamW, no evaluations; in the last two rows, those of their training. The
figures of 2018 are those noted then, with the networks on a GPU; the losses are in its notebooks,
https://github.com/iconix/openai.
"""

import argparse
import copy
import json
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reviewgen

CHARACTERS_2018 = 1_417_998  # of the corpus
# characters of a text in the table
PROMPT = "the "
LINE = 104
# of a batch
LANES = 32
STEPS = 64
# of each network
EMBEDDING = 42
HIDDEN = 128
COUNTED = ("ngram-char", "mixing-char")  # presets that are trained in one pass
KEPT_BACK = 40  # training texts, to choose the best weights by
COPY = 50  # characters that a text must share with the training texts to count as a copy
TIMED = 200  # steps

NETWORK = {"embedding_size": EMBEDDING, "hidden_size": HIDDEN}
RECURRENT = NETWORK | {"ngrams": 1, "output_dropout": 0.0}  # as in 2018: no embeddings of n-grams
BATCH = {"batch_size": LANES, "bptt": STEPS, "threads": 1}
PLAIN = BATCH | {
    "optimizer": "adamw",
    "precision": "no",
    "evaluations": 1,
    "copy_tokens": 0,
    "novelty": "none",
}
# the whole distribution
WHOLE = {"temperature": 1.0, "top_p": 1.0, "words": "any", "finish": "anywhere"}


@dataclass(frozen=True)
class Texts:
    """The corpus: training texts, those kept back, all held-out texts, and those of them that copy
    no training text.
    """

    train: list[str]
    validation: list[str]
    held_out: list[str]
    clean: list[str]


@dataclass(frozen=True)
class Result:
    """What a row measures: seconds of an epoch, nats per character of all and of clean held-out
    texts, and a text.
    """

    epoch: float
    nats: float
    clean_nats: float
    text: str


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Attributes:
        name: Its name.
        what: What it is.
        limit: What it cannot do.
        window: The number of characters that it sees at a step.
        boxes: The names of its layers.
        has_state: Whether each layer carries a state to the next character.
        epoch_2018: The time of an epoch as it was noted in 2018; empty if unknown.
        nats_2018: Nats per character of all held-out texts in 2018; None if unknown.
        measure: Trains it for a number of seconds.
    """

    name: str
    what: str
    limit: str
    window: int
    boxes: tuple[str, ...]
    has_state: bool
    epoch_2018: str
    nats_2018: float | None
    measure: Callable[[Texts, float], Result]


def read_texts(source: str) -> Texts:
    """Read the corpus and split it as in 2018: a fifth of the shuffled texts, as scikit-learn's
    ``train_test_split`` draws it.
    """
    corpus = reviewgen.corpus(source, lowercase=True, clean=False)
    texts = []
    total = 0
    for text in corpus["text"]:
        if total < CHARACTERS_2018:
            texts.append(text)
            total += len(text)
    order = np.random.RandomState(42).permutation(len(texts))
    count = -(-len(texts) // 5)
    held_out, train = (
        [texts[number] for number in part] for part in (order[:count], order[count:])
    )
    seen = set(map(hash, chain.from_iterable(map(runs_of, train))))
    clean = [text for text in held_out if not any(hash(run) in seen for run in runs_of(text))]
    return Texts(train[KEPT_BACK:], train[:KEPT_BACK], held_out, clean)


def runs_of(text: str) -> list[str]:
    """Return all runs of characters that are long enough to be a copy."""
    return [text[start : start + COPY] for start in range(len(text) - COPY + 1)]


# Rows of reviewgen's presets.


def measure_preset(
    preset: str,
    model: dict[str, Any],
    training: dict[str, Any],
    settings: dict[str, Any],
    texts: Texts,
    seconds: float,
) -> Result:
    """Train a preset and measure it; an epoch of a network without settings is timed as it
    trains.
    """
    has_own_epoch = model or preset in COUNTED
    epoch = time_epoch(preset, model, texts) if has_own_epoch else 0.0
    options: dict[str, Any] = {"validation": texts.validation, "clean": False, "progress": False}
    trained = reviewgen.train(
        preset, texts.train, budget=seconds, model=model, training=training, **options
    )
    if not has_own_epoch:
        curve = trained.training["curve"]
        pace = np.median(np.diff(curve["seconds"]) / np.diff(curve["tokens_seen"]))
        epoch = float(pace) * trained.training["data"]["tokens"]["train"]
    nats = [
        trained.evaluate(each, clean=False).nats_per_character
        for each in (texts.held_out, texts.clean)
    ]
    text = trained.generate_one(PROMPT, seed=1, max_new_tokens=2 * LINE, **settings)
    return Result(epoch, *nats, one_line(text))


def time_epoch(preset: str, model: dict[str, Any], texts: Texts) -> float:
    """Return the seconds of an epoch, from the median of some steps; of a preset that
    is trained in one pass, those of this pass once all is compiled.
    """
    if preset in COUNTED:
        return min(time_counting(preset, model, texts) for _ in range(2))
    run = prepare(preset, texts, model)
    marks = [(time.process_time(), report.tokens) for report in islice(run, TIMED)]
    paces = [
        (after - before) / (more - fewer) for (before, fewer), (after, more) in pairwise(marks)
    ]
    return float(np.median(paces)) * run.corpus.stores["train"].count


def time_counting(preset: str, model: dict[str, Any], texts: Texts) -> float:
    """Return the seconds in which a whole corpus is counted."""
    run = prepare(preset, texts, model)
    start = time.process_time()
    for _ in run:
        pass
    return time.process_time() - start


def prepare(preset: str, texts: Texts, model: dict[str, Any]) -> reviewgen.TrainingRun:
    """Return a run whose corpus is read and tokenized, for timing."""
    options: dict[str, Any] = {"validation": texts.validation, "clean": False, "training": PLAIN}
    run = reviewgen.TrainingRun(preset, texts.train, budget=3600, model=model, **options)
    run.read()
    run.tokenize()
    return run


# Rows of plain loops.


class SpelledOut(nn.Module):
    """A simple recurrent network (Elman 1990) in plain tensors: h = tanh(x W + h U + b), logits = h
    V + c.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab_size, EMBEDDING))
        self.input = _matrix(EMBEDDING, HIDDEN)
        self.recurrent = _matrix(HIDDEN, HIDDEN)
        self.bias = nn.Parameter(torch.zeros(HIDDEN))
        self.output = _matrix(HIDDEN, vocab_size)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T, V) of ids (B, T), and the state (B, H) after the last of
        them.
        """
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
        """Return the logits (B, T, V) of ids (B, T), and the state (B, H) after the last of
        them.
        """
        outputs, state = self.recurrent(self.embedding(ids), state[None])
        return self.output(outputs), state[0]


def _matrix(rows: int, columns: int) -> nn.Parameter:
    limit = HIDDEN**-0.5  # as nn.RNN initializes its weights
    return nn.Parameter(torch.empty(rows, columns).uniform_(-limit, limit))


def measure_plain(make: Callable[[int], nn.Module], texts: Texts, seconds: float) -> Result:
    """Train a network in a plain loop, and measure it."""
    run = prepare("rnn-char", texts, RECURRENT)
    store = run.corpus.stores["train"]
    tokenizer = run.corpus.tokenizer
    torch.manual_seed(0)
    network = make(tokenizer.vocab_size)
    pace = train_plainly(
        network,
        np.asarray(store.ids),
        lambda: mean_nats(network, tokenizer, texts.validation),
        seconds,
    )
    nats = [mean_nats(network, tokenizer, each) for each in (texts.held_out, texts.clean)]
    return Result(pace * store.count, *nats, one_line(sample_plainly(network, tokenizer)))


def train_plainly(
    network: nn.Module, ids: np.ndarray, evaluate: Callable[[], float], seconds: float
) -> float:
    """Train until the time is up; keep the best weights of all epochs, and return the median
    seconds per token.
    """
    length = (len(ids) - 1) // LANES
    stream = torch.from_numpy(ids[: LANES * length + 1].astype(np.int64))
    lanes = torch.stack([stream[lane * length : (lane + 1) * length + 1] for lane in range(LANES)])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    end = time.monotonic() + seconds
    best = (float("inf"), network.state_dict())
    paces = []
    while time.monotonic() < end:
        state = torch.zeros(LANES, HIDDEN)
        for first in range(0, max(1, length - STEPS), STEPS):
            start = time.process_time()
            batch = lanes[:, first : first + STEPS + 1]
            logits, state = network(batch[:, :-1], state.detach())
            loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            paces.append((time.process_time() - start) / batch[:, 1:].numel())
            if time.monotonic() > end:
                break
        best = min(
            best, (evaluate(), copy.deepcopy(network.state_dict())), key=lambda each: each[0]
        )
    network.load_state_dict(best[1])
    return float(np.median(paces))


@torch.no_grad()
def mean_nats(network: nn.Module, tokenizer: Any, texts: list[str]) -> float:
    """Return the nats per character of texts, their ends included."""
    total = 0.0
    for text in texts:
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])
        logits, _ = network(ids[:, :-1], torch.zeros(1, HIDDEN))
        total += F.cross_entropy(logits[0], ids[0, 1:], reduction="sum").item()
    return total / sum(map(len, texts))


@torch.no_grad()
def sample_plainly(network: nn.Module, tokenizer: Any) -> str:
    """Return a text, drawn character by character from the whole distribution."""
    generator = torch.Generator().manual_seed(1)
    ids = [tokenizer.bos_id, *tokenizer.encode(PROMPT)]
    logits, state = network(torch.tensor([ids]), torch.zeros(1, HIDDEN))
    for _ in range(2 * LINE):
        drawn = int(torch.multinomial(logits[0, -1].softmax(-1), 1, generator=generator))
        if drawn == tokenizer.eos_id:
            break
        ids.append(drawn)
        logits, state = network(torch.tensor([[drawn]]), state)
    return tokenizer.decode(ids[1:])


def one_line(text: str) -> str:
    """Return a text as one line that ends with the last sentence that fits, if that is half of it,
    or with the last word.
    """
    words = " ".join(text.split())
    fits = words if len(words) <= LINE else words[: words.rindex(" ", 0, LINE + 1)]
    end = max(fits.rfind(mark) + 1 for mark in (". ", "! ", "? "))
    return fits[:end] if end > LINE // 2 and len(words) > LINE else fits


# The table.

TRAINING = BATCH | {"weight_decay": 0.01, "copy_tokens": 0, "novelty": "none"}
COUNTING = {"copy_tokens": 0, "novelty": "none"}
TODAY = {"threads": 1, "copy_tokens": 0}


def preset(name: str, **model: Any) -> Callable[[Texts, float], Result]:
    """Return how a preset is measured with settings of its model."""
    return partial(measure_preset, name, model, COUNTING if name in COUNTED else TRAINING, WHOLE)


ROWS = (
    Row(
        "n-gram, 4 characters",
        "Counts which character followed the last 4.",
        "Cannot see anything before them.",
        4,
        ("counts",),
        False,
        "2.21 s",
        None,
        preset("ngram-char", order=5),
    ),
    Row(
        "n-gram, 8 characters",
        "Counts which character followed the last 8.",
        "Cannot go on for long without copying.",
        8,
        ("counts",),
        False,
        "4.69 s",
        None,
        preset("ngram-char", order=9),
    ),
    Row(
        "context mixing",
        "Learns which contexts to trust in each place.",
        "Cannot tell that two words are alike.",
        8,
        ("mixer",),
        False,
        "",
        None,
        preset("mixing-char"),
    ),
    Row(
        "neural n-gram",
        "A hidden layer over embeddings of the last 4.",
        "Cannot see anything before them, either.",
        4,
        ("ReLU",),
        False,
        "19 m",
        None,
        preset("nnlm-char", order=5, **NETWORK),
    ),
    Row(
        "RNN, spelled out",
        "h′ = tanh(W x + U h + b), in plain tensors.",
        "Cannot be fast: Python runs every step.",
        1,
        ("tanh",),
        True,
        "24 m",
        None,
        partial(measure_plain, SpelledOut),
    ),
    Row(
        "nn.RNN, plain loop",
        "The same network as a layer of PyTorch.",
        "Cannot settle: its learning rate never falls.",
        1,
        ("tanh",),
        True,
        "5.51 s",
        None,
        partial(measure_plain, TorchRnn),
    ),
    Row(
        "nn.RNN, our trainer",
        "The same layer; Muon, and a rate that falls to 0.",
        "Cannot remember more than a few words back.",
        1,
        ("tanh",),
        True,
        "1.47 s",
        1.8787,
        preset("rnn-char", **RECURRENT, layer="fused"),
    ),
    Row(
        "GRU",
        "Two gates decide what the state keeps.",
        "Cannot keep a memory apart from its output.",
        1,
        ("GRU",),
        True,
        "1.42 s",
        1.7120,
        preset("gru-char", **RECURRENT),
    ),
    Row(
        "LSTM",
        "Three gates around a memory cell; two layers.",
        "Cannot keep to a subject for long.",
        1,
        ("LSTM", "LSTM"),
        True,
        "1.92 s",
        1.5526,
        preset("lstm-char", **RECURRENT, layers=2),
    ),
    Row(
        "lstm-char of today",
        "Also sees short n-grams; its size fits the time.",
        "Cannot know whether it is true.",
        3,
        ("LSTM",),
        True,
        "",
        None,
        partial(measure_preset, "lstm-char", {}, TODAY, {}),
    ),
    Row(
        "transformer-char of today",
        "Looks back at 128 characters, each weighed.",
        "Cannot win in minutes on so little text.",
        8,
        ("attention",),
        False,
        "",
        None,
        partial(measure_preset, "transformer-char", {}, TODAY, {}),
    ),
)


def figures(row: Row, result: Result) -> list[str]:
    """Return the five figures of a row as text: an epoch then and now; nats then, now, and of clean
    texts.
    """
    nats_2018 = f"{row.nats_2018:.3f}" if row.nats_2018 else "–"
    epoch = f"{result.epoch:.2f} s" if result.epoch < 100 else f"{result.epoch / 60:.0f} m"
    return [
        row.epoch_2018 or "–",
        epoch,
        nats_2018,
        f"{result.nats:.3f}",
        f"{result.clean_nats:.3f}",
    ]


def train_rows(
    texts: Texts, seconds: float, rows: dict[str, Result], save: Callable[[], None]
) -> None:
    """Train what has no result yet; print each row."""
    print(f"{'':22}{'an epoch':>18}{'nats per character':>28}")
    print(f"{'':22}{'2018':>9}{'now':>9}{'2018':>10}{'now':>9}{'clean':>9}")
    for row in ROWS:
        if row.name not in rows:
            rows[row.name] = row.measure(texts, seconds)
            save()
        print(
            f"{row.name:22}{{:>9}}{{:>9}}{{:>10}}{{:>9}}{{:>9}}".format(
                *figures(row, rows[row.name])
            )
        )
        print(f"    {rows[row.name].text}", flush=True)


# The picture: SVG in pixels, 800 wide, in light or dark as the reader prefers.

WIDTH = 800
MARGIN = 14
HEAD = 66
HEIGHT = 76
COLUMNS = (576, 634, 690, 738, 786)  # right edges of the figures
GRAPH = 316  # left edge
STYLE = """
    .t {
      --ink: #1f2328; --soft: #59636e; --paper: #ffffff; --line: #d1d9e0;
      --box: #ddf4ff; --edge: #0969da; --loop: #bc4c00;
    }
    @media (prefers-color-scheme: dark) {
      .t {
        --ink: #f0f6fc; --soft: #9198a1; --paper: #0d1117; --line: #3d444d;
        --box: #122d4b; --edge: #58a6ff; --loop: #f0883e;
      }
    }
    text {
      font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial,
        'DejaVu Sans', sans-serif;
    }
    text { fill: var(--ink); white-space: pre; }
    .name { font-size: 14px; font-weight: 600; }
    .text { font-family: Georgia, 'DejaVu Serif', serif; }
    .letter { font: 10px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
    .soft { fill: var(--soft); }
    .box { fill: var(--box); stroke: var(--edge); }
    .rule { stroke: var(--line); }
    .line { fill: none; stroke: var(--soft); }
    .head { fill: var(--soft); }
    .loop { fill: none; stroke: var(--loop); }
    .turn { fill: var(--loop); }
"""


def draw_table(rows: dict[str, Result], seconds: float, corpus: str) -> str:
    """Return the table as SVG."""
    height = HEAD + HEIGHT * len(ROWS) + 66
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="t" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}">'
    )
    parts = [
        head,
        "<title>Eleven models from an n-gram to a transformer, in 2018 and now</title>",
        f"<style>{STYLE}</style>",
    ]
    parts += [f'<rect width="{WIDTH}" height="{height}" rx="6" fill="var(--paper)"/>']
    for x, words in ((COLUMNS[1], "an epoch"), (COLUMNS[4], "nats per character")):
        parts.append(write(x, 26, words, "soft", "end"))
    parts += [write(MARGIN, 46, "model", "soft"), write(GRAPH, 46, "graph", "soft")]
    parts += [
        write(x, 46, word, "soft", "end")
        for x, word in zip(COLUMNS, ("2018", "now", "2018", "now", "clean"), strict=True)
    ]
    for number, row in enumerate(ROWS):
        parts += draw_row(row, rows[row.name], HEAD + HEIGHT * number)
    notes = (
        f"Corpus: {corpus}. {duration(seconds)} of one CPU core for each model; in 2018, networks"
        " on a GPU. All networks but the last two have the sizes of 2018, embeddings of"
        f" {EMBEDDING} and layers of {HIDDEN}. clean: held-out texts without copies of training"
        " texts. –: not known. Texts continue “the ” with seed 1; all but the last two are drawn"
        " from the whole distribution."
    )
    lines = textwrap.wrap(notes, 122)
    parts += [
        write(MARGIN, height - 16 * (len(lines) - number) + 2, line, "soft")
        for number, line in enumerate(lines)
    ]
    return "\n".join([*parts, "</svg>", ""])


def draw_row(row: Row, result: Result, top: int) -> list[str]:
    """Return a row: name, what it is, what it cannot, graph, figures; and its text below them."""
    rule = f'<path class="rule" d="M{MARGIN} {top - 8}H{WIDTH - MARGIN}"/>'
    words = [
        write(MARGIN, top + 10, row.name, "name"),
        write(MARGIN, top + 27, row.what),
        write(MARGIN, top + 42, row.limit),
    ]
    numbers = [
        write(x, top + 27, each, anchor="end")
        for x, each in zip(COLUMNS, figures(row, result), strict=True)
    ]
    return [
        rule,
        *words,
        *draw_graph(row, GRAPH, top + 23),
        *numbers,
        write(MARGIN, top + 61, result.text, "text soft"),
    ]


def draw_graph(row: Row, x: float, y: float) -> list[str]:
    """Return a model's graph: the characters that it sees, its layers with their states as loops,
    the probabilities p.
    """
    parts = []
    for letter in "was the "[-row.window :].replace(" ", "␣"):
        parts.append(f'<rect class="box" x="{x}" y="{y - 8}" width="12" height="16" rx="2"/>')
        parts.append(write(x + 6, y + 4, letter, "letter", "middle"))
        x += 14
    for name in row.boxes:
        width = 12 + 6.5 * len(name)
        parts += [
            arrow(x, y),
            f'<rect class="box" x="{x + 14}" y="{y - 11}" width="{width}" height="22" rx="4"/>',
        ]
        parts.append(write(x + 14 + width / 2, y + 4, name, anchor="middle"))
        if row.has_state:
            left = x + 20
            right = x + 8 + width
            parts.append(
                f'<path class="loop" d="M{right} {y - 11}C{right} {y - 27} {left} {y - 27} {left}'
                f' {y - 15}"/>'
            )
            parts.append(f'<path class="turn" d="M{left} {y - 11}l-3 -6h6Z"/>')
        x += 16 + width
    return [*parts, arrow(x, y), write(x + 16, y + 4, "p")]


def arrow(x: float, y: float) -> str:
    """Return an arrow to the right, 12 pixels long."""
    return f'<path class="line" d="M{x} {y}h7"/><path class="head" d="M{x + 12} {y}l-6 -3v6Z"/>'


def write(x: float, y: float, words: str, role: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x}" y="{y}" class="{role}" text-anchor="{anchor}">{escape(words)}</text>'


def duration(seconds: float) -> str:
    """Return seconds in words."""
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"


def main(arguments: list[str] | None = None) -> dict[str, Result]:
    """Print the table; return its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "corpus", nargs="?", default="reviews", help="a file of texts; by default the film reviews"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="the time for each row (300)")
    parser.add_argument("--quick", action="store_true", help="30 seconds for each row")
    parser.add_argument(
        "--rows", type=Path, help="a JSON file to save rows in; those that it has are not trained"
    )
    parser.add_argument("--svg", type=Path, help="a file to save the table in, as a picture")
    parser.add_argument("--name", help="what the picture calls the corpus")
    options = parser.parse_args(arguments)
    seconds = 30.0 if options.quick else options.seconds
    # matrices this small gain nothing from more, and lose much on a busy machine
    torch.set_num_threads(1)
    facts = {"corpus": options.corpus, "seconds": seconds}
    rows = {}
    if options.rows and options.rows.exists():
        saved = json.loads(options.rows.read_text(encoding="utf-8"))
        if saved["facts"] != facts:
            parser.error(f"{options.rows} has rows of {saved['facts']}: give another file")
        rows = {name: Result(**values) for name, values in saved["rows"].items()}

    def save() -> None:
        if options.rows:
            values = {
                "facts": facts,
                "rows": {name: asdict(result) for name, result in rows.items()},
            }
            options.rows.write_text(json.dumps(values, indent=1), encoding="utf-8")

    train_rows(read_texts(options.corpus), seconds, rows, save)
    if options.svg:
        options.svg.write_text(
            draw_table(rows, seconds, options.name or Path(options.corpus).stem), encoding="utf-8"
        )
    return rows


if __name__ == "__main__":
    main()
