"""Beam search: the most probable texts instead of drawn ones.

The rules are those of transformers' ``generate`` with ``early_stopping=False``: of the 2 x K best continuations of K beams, those
that end are kept with their score, log probability / tokens ** length_penalty, and the best K of the others go on; it ends when
no beam can still beat the worst of K finished texts.
"""

import time
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.compiled.draw import adjust
from reviewgen.config import GenerationConfig
from reviewgen.errors import GenerationError
from reviewgen.protocols import Stepper, Tokenizer
from reviewgen.sampling.drawing import make_drawing
from reviewgen.sampling.ends import Ends
from reviewgen.sampling.hooks import Hooks
from reviewgen.sampling.prompt import Pieces
from reviewgen.sampling.row import Row
from reviewgen.sampling.states import select_rows

__all__ = ["search"]


@dataclass(order=True)
class _Beam:
    """A text and its log probability (nats), of the tokens after what the model read of the prompt."""

    score: float
    row: Row = field(compare=False)
    log_probability: float = field(compare=False)


def search(
    stepper: Stepper,
    tokenizer: Tokenizer,
    pieces: Pieces,
    start: Row,
    config: GenerationConfig,
    hooks: Hooks | None = None,
    deadline: float | None = None,
) -> list[Row]:
    """Return the ``config.num_return_sequences`` best of ``config.num_beams`` texts that continue a row, the best first.

    Raises:
        GenerationError: The logits are no numbers, a logits processor rules out every token, or there are fewer texts.
    """
    begun = time.monotonic()
    if config.max_new_tokens == 0:
        return [_unwritten(start, tokenizer) for _ in range(config.num_return_sequences)]
    found = _Search(
        tokenizer,
        pieces,
        config,
        hooks,
        Ends(tokenizer, config.max_new_tokens, config.stop_strings, config.finish, config.min_new_tokens),
    )
    found.run(stepper, start, deadline)
    if not found.finished and start.rest:  # no likely way to spell the prompt, so as the tokenizer does
        ids = [*start.ids, *tokenizer.encode(start.rest)]
        found.run(stepper, replace(start, ids=ids, rest="", spelled=len(ids)), deadline)
    if len(found.finished) < config.num_return_sequences:
        raise GenerationError(
            f"num_return_sequences={config.num_return_sequences} is more than the number of texts found after the prompt, "
            f"{len(found.finished)}."
        )
    best = found.finished[: config.num_return_sequences]
    for beam in best:
        beam.row.seconds = time.monotonic() - begun
    return [beam.row for beam in best]


def _unwritten(start: Row, tokenizer: Tokenizer) -> Row:
    """Return a row that is its prompt."""
    return replace(start, ids=[*start.ids, *tokenizer.encode(start.rest)], text=start.prompt, finish_reason="length")


@dataclass
class _Search:
    """What stays the same from step to step, and what has ended."""

    tokenizer: Tokenizer
    pieces: Pieces
    config: GenerationConfig
    hooks: Hooks | None
    ends: Ends
    finished: list[_Beam] = field(default_factory=list)

    def run(self, stepper: Stepper, start: Row, deadline: float | None) -> None:
        """Search until nothing better can be found."""
        logits, state = stepper.read(np.array([[*start.start, *start.ids]], np.int64), stepper.initial_state(1))
        live = [_Beam(0.0, start, 0.0)]
        while True:
            before = live
            table = np.stack([self.scores(beam.row, row) for beam, row in zip(live, logits, strict=True)])
            sources, live = self.step(live, table)
            if deadline is not None and time.monotonic() > deadline:
                self.finish(live, "time")
                return
            if not live and not self.finished:
                self.finish([beam for beam in before if not beam.row.rest], "stuck")
            if not live or self.is_over(live):
                return
            state = select_rows(state, sources)
            logits, state = stepper.read(np.array([[beam.row.ids[-1]] for beam in live], np.int64), state)

    def scores(self, row: Row, logits: Float[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
        """Return the log probabilities of what may follow a row, after penalties and hooks; -inf is ruled out."""
        drawing = make_drawing(self.config, self.tokenizer)
        table = np.full(len(logits), -np.inf)
        table[: drawing.size] = logits[: drawing.size]
        table[drawing.bos_id] = -np.inf
        if row.rest:
            table[: drawing.size][~self.pieces.spelling(row.rest)] = -np.inf
        largest = table.max()
        if largest == -np.inf:
            return table
        if not np.isfinite(largest):
            raise GenerationError.of_damaged_logits()
        table -= largest + np.log(np.exp(table - largest).sum())
        scores, text = np.empty(len(table)), np.array([*row.start, *row.ids], np.int64)
        adjust(table, text, len(text), row.new_tokens, drawing, scores)
        return scores if self.hooks is None or row.rest else self.hooks.process(row, scores)

    def step(self, live: list[_Beam], scores: Float64[np.ndarray, "K V"]) -> tuple[list[int], list[_Beam]]:
        """Extend the beams by a token; return from which each new beam comes, and the new beams."""
        beams = self.config.num_beams
        totals = (scores + np.array([[beam.log_probability] for beam in live])).ravel()
        count = min(2 * beams, int((totals > -np.inf).sum()))
        best = np.argpartition(-totals, count - 1)[:count] if count else np.empty(0, np.int64)
        best = best[np.lexsort((best, -totals[best]))]
        sources: list[int] = []
        going: list[_Beam] = []
        for rank, place in enumerate(best.tolist()):
            source, token = divmod(place, scores.shape[1])
            row = self._extend(live[source].row, token)
            beam = _Beam(0.0, row, float(totals[place]))
            if row.finish_reason is not None:
                if rank < beams:
                    self._keep(beam)
            elif len(going) < beams:
                going.append(beam)
                sources.append(source)
        return sources, going

    def is_over(self, live: list[_Beam]) -> bool:
        """Return whether no beam can still beat the worst of the finished texts."""
        if len(self.finished) < self.config.num_beams:
            return False
        best = max(self._score(beam) for beam in live)
        return best <= min(beam.score for beam in self.finished)

    def finish(self, live: list[_Beam], reason: str) -> None:
        """Finish all beams where they are."""
        for beam in live:
            self.ends.end(beam.row, reason)
            self._keep(beam)

    def _extend(self, row: Row, token: int) -> Row:
        """Return a copy of a row with one more token, finished where it ends."""
        row = copy(row)
        row.ids = list(row.ids)
        if token == self.tokenizer.eos_id:
            self.ends.end(row, "end")
            return row
        piece = self.pieces.texts[token]
        row.ids.append(token)
        row.new_tokens += len(piece) > len(row.rest) or not row.rest
        if row.rest:
            row.rest = row.rest[len(piece) :]
            row.spelled = len(row.ids)
        if not row.rest:
            self.ends.after(row, 1)
        return row

    def _keep(self, beam: _Beam) -> None:
        """Put a finished text among the best."""
        beam.score = self._score(beam)
        self.finished = sorted([*self.finished, beam], reverse=True)[: self.config.num_beams]

    def _score(self, beam: _Beam) -> float:
        """Return the log probability over the new tokens, the end token among them, to the power of the length penalty."""
        tokens = beam.row.new_tokens + (beam.row.finish_reason == "end")
        return float(beam.log_probability / max(1, tokens) ** self.config.length_penalty)
