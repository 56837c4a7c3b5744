"""A slow n-gram in dictionaries, straight from the textbook definitions: the reference for
``reviewgen_ngram``.

Chen & Goodman 1998, sections 2 and 3 and equations 25 to 27; bos and the fall-back as in KenLM's
lmplz; stupid back-off: Brants et al. 2007, equation 5. An n-gram of fewer than ``min_texts`` texts
gives its whole count to the next lower order. Shares no code with the plugin.
"""

import math
from collections import Counter, defaultdict


class BruteNgram:
    """Trained by its constructor on texts of ids, each with bos first."""

    def __init__(
        self,
        texts: list[list[int]],
        vocab_size: int,
        order: int,
        smoothing: str,
        min_texts: int = 1,
    ) -> None:
        self.bos = texts[0][0]
        self.vocab_size = vocab_size
        self.order = order
        self.smoothing = smoothing
        raw: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order + 1)]
        texts_of: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for number, text in enumerate(texts):
            for n in range(1, order + 1):
                for start in range(len(text) - n + 1):
                    gram = tuple(text[start : start + n])
                    if gram != (self.bos,):
                        raw[n][gram] += 1
                        texts_of[gram].add(number)
        self.dropped = {
            gram for gram, numbers in texts_of.items() if len(gram) > 1 and len(numbers) < min_texts
        }
        self.counts = [self._adjusted(raw, n) for n in range(order + 1)]
        self.discounts = [self._discounts(self.counts[n]) for n in range(order + 1)]
        self.after: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for n in range(1, order + 1):
            for gram, count in self.counts[n].items():
                self.after[gram[:-1]][gram[-1]] = count

    def _adjusted(self, raw: list[Counter[tuple[int, ...]]], n: int) -> dict[tuple[int, ...], int]:
        if n == self.order or self.smoothing != "kneser-ney":
            return dict(raw[n])
        left: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for gram in raw[n + 1]:
            left[gram[1:]].add(gram[0])
        return {
            gram: count if gram[0] == self.bos else len(left[gram])
            for gram, count in raw[n].items()
        }

    def _discounts(self, counts: dict[tuple[int, ...], int]) -> list[float]:
        if self.smoothing == "absolute":
            n1, n2 = (sum(c == k for c in counts.values()) for k in (1, 2))
            d = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
            return [0.0, d, d, d]
        n1, n2, n3, n4 = (sum(c == k for c in counts.values()) for k in (1, 2, 3, 4))
        if not (n1 and n2 and n3):
            return [0.0, 0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        d1 = 1 - 2 * y * n2 / n1
        d2 = 2 - 3 * y * n3 / n2
        d3 = 3 - 4 * y * n4 / n3
        usable = 1e-12 < d1 <= 1 and 1e-12 < d2 <= 2 and 1e-12 < d3 <= 3
        return [0.0, d1, d2, d3] if usable else [0.0, 0.5, 1.0, 1.5]

    def probability(self, word: int, history: list[int]) -> float:
        """Return p(word | history), the history cut to what the model looks at."""
        if self.bos in history:
            history = history[len(history) - 1 - history[::-1].index(self.bos) :]
        context = tuple(history[max(0, len(history) - self.order + 1) :])
        return {
            "none": self._likelihood,
            "witten-bell": self._witten_bell,
            "stupid-backoff": self._stupid,
        }.get(self.smoothing, self._discounted)(word, context)

    def _likelihood(self, word: int, context: tuple[int, ...]) -> float:
        while context not in self.after:
            context = context[1:]
        return self.after[context].get(word, 0) / sum(self.after[context].values())

    def _discounted(self, word: int, context: tuple[int, ...]) -> float:
        uniform = 0.0 if word == self.bos else 1 / (self.vocab_size - 1)
        lower = self._discounted(word, context[1:]) if context else uniform
        if context not in self.after:
            return lower
        counts = self.after[context]
        discount = self.discounts[len(context) + 1]
        total = sum(counts.values())
        given = {
            w: c if (*context, w) in self.dropped else discount[min(c, 3)]
            for w, c in counts.items()
        }
        kept = max(counts.get(word, 0) - given.get(word, 0), 0) / total
        return kept + sum(given.values()) / total * lower

    def _witten_bell(self, word: int, context: tuple[int, ...]) -> float:
        uniform = 0.0 if word == self.bos else 1 / (self.vocab_size - 1)
        lower = self._witten_bell(word, context[1:]) if context else uniform
        if context not in self.after:
            return lower
        counts = self.after[context]
        dropped = {w: c for w, c in counts.items() if (*context, w) in self.dropped}
        kept = 0 if word in dropped else counts.get(word, 0)
        given = len(counts) + sum(dropped.values())
        return (kept + given * lower) / (sum(counts.values()) + len(counts))

    def _stupid(self, word: int, context: tuple[int, ...]) -> float:
        if context in self.after and word in self.after[context]:
            return self.after[context][word] / sum(self.after[context].values())
        if not context:
            return 0.0
        return (0.4 if context in self.after else 1.0) * self._stupid(word, context[1:])

    def log_probability(self, word: int, history: list[int]) -> float:
        """Return its natural logarithm."""
        p = self.probability(word, history)
        return math.log(p) if p > 0 else -math.inf
