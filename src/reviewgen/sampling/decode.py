"""The decoding loop: prompts in, texts out, many rows at once.

Every row draws from a random stream of its own, made from the seed and the row's number, so a text does not depend on which
others are written beside it. Global random state is never touched. Works with any LanguageModel through its plain call, token
by token; one that is ``SupportsSample`` draws blocks of tokens in its own loop as soon as the prompt is spelled.

With a guard no token may complete a copied span: one that would is drawn again from those that do not. Where only the end of the
text is left, a row goes back a few tokens, twice as many each time, and takes another way; after ``TRIES`` of these it takes the
forbidden token and says so.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from reviewgen.compiled.draw import draw, draw_rows, weigh_logits
from reviewgen.compiled.windows import WindowSet, copies, forbid
from reviewgen.config import GenerationConfig
from reviewgen.protocols import DEAD_END, LanguageModel, State, SupportsSample, Tokenizer
from reviewgen.sampling.prompt import Pieces
from reviewgen.sampling.row import Row, whole_text

__all__ = ["Guard", "decode", "select_rows"]

Guard: TypeAlias = tuple[WindowSet, int]
"""Windows that must not be completed, and how many in a row; see ``reviewgen.compiled.windows.copies``."""

TRIES = 12  # that a row goes back at dead ends
_READ_TOKENS = 512  # of a prompt, at a time
_BLOCK, _LONGEST_BLOCK = 64, 4096  # numbers a row for a model's own loop; twice as many each time


def decode(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Pieces,
    rows: list[Row],
    config: GenerationConfig,
    stop_strings: Sequence[str] = (),
    device: str = "cpu",
    guard: Guard | None = None,
) -> Iterator[list[Row]]:
    """Extend the rows until each is finished; yield those that got tokens, after every step."""
    if config.max_new_tokens == 0:
        for row in rows:
            row.ids += tokenizer.encode(row.rest)
            row.text, row.finish_reason = row.prompt, "length"
        return
    longest = config.max_new_tokens + max((len(row.ids) + len(row.rest) for row in rows), default=0)
    if guard is not None and guard[0].length + guard[1] - 1 > longest:
        guard = None  # no text gets as long as that
    decoding = _Decoding(model, tokenizer, pieces, config, stop_strings, device, guard)
    pending = list(rows)
    while pending:
        yield from decoding.run(pending)
        pending = [row for row in pending if row.finish_reason is None]
        for row in pending:
            decoding.go_back(row)


@dataclass(frozen=True)
class _Decoding:
    """What stays the same from step to step."""

    model: LanguageModel
    tokenizer: Tokenizer
    pieces: Pieces
    config: GenerationConfig
    stop_strings: Sequence[str]
    device: str
    guard: Guard | None

    def run(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Extend rows until each is finished or stands before a dead end."""
        logits, state = self._read_prompts(rows)
        live, spelled = list(rows), []
        while live:
            if isinstance(self.model, SupportsSample):
                ready = [n for n, row in enumerate(live) if not row.rest and not row.forced and row.tries < TRIES]
                spelled += [(live[number], self._select(state, [number])) for number in ready]
                live, logits, state = self._keep(live, logits, state, set(range(len(live))) - set(ready))
                if not live:
                    break
            going = self._step(live, logits)
            yield live
            live, _, state = self._keep(live, logits, state, going)
            if live:
                last = torch.tensor([[row.ids[-1]] for row in live], device=self.device)
                logits, state = _call(self.model, last, state)
        if spelled:
            yield from self._sample([row for row, _ in spelled], _stack([part for _, part in spelled]))

    def go_back(self, row: Row) -> None:
        """Take a row that stands before a dead end back to where it may go another way."""
        row.tries += 1
        back = min(1 << row.tries, len(row.ids) - row.spelled)
        if back:
            del row.ids[-back:]
            row.new_tokens -= back

    def _step(self, live: list[Row], logits: Tensor) -> set[int]:
        """Give every row a token; return which go on."""
        table = logits.to("cpu", torch.float32, copy=True).numpy()  # (B, V)
        self._prepare(table, live)
        weights = weigh_logits(table, self.config.temperature)
        uniform = np.array([row.random.random() for row in live])
        tokens = np.empty(len(live), np.int64)
        draw_rows(weights, *self._filters, uniform, tokens)
        going = set()
        for number, (row, token) in enumerate(zip(live, tokens.tolist(), strict=True)):
            token = self._allowed(row, token, table[number])
            if token == DEAD_END:
                continue
            self._extend(row, token)
            if row.finish_reason is None:
                going.add(number)
        return going

    @property
    def _filters(self) -> tuple[int, float, float]:
        top_k = self.config.top_k if self.config.top_k < self.tokenizer.vocab_size else 0  # it may be too large for compiled code
        return top_k, float(self.config.top_p), float(self.config.min_p)

    def _prepare(self, table: Float[np.ndarray, "B V"], rows: list[Row]) -> None:
        """Rule out bos, and what does not spell the prompt where its end is still to be spelled."""
        table[:, self.tokenizer.bos_id] = -np.inf
        for number, row in enumerate(rows):
            if row.rest:
                allowed = self.pieces.spelling(row.rest) & (table[number] > -np.inf)
                if allowed.any():
                    table[number][~allowed] = -np.inf
                else:  # no likely way to spell it, so as the tokenizer does
                    row.forced, row.rest = self.tokenizer.encode(row.rest), ""

    def _allowed(self, row: Row, token: int, logits: Float[np.ndarray, " V"]) -> int:
        """Return the token, another in its place where it would complete a copied span, or DEAD_END."""
        spells = row.forced or 0 < len(self.pieces.texts[token]) <= len(row.rest)  # the prompt, and no more
        if self.guard is None or token == self.tokenizer.eos_id or spells:
            return token
        windows, run = self.guard
        text = np.array([*self._tail(row), token])
        if not copies(windows, text, len(text) - 1, run):
            return token
        weights = weigh_logits(logits, 1.0)  # at a low temperature all but the forbidden would seem impossible
        forbid(windows, text, len(text) - 1, run, weights)
        weights[self.tokenizer.eos_id] = 0.0
        if weights.max() > 0:
            weights = weigh_logits(np.where(weights > 0, logits, -np.inf), self.config.temperature)
            return int(draw(weights, *self._filters, row.random.random()))
        return self._meet_dead_end(row, token)

    def _meet_dead_end(self, row: Row, token: int) -> int:
        """Return DEAD_END, or the forbidden token once a row has gone back often enough, or where it runs on from the prompt."""
        if row.tries < TRIES and not row.rest:
            return DEAD_END
        row.exceeds_limit = True
        return token

    def _tail(self, row: Row) -> list[int]:
        """Return as many of a row's last tokens as the guard looks at, bos before the first."""
        assert self.guard is not None
        size = self.guard[0].length + self.guard[1] - 2
        return ([self.tokenizer.bos_id] * size + row.ids)[len(row.ids) :]

    def _extend(self, row: Row, token: int) -> None:
        """Add a token to a row and finish the row where it ends."""
        is_prompt = bool(row.forced or row.rest)
        if row.forced:
            row.ids.append(row.forced.pop(0))
        elif token == self.tokenizer.eos_id:
            row.finish_reason = "end"
        else:
            row.ids.append(token)
            row.new_tokens += len(self.pieces.texts[token]) > len(row.rest) or not row.rest
            row.rest = row.rest[len(self.pieces.texts[token]) :]
            if self.stop_strings and not row.rest and self._stops(row, 1):
                return
            if row.new_tokens == self.config.max_new_tokens:
                row.finish_reason = "length"
        if is_prompt:
            row.spelled = len(row.ids)
        if row.finish_reason is not None:
            row.text = whole_text(row, self.tokenizer)

    def _sample(self, live: list[Row], state: State) -> Iterator[list[Row]]:
        """Let the model extend rows in its own loop, block by block."""
        assert isinstance(self.model, SupportsSample)
        size = _BLOCK
        while live:
            uniform = np.stack([row.random.random(size) for row in live])
            tails = np.array([self._tail(row) for row in live], np.int64) if self.guard else None
            tokens, state = self.model.sample(state, uniform, self.tokenizer.eos_id, self.config, self.guard, tails)
            going = {number for number, row in enumerate(live) if self._extend_by(row, tokens[number])}
            yield live
            live, state = [live[number] for number in sorted(going)], self._select(state, sorted(going))
            size = min(2 * size, _LONGEST_BLOCK)

    def _extend_by(self, row: Row, drawn: Int64[np.ndarray, " N"]) -> bool:
        """Add a block of tokens to a row; return whether it goes on."""
        tokens = drawn[: int((drawn >= 0).sum())].tolist()
        meets_dead_end = len(tokens) < len(drawn) and drawn[len(tokens)] == DEAD_END
        ends = bool(tokens) and tokens[-1] == self.tokenizer.eos_id
        room = self.config.max_new_tokens - row.new_tokens
        kept = (tokens[:-1] if ends else tokens)[:room]
        row.ids += kept
        row.new_tokens += len(kept)
        if self.stop_strings and self._stops(row, len(kept)):
            return False
        if row.new_tokens == self.config.max_new_tokens:
            row.finish_reason = "length"
        elif ends:
            row.finish_reason = "end"
        if row.finish_reason is not None:
            row.text = whole_text(row, self.tokenizer)
        return row.finish_reason is None and not meets_dead_end

    def _stops(self, row: Row, newest: int) -> bool:
        """Finish a row at the end of the first stop string in what was generated; its last ``newest`` tokens are new."""
        window = 8 * max(map(len, self.stop_strings)) + 7 + newest  # tokens; a character takes eight at most
        tail = self.tokenizer.decode(row.ids[-window:])
        if not any(stop in tail for stop in self.stop_strings):
            return False
        text = whole_text(row, self.tokenizer)
        ends = [place + len(stop) for stop in self.stop_strings if (place := text.find(stop, len(row.prompt))) >= 0]
        if not ends:
            return False
        row.text, row.finish_reason = text[: min(ends)], "stop"
        self._drop_unused(row)
        return True

    def _drop_unused(self, row: Row) -> None:
        """Forget the tokens behind the end of a row's text."""

        def spelled(count: int) -> str:
            return row.prompt + self.tokenizer.decode(row.ids[:count])[row.prompt_length :]

        kept = bisect_left(range(len(row.ids)), len(row.text), key=lambda count: len(spelled(count)))
        while kept < len(row.ids) and not spelled(kept).startswith(row.text):  # inside a character
            kept += 1
        row.new_tokens -= len(row.ids) - kept
        del row.ids[kept:]

    def _read_prompts(self, rows: list[Row]) -> tuple[Tensor, State]:
        """Read each distinct text once and return the logits (B, V) after it, and the state."""
        read: dict[tuple[int, ...], tuple[Tensor, State]] = {}
        for row in rows:
            key = (self.tokenizer.bos_id, *row.ids)
            if key not in read:
                read[key] = _read(self.model, torch.tensor([key], device=self.device))
        results = [read[self.tokenizer.bos_id, *row.ids] for row in rows]
        return torch.cat([logits for logits, _ in results]), _stack([state for _, state in results])

    def _keep(self, live: list[Row], logits: Tensor, state: State, going: set[int]) -> tuple[list[Row], Tensor, State]:
        """Return rows, logits and state of those that go on."""
        if len(going) == len(live):
            return live, logits, state
        numbers = sorted(going)
        return [live[number] for number in numbers], logits[numbers], self._select(state, numbers)

    def _select(self, state: State, numbers: list[int]) -> State:
        return select_rows(state, torch.tensor(numbers, dtype=torch.long, device=self.device))


def select_rows(state: State, rows: Tensor) -> State:
    """Return the state of some of the rows."""
    if isinstance(state, tuple):
        return tuple(select_rows(part, rows) for part in state)
    return state.index_select(0, rows)


def _read(model: LanguageModel, ids: Tensor) -> tuple[Tensor, State]:
    state = model.initial_state(1)
    for piece in torch.split(ids, _READ_TOKENS, dim=1):
        logits, state = _call(model, piece, state)
    return logits, state


@torch.inference_mode()
def _call(model: LanguageModel, ids: Tensor, state: State) -> tuple[Tensor, State]:
    """Return the logits (B, V) after the last token, and the state."""
    logits, state = model(ids, state)
    return logits[:, -1], state


def _stack(states: list[State]) -> State:
    if isinstance(states[0], tuple):
        return tuple(_stack(list(parts)) for parts in zip(*states, strict=True))
    return torch.cat(states)
