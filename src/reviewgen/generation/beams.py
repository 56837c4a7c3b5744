"""Beam search: the most probable texts instead of sampled ones.

The rules are those of transformers' ``generate`` with ``early_stopping=False``. A step extends each
of K beams by every token, and takes the 2 x K most probable results. The best K that have not ended
are the next beams. A result that has ended is a finished text if it is one of the K most probable.

    score of a text = log probability / tokens ** length_penalty

The search keeps the K finished texts with the best scores. It ends when no beam has a better score
than the worst of them.
"""

import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from reviewgen.errors import GenerationError
from reviewgen.generation.decode import Decoder
from reviewgen.generation.next_tokens import log_softmax, most_probable
from reviewgen.generation.text import Text


class _Beam(NamedTuple):
    """A text, and the log probability (nats) of its tokens.

    The log probability leaves out the tokens of the prompt that the model was fed at the start. It
    includes the tokens that match the rest of the prompt (``Text.rest``).
    """

    text: Text
    log_probability: float


def search(decoder: Decoder, start: Text) -> list[Text]:
    """Find ``num_beams`` texts that continue a prompt. Return the ``num_return_sequences`` best
    ones, the best first.

    Args:
        decoder: The decoding loop. Its guard must be None, and its hooks may only have logits
            processors.
        start: A text that so far has only its prompt.

    Raises:
        GenerationError: The logits are NaN or infinite, a logits processor rules out every token,
            or fewer than ``num_return_sequences`` texts were found.
    """
    started = time.monotonic()
    config = decoder.config
    if config.max_new_tokens == 0:
        texts = [replace(start, ids=list(start.ids)) for _ in range(config.num_return_sequences)]
        for text in texts:
            text.finish_unextended()
        return texts
    beam_search = _Search(decoder)
    beam_search.run(start)
    # if nothing was found, every token that matches the rest of the prompt is ruled out: search
    # again, with the rest as the tokenizer encodes it
    if not beam_search.finished and start.rest:
        ids = [*start.ids, *decoder.pieces.tokenizer.encode(start.rest)]
        beam_search.run(replace(start, ids=ids, rest="", prompt_tokens=len(ids), place=None))
    if len(beam_search.finished) < config.num_return_sequences:
        raise GenerationError(
            f"num_return_sequences={config.num_return_sequences} is more than the number of texts"
            f" found after the prompt, {len(beam_search.finished)}."
        )
    texts = [beam.text for beam in beam_search.finished[: config.num_return_sequences]]
    for text in texts:
        text.seconds = time.monotonic() - started
        text.drop_state()
    return texts


@dataclass
class _Search:
    """A beam search.

    Attributes:
        decoder: The decoding loop.
        finished: The finished texts, the best first.
    """

    decoder: Decoder
    finished: list[_Beam] = field(default_factory=list)

    def run(self, start: Text) -> None:
        """Search until no better text can be found, or until the deadline."""
        decoder = self.decoder
        live = [_Beam(start, 0.0)]
        decoder.prefill([start])
        while True:
            previous = live
            live = self.extend(live)
            if decoder.deadline is not None and time.monotonic() > decoder.deadline:
                self.finish(live, "time")
                return
            # every token is ruled out: the texts end where they were before this step
            if not live and not self.finished:
                self.finish([beam for beam in previous if not beam.text.rest], "stuck")
            if not live or self.is_over(live):
                return
            decoder.forward([beam.text for beam in live])

    def log_probabilities(self, text: Text) -> Float64[np.ndarray, " V"]:
        """Return the log probability (nats) of each next token, after penalties and logits
        processors. It is -inf for a token that is ruled out.
        """
        decoder = self.decoder
        params = decoder.params
        assert text.logits is not None  # the model was fed the last token of the text
        logits = text.logits.astype(np.float64)
        logits[params.bos_id] = -np.inf
        logits[params.vocab_size :] = -np.inf
        token_logits = logits[: params.vocab_size]  # a view, without the ids of conditions
        if text.rest:
            token_logits[~decoder.pieces.matches(text.rest)] = -np.inf
        is_known = decoder.spelling_mask(text)
        # unknown words are ruled out only if a known one is possible
        if (token_logits[is_known] > -np.inf).any():
            token_logits[~is_known] = -np.inf
        if token_logits.max() == -np.inf:
            return logits
        scores = decoder.penalise(text, log_softmax(logits))
        if decoder.hooks is None or text.rest:
            return scores
        return decoder.hooks.process([*text.prefix, *text.ids], scores)

    def extend(self, live: list[_Beam]) -> list[_Beam]:
        """Extend beams by one token. Return the best of the new texts that have not ended. The best
        of those that have ended are added to ``finished``.
        """
        num_beams = self.decoder.config.num_beams
        table = np.stack(
            [beam.log_probability + self.log_probabilities(beam.text) for beam in live]
        )
        log_probs = table.ravel()  # nats, of each beam with each next token
        count = min(2 * num_beams, int((log_probs > -np.inf).sum()))
        extended: list[_Beam] = []
        for rank, index in enumerate(most_probable(log_probs, count)):
            row, token = divmod(index, table.shape[1])
            beam = _Beam(self._append(live[row].text, token), float(log_probs[index]))
            if beam.text.finish_reason is None and len(extended) < num_beams:
                extended.append(beam)
            elif beam.text.finish_reason is not None and rank < num_beams:
                self._keep(beam)
        return extended

    def is_over(self, live: list[_Beam]) -> bool:
        """Return whether no beam has a better score than the worst of ``num_beams`` finished texts.

        If there are fewer finished texts, the search goes on.
        """
        if len(self.finished) < self.decoder.config.num_beams:
            return False
        return max(map(self._score, live)) <= self._score(self.finished[-1])

    def finish(self, live: list[_Beam], reason: str) -> None:
        """Finish the texts of all beams where they are, for a reason such as "time"."""
        for beam in live:
            beam.text.finish(reason)
            self._keep(beam)

    def _append(self, text: Text, token: int) -> Text:
        """Return a copy of a text with one more token. It is finished if the token ends it."""
        text = replace(text, ids=list(text.ids))
        if token == self.decoder.params.eos_id:
            text.finish("end")
        elif text.rest:
            self.decoder.match(text, token)
        else:
            self.decoder.extend(text, token)
            text.new_tokens += 1
        if not text.rest:
            text.finish_if_complete(newest=1)
        return text

    def _keep(self, beam: _Beam) -> None:
        """Add a finished text, and keep the ``num_beams`` best."""
        self.finished.append(beam)
        self.finished.sort(key=self._score, reverse=True)
        del self.finished[self.decoder.config.num_beams :]

    def _score(self, beam: _Beam) -> float:
        """Return log probability / tokens ** length_penalty.

        Only the new tokens count, including eos.
        """
        tokens = beam.text.new_tokens + (beam.text.finish_reason == "end")
        return float(beam.log_probability / max(1, tokens) ** self.decoder.config.length_penalty)
