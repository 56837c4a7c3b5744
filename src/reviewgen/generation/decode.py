"""The decoding loop: advances a list of texts until each is finished.

Every text has its own random stream, whose seed is the seed of the call and the text's number. So a
text does not depend on the texts that are generated with it. Global random state is never used.

Any Stepper works: the loop calls it for each token. A stepper that ``SupportsSample`` has a loop of
its own; once the prompt is complete, it samples a block of tokens in one call.
``reviewgen.compiled.sampling`` samples a token from logits. The module ``text`` decides where a
text ends.

A CopyGuard forbids tokens that complete a copied span. A Spelling forbids tokens that neither
continue nor end a known word. In place of a forbidden token, an allowed one is sampled; in place of
one that completes a copied span, eos is not allowed either. A text is at a *dead end* if no token
is allowed:

- With a CopyGuard it backtracks: some of its last tokens are removed, twice as many each time, so
  that it can continue differently. After ``MAX_RETRIES`` times it takes a forbidden token, and sets
  ``exceeds_limit`` if this token completes a copied span.
- Without a CopyGuard it takes a forbidden token at once.

The masks of formats are applied in ``step`` only. While its formats need no mask, a text is sampled
in blocks. A format that was added to the Spelling never needs a mask.

Dimensions: B texts, V vocabulary, K last tokens of a text, N random numbers per text.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from reviewgen.compiled.sampling import (
    DEAD_END,
    NONE,
    NOT_A_NUMBER,
    NOTHING_LEFT,
    Constraints,
    SamplingParams,
    apply_penalties,
    compiled_constraints,
    sample_rows,
)
from reviewgen.compiled.spelling import Spelling, follow_all, mark_spelled, no_places, start_of_text
from reviewgen.compiled.windows import copies
from reviewgen.config.generation import GenerationConfig
from reviewgen.errors import GenerationError
from reviewgen.formats.cursor import Formats
from reviewgen.generation.hooks import Hooks
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.states import Slot, gather
from reviewgen.generation.text import Text
from reviewgen.novelty import CopyGuard
from reviewgen.protocols.stepper import Stepper, StepState, SupportsSample
from reviewgen.protocols.tokenizer import Tokenizer

MAX_RETRIES = 12  # max number of times that a text backtracks from a dead end
_MAX_FORMAT_RETRIES = 3  # the same for a text with a format
SAMPLING_SETTINGS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
)
"""The settings of ``GenerationConfig`` that change the probability of a token."""
# The size of a block: how many random numbers a stepper's own loop gets for each text in one call.
# Most tokens use one number.
_MIN_BLOCK = 32
_FIRST_BLOCK = 64  # the size of the first block, if there is no deadline
_MAX_BLOCK = 4096


def make_sampling_params(config: GenerationConfig, tokenizer: Tokenizer) -> SamplingParams:
    """Convert the sampling settings of a call to the tuple that compiled functions take."""
    int64_max = np.iinfo(np.int64).max
    return SamplingParams(
        temperatures=np.array(config.temperatures, np.float64),
        top_k=config.top_k if config.top_k < tokenizer.vocab_size else 0,
        top_p=float(config.top_p),
        min_p=float(config.min_p),
        repetition_penalty=float(config.repetition_penalty),
        no_repeat_ngram_size=min(config.no_repeat_ngram_size, int64_max),
        min_new_tokens=min(config.min_new_tokens, int64_max),
        max_new_tokens=min(config.max_new_tokens, int64_max),
        is_greedy=config.do_sample is False,
        eos_id=tokenizer.eos_id,
        bos_id=tokenizer.bos_id,
        vocab_size=tokenizer.vocab_size,
    )


def _gather_states(texts: Sequence[Text]) -> StepState:
    """Combine the states of texts into one; each text must have a state."""
    return gather([text.state for text in texts])  # type: ignore[misc]  # none is None


class _SamplingBatch(NamedTuple):
    """What is needed to sample the next token of some texts.

    Attributes:
        texts: The texts.
        scores: The scores of the next token of each text.
        tails: The last tokens of each text, with one more column for the next token.
        params: The sampling settings.
    """

    texts: Sequence[Text]
    scores: Float[np.ndarray, "B V"]
    tails: Int64[np.ndarray, "B K"]
    params: SamplingParams

    def row(self, row: int) -> "_SamplingBatch":
        """Return the batch of one of the texts."""
        one = slice(row, row + 1)
        return _SamplingBatch(self.texts[one], self.scores[one], self.tails[one], self.params)


@dataclass(frozen=True)
class Decoder:
    """The decoding loop of one call.

    Attributes:
        stepper: Predicts the next token.
        pieces: The tokenizer, and the text of each of its tokens.
        config: The generation settings.
        guard: The copied spans that texts must not complete; None if copying is allowed.
        spelling: The words and characters that texts may contain; None if all are allowed.
        hooks: Objects that are called at every token.
        deadline: When ``time.monotonic`` reaches this value, all texts end where they are.
        formats: What texts must look like; None if they may be any.
        block_seconds: About how long one call of a stepper's own loop should take. The deadline and
            an interrupt are noticed only between calls.
    """

    stepper: Stepper
    pieces: TokenTexts
    config: GenerationConfig
    guard: CopyGuard | None = None
    spelling: Spelling | None = None
    hooks: Hooks | None = None
    deadline: float | None = None
    block_seconds: float = 0.2
    formats: Formats | None = None
    # the place of a text by its ids; see ``place``
    _places: dict[tuple[int, ...], Int64[np.ndarray, "5"]] = field(
        default_factory=dict, init=False, compare=False
    )

    @cached_property
    def params(self) -> SamplingParams:
        """The sampling settings, as compiled functions take them."""
        return make_sampling_params(self.config, self.pieces.tokenizer)

    def decode(self, texts: Sequence[Text]) -> Iterator[None]:
        """Advance the texts until each is finished; yield after every step, so that the caller can
        read new tokens.

        Raises:
            GenerationError: The logits are NaN or infinite, or a logits processor rules out every
                token.
        """
        started = time.monotonic()
        block_size = _FIRST_BLOCK if self.deadline is None else _MIN_BLOCK
        stepped = list[Text]()  # the texts whose last token the model has not been fed yet
        if self.config.max_new_tokens == 0:
            for text in texts:
                text.finish_unextended()
        if self.hooks is not None:
            self.hooks.begin(texts)
        while live := [text for text in texts if text.finish_reason is None]:
            self.forward(stepped)
            self.prefill([text for text in live if text.state is None])
            ready = [text for text in live if self.is_ready(text)]
            stepped = self.step([text for text in live if not self.is_ready(text)])
            if ready and not self.finish_if_late(ready):
                block_started = time.monotonic()
                block = self.sample_block(ready, block_size, self.params).tolist()
                for text, sampled in zip(ready, block, strict=True):
                    self.append(text, sampled)
                # the next block should take block_seconds, but has at most twice the size
                ratio = self.block_seconds / max(time.monotonic() - block_started, 1e-9)
                block_size = int(np.clip(block_size * min(2.0, ratio), _MIN_BLOCK, _MAX_BLOCK))
            self.finish_if_late(live)
            stepped = [text for text in stepped if text.finish_reason is None]
            for text in live:
                text.seconds = time.monotonic() - started
                if text.finish_reason is not None:
                    text.drop_state()
            yield
        if self.hooks is not None:
            self.hooks.end()

    def finish_if_late(self, texts: Sequence[Text]) -> bool:
        """Finish all texts where they are if the deadline has passed. Return whether it has."""
        if self.deadline is None or time.monotonic() < self.deadline:
            return False
        for text in texts:
            if text.finish_reason is None:
                text.finish("time")
        return True

    @cached_property
    def has_blocks(self) -> bool:
        """Whether this call samples texts in blocks, once they are past their prompt."""
        # a text with a format ends at a stop string only where it fits the format, which must be
        # checked after every token
        is_plain = self.hooks is None and not (self.formats and self.config.stop_strings)
        return is_plain and isinstance(self.stepper, SupportsSample)

    def is_ready(self, text: Text) -> bool:
        """Return whether the stepper's own loop samples the next tokens of a text."""
        # after MAX_RETRIES dead ends, ``step`` takes a forbidden token
        can_go_on = self.has_blocks and text.is_past_prompt and text.retries < MAX_RETRIES
        return can_go_on and self._is_idle(text)

    def _is_idle(self, text: Text) -> bool:
        """Return whether the formats of a text need no mask from here on."""
        return text.cursor is None or (text.is_past_prompt and text.cursor.is_idle(text.ids))

    def prefill(self, texts: Sequence[Text]) -> None:
        """Feed all ids of each text to the stepper, from the initial state.

        Texts with the same ids, such as those of one prompt, are fed once.
        """
        fed: dict[tuple[int, ...], tuple[np.ndarray, Slot]] = {}
        for text in texts:
            key = (*text.prefix, *text.ids)
            if key not in fed:
                logits, state = self.stepper.forward(
                    np.array([key], np.int64), self.stepper.initial_state(1)
                )
                fed[key] = logits[0], Slot(state, 0)
            text.logits, text.state = fed[key]

    def forward(self, texts: Sequence[Text]) -> None:
        """Feed the last token of each text to the stepper, in one batch."""
        if not texts:
            return
        ids = np.array([[text.ids[-1]] for text in texts], np.int64)
        logits, state = self.stepper.forward(ids, _gather_states(texts))
        for row, text in enumerate(texts):
            text.logits = logits[row]
            text.state = Slot(state, row)

    def sample_block(
        self, texts: Sequence[Text], size: int, params: SamplingParams
    ) -> Int64[np.ndarray, "B N"]:
        """Let the stepper's own loop sample up to N tokens for each text; return the tokens.

        In each row, status codes follow the tokens; see ``append``. This method sets the state and
        the place of each text to those after the tokens, and drops the random numbers that were
        used. The caller appends the tokens to the texts.

        Args:
            texts: Texts for which ``is_ready`` is true.
            size: N, the number of random numbers for each text. With fewer than 32, a text may get
                no token.
            params: The sampling settings.
        """
        assert isinstance(self.stepper, SupportsSample)
        uniform = np.stack([text.peek_random(size) for text in texts])
        new_tokens = np.array([text.new_tokens for text in texts], np.int64)
        constraints = self._constraints(texts)
        tokens, used, state = self.stepper.sample(
            _gather_states(texts), uniform, params, self._tails(texts), new_tokens, constraints
        )
        for row, text in enumerate(texts):
            text.use_random(int(used[row]))
            text.state = Slot(state, row)
            text.place = constraints.places[row]
        return tokens

    def step(self, texts: Sequence[Text]) -> list[Text]:
        """Sample a token for each text from its logits, and append it.

        Return the texts that are not finished and still have a state; the caller must feed them
        their new token by ``forward``.
        """
        if not texts:
            return []
        scores, params = self._mask_and_process(texts)
        tails = np.pad(self._tails(texts), ((0, 0), (0, 1)))
        batch = _SamplingBatch(texts, scores, tails, params)
        is_past_prompt = np.array([text.is_past_prompt for text in texts])
        # a run of 0 means that a token may complete a copied span, as any token of the prompt may
        runs = np.where(is_past_prompt, self.guard.run if self.guard else 0, 0)
        sampled, places = self._sample(batch, runs, is_past_prompt)
        for row, (text, first) in enumerate(zip(texts, sampled.tolist(), strict=True)):
            token = self._resample(batch, row, int(runs[row]), first)
            # ``places`` has the places after the tokens that were sampled first
            place = places[row] if token == first and text.is_past_prompt else None
            # without a guard and a format, ``_backtrack`` sets ``retries`` to MAX_RETRIES at a dead
            # end, which must affect one token only
            if self.guard is None and self.formats is None and token >= 0:
                text.retries = 0
            if text.forced:
                self.extend(text, text.forced.pop(0))
                text.prompt_tokens = len(text.ids)
            elif text.rest and token >= 0 and token != self.params.eos_id:
                self._append_to_prompt(text, token, scores[row])
            else:
                self.append(text, [token], scores[row], place)
        return [text for text in texts if text.finish_reason is None and text.state is not None]

    def _resample(self, batch: _SamplingBatch, row: int, run: int, token: int) -> int:
        """Return the token or status code to use in place of a sampled one; in most cases, this is
        the sampled one itself.

        If no token matches the rest of the prompt, set ``forced`` of the text to the tokenizer's
        own tokens for this rest.

        Args:
            batch: The texts, and the scores of their next tokens.
            row: The row of the text.
            run: The ``run`` of the text's ``CopyGuard``, 0 inside the prompt.
            token: The token or code that was sampled first.
        """
        text = batch.texts[row]
        max_retries = _MAX_FORMAT_RETRIES if self.config.include else MAX_RETRIES
        if token == NOTHING_LEFT and text.rest:
            text.forced = self.pieces.tokenizer.encode(text.rest)
            text.rest = ""
        elif token == DEAD_END and text.retries >= max_retries:
            # after too many dead ends, first allow unknown words, then also copied spans; a text
            # with a format must never copy
            token = self._sample_any_word(batch.row(row), run)
            if token == DEAD_END and self.formats is None:
                token = self._sample_any_word(batch.row(row), 0)
                text.exceeds_limit = True
        elif token >= 0 and self.guard is not None and not text.is_past_prompt:
            token = self._guard_prompt_end(batch.row(row), token)
        return token

    def _mask_and_process(
        self, texts: Sequence[Text]
    ) -> tuple[Float[np.ndarray, "B V"], SamplingParams]:
        """Return the scores that the next tokens are sampled from, and the sampling settings.

        While a text still has a rest of its prompt, tokens that do not match this rest are ruled
        out; that may be all tokens. Otherwise the logits processors are applied.
        """
        params = self.params
        size = params.vocab_size
        scores = np.stack([text.logits for text in texts])  # type: ignore[misc]
        is_plain = self.hooks is None and all(map(self._is_idle, texts))
        if is_plain and all(text.is_past_prompt for text in texts):
            return scores, params
        scores = scores.astype(np.float64)
        scores[:, size:] = -np.inf
        for text_scores, text in zip(scores, texts, strict=True):
            if text.rest:
                allowed = self.pieces.matches(text.rest) & (text_scores[:size] > -np.inf)
                known = allowed & self.spelling_mask(text)
                # unknown words are ruled out only if a known one is possible
                if known.any():
                    allowed = known
                text_scores[:size][~allowed] = -np.inf
                self._apply_format(text, text_scores)
            elif not text.forced:
                if self.hooks is not None:
                    text_scores[:] = self.penalise(text, text_scores)
                self._apply_format(text, text_scores)
                if self.hooks is not None:
                    text_scores[:] = self.hooks.process([*text.prefix, *text.ids], text_scores)
        if self.hooks is not None:  # the penalties have been applied before the processors
            params = params._replace(
                repetition_penalty=1.0, no_repeat_ngram_size=0, min_new_tokens=0
            )
        return scores, params

    def _apply_format(self, text: Text, scores: Float64[np.ndarray, " V"]) -> None:
        """Rule out and weigh the next tokens of a text by its formats; ``scores`` is updated."""
        if text.cursor is not None and not self._is_idle(text):
            text.cursor.follow(text.ids)
            temperatures = self.params.temperatures
            temperature = temperatures[text.new_tokens % len(temperatures)]
            text.cursor.apply(scores, text.new_tokens, float(temperature))

    def penalise(self, text: Text, logits: Float[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
        """Apply the penalties to the logits of a text's next token; return the result."""
        scores = np.empty(len(logits))
        ids = np.array(text.prefix[:1] + text.ids, np.int64)  # bos and the text, no conditions
        apply_penalties(logits, ids, len(ids), text.new_tokens, self.params, scores)
        return scores

    def _sample(
        self,
        batch: _SamplingBatch,
        runs: Int64[np.ndarray, " B"],
        is_spelled: Bool[np.ndarray, " B"],
    ) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, "B 5"]]:
        """Sample a token for each text; a negative value is a status code. Return the tokens, and
        the places after them.

        Args:
            batch: The texts, and the scores of their next tokens.
            runs: For each text, the ``run`` of its ``CopyGuard``; with 0 it may copy.
            is_spelled: For each text, whether its token must follow the spelling.
        """
        texts, scores, tails, params = batch
        constraints = self._constraints(texts)
        constraints.places[~is_spelled] = no_places(1)
        windows, _, spelling, places = compiled_constraints(params, constraints, len(texts))
        tokens = np.empty(len(texts), np.int64)
        sample_rows(
            scores,
            tails,
            np.full(len(texts), tails.shape[1] - 1),
            np.array([text.new_tokens for text in texts], np.int64),
            np.array([text.peek_random(1)[0] for text in texts]),
            params,
            windows,
            runs,
            spelling,
            places,
            tokens,
        )
        for text in texts:
            text.use_random(1)
        return tokens, places

    def _sample_any_word(self, batch: _SamplingBatch, run: int) -> int:
        """Sample a token for a batch of one text. The token may make an unknown word."""
        tokens, _ = self._sample(batch, np.full(1, run, np.int64), np.zeros(1, np.bool_))
        return int(tokens[0])

    def _guard_prompt_end(self, batch: _SamplingBatch, token: int) -> int:
        """Check a sampled token that goes beyond the end of a text's prompt; return a token.

        If the token would complete a copied span, another token is sampled. If all tokens would,
        the sampled one is returned, and ``exceeds_limit`` is set. A token that ends with the prompt
        or before is returned as it is.
        """
        text = batch.texts[0]
        tail = batch.tails[0]  # its last column is free for the next token
        piece = self.pieces.texts[token]
        ends_with_prompt = 0 < len(piece) <= len(text.rest)
        if text.forced or token == self.params.eos_id or ends_with_prompt:
            return token
        assert self.guard is not None
        windows, run = self.guard
        tail[-1] = token
        if not copies(windows, tail, len(tail) - 1, run):
            return token
        other = self._sample_any_word(batch, run)
        if other == DEAD_END:
            text.exceeds_limit = True
            return token
        return other

    def _constraints(self, texts: Sequence[Text]) -> Constraints:
        """Return what some texts must not contain, and the place of each text in the spelling
        automaton.
        """
        windows, run = self.guard or (None, 0)
        places = no_places(len(texts))
        if self.spelling is not None:
            places = np.stack([self.place(text) for text in texts])
        for place, text in zip(places, texts, strict=True):
            # place[3:] is the state of the format and the number of tokens left; the format begins
            # after the prompt, so place[3] is -1 before
            if text.cursor is not None and text.is_past_prompt and place[3] < 0:
                place[3:] = text.cursor.spelled(text.ids, text.new_tokens)
        return Constraints(windows, run, self.spelling, places)

    def _tails(self, texts: Sequence[Text]) -> Int64[np.ndarray, "B K"]:
        """Return the last K tokens of each text: as many as the penalties and the guard need."""
        # the penalties need bos and all tokens of a text
        size = max(1 + len(text.ids) for text in texts) if self.params.looks_back else 0
        if self.guard is not None:
            size = max(size, self.guard.tokens - 1)
        return np.array([text.tail(size) for text in texts], np.int64)

    def place(self, text: Text) -> Int64[np.ndarray, "5"]:
        """Return the place of a text: its state in the spelling automaton
        (``reviewgen.compiled.spelling``).

        Places are cached by token ids, since many texts of a call have the same prompt.
        """
        assert self.spelling is not None
        if text.place is None:
            ids = tuple(text.ids)
            if ids not in self._places:
                self._places[ids] = start_of_text(self.spelling)
                follow_all(self.spelling, self._places[ids], ids)
            text.place = self._places[ids]
        return text.place

    def spelling_mask(self, text: Text) -> Bool[np.ndarray, " V"]:
        """Return a mask of the tokens that the spelling allows after a text."""
        if self.spelling is None:
            return np.ones(self.params.vocab_size, np.bool_)
        return mark_spelled(self.spelling, self.place(text), self.params.eos_id)

    def extend(self, text: Text, token: int, place: Int64[np.ndarray, "5"] | None = None) -> None:
        """Append a token to the ids of a text, and update the text's place. ``place`` is the place
        after the token; if it is None, the place is computed.
        """
        if place is not None:
            text.place = place
        elif self.spelling is not None:
            text.place = self.place(text).copy()
            follow_all(self.spelling, text.place, [token])
        text.ids.append(token)

    def match(self, text: Text, token: int) -> str:
        """Append a token that matches the rest of the prompt. Return the characters of the token
        that go beyond the prompt, if any.
        """
        piece = self.pieces.texts[token]
        beyond = piece[len(text.rest) :]
        self.extend(text, token)
        if beyond:
            text.new_tokens += 1
        text.rest = text.rest[len(piece) :]
        text.prompt_tokens = len(text.ids)
        return beyond

    def _append_to_prompt(self, text: Text, token: int, scores: Float[np.ndarray, " V"]) -> None:
        """Append a token that matches the rest of the prompt. Finish the text if it ends there."""
        beyond = self.match(text, token)
        # the streamer already has the whole prompt, so it only gets what goes beyond it
        self._call_hooks(text, self.pieces.tokenizer.encode(beyond) if self.hooks else [], scores)
        if not text.rest:
            text.finish_if_complete(newest=1)

    def append(
        self,
        text: Text,
        sampled: Sequence[int],
        scores: Float[np.ndarray, " V"] | None = None,
        place: Int64[np.ndarray, "5"] | None = None,
    ) -> None:
        """Append sampled tokens to a text. Finish the text if it ends with them, and backtrack at a
        dead end.

        Args:
            text: The text.
            sampled: The tokens, followed by status codes (negative numbers), as in
                ``SupportsSample``.
            scores: The scores that a single token was sampled from; None for tokens of a block.
            place: The place after a single token; None if it is not known.

        Raises:
            GenerationError: The logits are NaN or infinite.
        """
        # the number of tokens; the codes after them are negative
        count = bisect_left(sampled, True, key=lambda token: token < 0)
        code = sampled[count] if count < len(sampled) else NONE
        has_eos = count > 0 and sampled[count - 1] == self.params.eos_id
        if has_eos:
            count -= 1
        tokens = sampled[:count]
        text.new_tokens += len(tokens)
        if scores is None:
            text.ids += tokens
        elif tokens:
            self.extend(text, tokens[0], place)
            self._call_hooks(text, tokens, scores)
        if text.finish_if_complete(len(tokens)):
            return
        if has_eos:
            text.finish("end")
        elif code == NOT_A_NUMBER:
            raise GenerationError.of_damaged_logits()
        elif code == NOTHING_LEFT and self.formats is None:
            text.finish("stuck")
        elif code in (DEAD_END, NOTHING_LEFT):
            self._backtrack(text)

    def _call_hooks(
        self, text: Text, tokens: Sequence[int], scores: Float[np.ndarray, " V"]
    ) -> None:
        """Stream new tokens, and finish the text if a stopping criterion ends it."""
        if self.hooks is not None:
            self.hooks.put(tokens)
            if text.new_tokens and self.hooks.should_stop(text, scores):
                text.finish("criteria")

    def _backtrack(self, text: Text) -> None:
        """Remove the last tokens of a text at a dead end, so that it can continue differently.

        The state of the text is dropped, so the model is fed the text again from the start.

        - Without a CopyGuard and a format, no token is removed, since tokens may have been streamed
          already. Instead, the next token may make an unknown word.
        - With a format, whole words are removed. At the last of a few dead ends, the text is set to
          be completed as soon as possible, with an unknown word if need be. At a further one, or if
          no token can be removed, it ends where it is.
        """
        text.drop_state()
        if self.guard is None and self.formats is None:
            text.retries = MAX_RETRIES
            return
        removable = len(text.ids) - text.prompt_tokens
        text.retries += 1
        removed = min(1 << text.retries, removable)
        if text.cursor is not None:
            if text.retries > _MAX_FORMAT_RETRIES or not removable:
                text.finish("stuck")
                return
            while removed < removable and not self._begins_word(text, removed):
                removed += 1
            text.cursor.must_finish = text.retries == _MAX_FORMAT_RETRIES
        if removed:
            del text.ids[-removed:]
            text.new_tokens -= removed
            text.place = None

    def _begins_word(self, text: Text, count: int) -> bool:
        """Return whether a word begins with the last ``count`` tokens of a text."""
        token = text.ids[-count]
        before = text.ids[-count - 1]
        first = self.pieces.texts[token][:1]
        return not (first.isalnum() and self.pieces.texts[before][-1:].isalnum())
