"""Beam search: the most probable texts instead of sampled ones.

The rules are those of transformers' ``generate`` with ``early_stopping=False``: of the 2 x K best continuations of K beams, those
that end are kept with their score, log probability / tokens ** length_penalty, and the best K of the others continue; the search
ends when no beam can still beat the worst of K finished texts.
"""

import time
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.compiled.sampling import apply_penalties
from reviewgen.errors import GenerationError
from reviewgen.generation.decode import Decoder
from reviewgen.generation.rows import Row, select_rows


@dataclass(order=True)
class _Beam:
    """A text, its score, and the log probability (nats) of the tokens after those that the model was fed of the prompt."""

    score: float
    row: Row = field(compare=False)
    log_probability: float = field(compare=False)


def search(decoder: Decoder, start: Row) -> list[Row]:
    """Return the ``num_return_sequences`` best of ``num_beams`` texts that continue a row, the best first.

    Args:
        decoder: The decoder; its guard must be None, and its hooks may have logits processors only.
        start: The row of the prompt.

    Raises:
        GenerationError: The logits are NaN or infinite, a logits processor rules out every token, or fewer texts were found.
    """
    started, config = time.monotonic(), decoder.config
    if config.max_new_tokens == 0:
        return [_unextended(start, decoder) for _ in range(config.num_return_sequences)]
    beams = _Search(decoder)
    beams.run(start)
    if not beams.finished and start.rest:  # no match has a probability: use the tokenizer's tokens
        ids = [*start.ids, *decoder.tokenizer.encode(start.rest)]
        beams.run(replace(start, ids=ids, rest="", prompt_tokens=len(ids), place=None))
    if len(beams.finished) < config.num_return_sequences:
        raise GenerationError(
            f"num_return_sequences={config.num_return_sequences} is more than the number of texts found after the prompt, "
            f"{len(beams.finished)}."
        )
    best = beams.finished[: config.num_return_sequences]
    for beam in best:
        beam.row.seconds = time.monotonic() - started
    return [beam.row for beam in best]


def _unextended(start: Row, decoder: Decoder) -> Row:
    """Return a row that is its prompt."""
    return replace(start, ids=[*start.ids, *decoder.tokenizer.encode(start.rest)], text=start.prompt, finish_reason="length")


@dataclass
class _Search:
    """A beam search: the decoder, and the finished texts, the best first."""

    decoder: Decoder
    finished: list[_Beam] = field(default_factory=list)

    def run(self, start: Row) -> None:
        """Search until no better text can be found, or the deadline has passed."""
        stepper, deadline = self.decoder.stepper, self.decoder.deadline
        logits, state = stepper.forward(np.array([[*start.prefix, *start.ids]], np.int64), stepper.initial_state(1))
        live = [_Beam(0.0, start, 0.0)]
        while True:
            before = live
            table = np.stack([self.log_probabilities(beam.row, row) for beam, row in zip(live, logits, strict=True)])
            sources, live = self.extend(live, table)
            if deadline is not None and time.monotonic() > deadline:
                self.finish(live, "time")
                return
            if not live and not self.finished:
                self.finish([beam for beam in before if not beam.row.rest], "stuck")
            if not live or self.is_over(live):
                return
            state = select_rows(state, sources)
            logits, state = stepper.forward(np.array([[beam.row.ids[-1]] for beam in live], np.int64), state)

    def log_probabilities(self, row: Row, logits: Float[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
        """Return the log probability of each next token after penalties and logits processors; -inf is ruled out."""
        decoder, params = self.decoder, self.decoder.params
        table = np.full(len(logits), -np.inf)
        table[: params.vocab_size] = logits[: params.vocab_size]
        table[params.bos_id] = -np.inf
        if row.rest:
            table[: params.vocab_size][~decoder.pieces.matches(row.rest)] = -np.inf
        unknown = ~decoder.spelled(row)
        if (table[: params.vocab_size][~unknown] > -np.inf).any():
            table[: params.vocab_size][unknown] = -np.inf
        largest = table.max()
        if largest == -np.inf:
            return table
        if not np.isfinite(largest):
            raise GenerationError.of_damaged_logits()
        table -= largest + np.log(np.exp(table - largest).sum())
        scores, text = np.empty(len(table)), np.array([*row.prefix, *row.ids], np.int64)
        apply_penalties(table, text, len(text), row.new_tokens, params, scores)
        return scores if decoder.hooks is None or row.rest else decoder.hooks.process(text.tolist(), scores)

    def extend(self, live: list[_Beam], scores: Float64[np.ndarray, "K V"]) -> tuple[list[int], list[_Beam]]:
        """Extend the beams by a token; return the beam that each new one extends, and the new beams."""
        num_beams = self.decoder.config.num_beams
        totals = (scores + np.array([[beam.log_probability] for beam in live])).ravel()
        count = min(2 * num_beams, int((totals > -np.inf).sum()))
        best = np.argpartition(-totals, count - 1)[:count] if count else np.empty(0, np.int64)
        best = best[np.lexsort((best, -totals[best]))]
        sources: list[int] = []
        going: list[_Beam] = []
        for rank, index in enumerate(best.tolist()):
            source, token = divmod(index, scores.shape[1])
            row = self._append(live[source].row, token)
            beam = _Beam(0.0, row, float(totals[index]))
            if row.finish_reason is not None:
                if rank < num_beams:
                    self._keep(beam)
            elif len(going) < num_beams:
                going.append(beam)
                sources.append(source)
        return sources, going

    def is_over(self, live: list[_Beam]) -> bool:
        """Return whether no beam can still beat the worst of the finished texts."""
        if len(self.finished) < self.decoder.config.num_beams:
            return False
        best = max(self._score(beam) for beam in live)
        return best <= min(beam.score for beam in self.finished)

    def finish(self, live: list[_Beam], reason: str) -> None:
        """Finish all beams as they are."""
        for beam in live:
            self.decoder.stopping.finish(beam.row, reason)
            self._keep(beam)

    def _append(self, row: Row, token: int) -> Row:
        """Return a copy of a row with one more token, finished if it ends there."""
        decoder = self.decoder
        row = copy(row)
        row.ids = list(row.ids)
        if token == decoder.tokenizer.eos_id:
            decoder.stopping.finish(row, "end")
            return row
        piece = decoder.pieces.texts[token]
        decoder.append(row, token)
        row.new_tokens += len(piece) > len(row.rest) or not row.rest
        if row.rest:
            row.rest = row.rest[len(piece) :]
            row.prompt_tokens = len(row.ids)
        if not row.rest:
            decoder.stopping.check(row, 1)
        return row

    def _keep(self, beam: _Beam) -> None:
        """Insert a finished text among the best."""
        beam.score = self._score(beam)
        self.finished = sorted([*self.finished, beam], reverse=True)[: self.decoder.config.num_beams]

    def _score(self, beam: _Beam) -> float:
        """Return the log probability / tokens ** length_penalty, where the tokens are the new ones, eos included."""
        tokens = beam.row.new_tokens + (beam.row.finish_reason == "end")
        return float(beam.log_probability / max(1, tokens) ** self.decoder.config.length_penalty)
