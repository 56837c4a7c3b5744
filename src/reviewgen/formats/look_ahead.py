"""The look-ahead: how probable it is that a text will still contain a word. Added to the scores of
the next token, its logarithm steers the text towards the word, so that the word comes where it fits
instead of being forced at the end.

The probabilities are those of a Markov chain over the tokens, whose states are also those of the
word's automaton. If the chain were the model itself, the steered texts would be distributed exactly
like those of the model that contain the word (Doob's h-transform).

Dimensions: T tokens until the word must be there, S states, V vocabulary.
"""

import numpy as np
from jaxtyping import Float32

from reviewgen.compiled.look_ahead import look_ahead
from reviewgen.formats.automata import FIRST, HOLDS, Automaton
from reviewgen.formats.bigrams import Bigrams


class LookAhead:
    """The look-ahead of one word.

    Args:
        automaton: The automaton of the word.
        bigrams: The bigrams of the training text.
        horizon: T, how far the table looks ahead.
    """

    def __init__(self, automaton: Automaton, bigrams: Bigrams, horizon: int) -> None:
        after = automaton.next
        # (S, V): whether token v leads to state s from any state; DEAD and HOLDS need no look-ahead
        is_reached = np.zeros(after.shape, np.bool_)
        tokens = np.broadcast_to(np.arange(after.shape[1]), after.shape)
        is_reached[after, tokens] = True
        is_reached[:FIRST] = False
        # (T + 1, S, V): the probability that the rule holds after t more tokens, if the text is in
        # state s and its last token is v; ``look_ahead`` fills in those with t > 0
        self._values = np.zeros((horizon + 1, *after.shape), np.float32)
        self._values[:, HOLDS] = 1
        self._values[0, automaton.distance == 0] = 1
        look_ahead(
            bigrams.starts,
            bigrams.followers,
            bigrams.probs,
            bigrams.rest,
            bigrams.unigrams,
            after,
            is_reached,
            self._values,
        )
        self._after = after
        self._weights: dict[tuple[int, int], Float32[np.ndarray, " V"]] = {}

    def weights(self, state: int, left: int) -> Float32[np.ndarray, " V"]:
        """Return, for each next token, by how much (in nats) it raises the log probability that
        the text has the word after ``left`` more tokens, of which the next token is the first.

        The weight of a token that changes nothing is zero, as penalties on the scores require.
        """
        left = min(left, len(self._values) - 1)
        if (state, left) not in self._weights:
            after = self._after[state]
            values = self._values[left - 1, after, np.arange(len(after))]
            # most tokens change nothing, so the median is the probability after such a token
            usual = float(np.median(values))
            with np.errstate(divide="ignore"):
                self._weights[state, left] = np.log(values / (usual or float(values.max()) or 1.0))
        return self._weights[state, left]
