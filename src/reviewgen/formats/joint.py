"""Several automata together: whether a text can still fit all of them after each next token, and in
how many more tokens.

The automata one by one do not tell this: a choice of 40 characters may leave room for a word, and
yet no room for it once 38 of the characters are written.

Dimensions: V vocabulary, C classes of tokens (two tokens are of one class if they lead to the same
state from every state of every automaton), P combinations of one state of each automaton.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from reviewgen.formats.automata import DEAD, Automaton, distances

_MAX_CELLS = 1 << 21  # max number of combinations times number of classes


class Joint:
    """The states that several automata can be in at the same time.

    Args:
        automata: The automata.
    """

    def __init__(self, automata: Sequence[Automaton]) -> None:
        tables = [automaton.next for automaton in automata]
        # one token of each class (C,), and the class of each token (V,)
        _, tokens, self._classes = np.unique(
            np.vstack(tables), axis=1, return_index=True, return_inverse=True
        )
        # for each automaton: the state after each class (S, C), the states in which a text may end
        # (S,), and the number of states S
        self._next = [table[:, tokens].astype(np.int64) for table in tables]
        self._ends = [automaton.distance == 0 for automaton in automata]
        self._sizes = [len(table) for table in tables]
        # The combinations that ``_explore`` has found: their indexes, by a code that it computes
        # from the states; the index of the combination after each class; and the distance.
        self._indexes: dict[int, int] = {}
        self._after: Int64[np.ndarray, "P C"] = np.empty((0, 0), np.int64)
        self._distance: Int64[np.ndarray, " P"] = np.empty(0, np.int64)

    def distance(self, states: Sequence[int]) -> int | None:
        """Return the minimum number of tokens until a text in these states may end; FAR if it never
        may. Return None if there are too many combinations of states.
        """
        index = self._index_of(states)
        return None if index is None else int(self._distance[index])

    def distances(self, states: Sequence[int]) -> Int64[np.ndarray, " V"] | None:
        """Return what ``distance`` is after each next token; None if there are too many
        combinations of states.
        """
        index = self._index_of(states)
        if index is None:
            return None
        after: np.ndarray = self._distance[self._after[index]][self._classes]
        return after

    def _index_of(self, states: Sequence[int]) -> int | None:
        """Return the index of a combination of states, which has one state of each automaton; see
        ``_explore``. Return None if there would be too many combinations.
        """
        # the code 0 stands for all combinations with a dead state
        code = 0 if DEAD in states else int(np.ravel_multi_index(tuple(states), self._sizes))
        if code not in self._indexes:
            self._explore(code)
        return self._indexes.get(code)

    def _explore(self, first: int) -> None:
        """Fill the indexes and tables with the combination of states that has the code ``first``
        and all combinations that can follow it. Leave them as they are if those are too many.
        """
        indexes = {0: 0, first: 1}
        new = np.array([0, first])  # the codes of the combinations to explore next
        rows = list[np.ndarray]()
        while len(new):
            states = np.unravel_index(new, self._sizes)
            after = [table[state] for table, state in zip(self._next, states, strict=True)]
            # the codes of the combinations after each class, (number of new combinations, C)
            codes = np.ravel_multi_index(tuple(after), self._sizes)
            codes[np.any([state == DEAD for state in after], axis=0)] = 0
            rows.append(codes)
            new = np.array([code for code in np.unique(codes).tolist() if code not in indexes], int)
            for code in new.tolist():
                indexes[code] = len(indexes)
            if len(indexes) * codes.shape[1] > _MAX_CELLS:
                return
        known = np.array(list(indexes))  # the code at each index
        # replace each code after a class by its index
        order = np.argsort(known)
        self._after = order[np.searchsorted(known, np.vstack(rows), sorter=order)]
        states = np.unravel_index(known, self._sizes)
        is_end = np.all([end[state] for end, state in zip(self._ends, states, strict=True)], axis=0)
        self._indexes = indexes
        self._distance = distances(self._after, is_end)
