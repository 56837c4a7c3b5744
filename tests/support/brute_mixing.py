"""The mixing model in plain Python and numpy: slow, and written to be read.

It predicts with the tensors of a trained model. Everything about a text is computed from the list
of its symbols, and what the text has counted of its own is kept in dictionaries; the model keeps
both in registers and hashed slots. So the two agree as long as no slot of the text is replaced.

1. A symbol is the sequence of decisions on the way from the root of a binary tree to its leaf.
2. At each decision, every context (the last n symbols, the word, ...) is looked up: the corpus has
   counted there how often the decision was 0 and 1.
3. Each count becomes three numbers: the logit of its probability, the distance of this probability
   from one half, and the logit of an adaptive probability. Counts of the text itself and the
   symbols that followed the same context before (*matches*) give further numbers.
4. Eight rows of weights, chosen by what is known, mix the numbers into eight logits, and a final
   row mixes these into one. Two maps correct the result.
5. After each symbol, the text counts its decisions and changes the weights for itself.
"""

from typing import Any

import numpy as np

MASK = 0xFFFFFFFF
LETTER, PUNCTUATION, NEWLINE, OTHER = range(4)
LEVELS = [0, 1, 2, 3, 4, 5, 5, *[6] * 3, *[7] * 4, *[8] * 5, *[9] * 7, *[10] * 6]
STRETCHED = np.linspace(-7.5, 7.5, 32)  # logits of the levels of an adaptive probability
OWN_CONTEXTS = (2, 3, 4, 6, 9, 10)


def mixed(hashed: int, value: int) -> int:
    """Return a hash of 32 bits of a hash and a number."""
    product = ((hashed ^ (value * 0x9E3779B1 & MASK)) * 0x85EBCA6B) & MASK
    return product ^ product >> 15


def hash_of(numbers: Any) -> int:
    """Return the hash of a sequence of symbols."""
    hashed = 0
    for number in numbers:
        hashed = mixed(hashed, number + 1)
    return hashed


def squash(logit: float) -> float:
    return 1 / (1 + np.exp(-logit))


def stretch(p: float) -> float:
    return np.log(p / (1 - p))


def clipped(logit: float) -> float:
    return min(max(logit, -12.0), 12.0)


class Count:
    """How often a decision was 0 and 1 in a context of the text, and an adaptive probability."""

    def __init__(self) -> None:
        self.counts = [0, 0]
        self.last = 0
        self.p = 1 << 13  # of 1 << 14
        self.updates = 0

    def add(self, bit: int) -> None:
        if self.counts[1 - bit] > 2:  # a text changes, so it forgets the other decision
            self.counts[1 - bit] = (self.counts[1 - bit] + 3) // 2
        self.counts[bit] = min(31, self.counts[bit] + 1)
        self.last = bit
        target = (1 << 14) - 1 if bit else 0
        self.p += int(np.round((target - self.p) / (self.updates + 1.5)))
        self.updates = min(63, self.updates + 1)

    def state(self) -> int:
        zeros, ones = self.counts
        return (LEVELS[zeros] * 11 + LEVELS[ones]) * 2 + self.last

    def level(self) -> int:
        """Return the level whose logit is the nearest to that of the adaptive probability."""
        return int(np.abs(stretch(((self.p >> 2) + 0.5) / 4096) - STRETCHED.astype("f4")).argmin())


class BruteMixing:
    """Predicts texts with the config and the tensors of a trained model."""

    def __init__(self, config: Any, tensors: Any) -> None:
        self.config = config
        self.tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
        self.children = self.tensors["tree"].tolist()
        self.paths: dict[int, list[tuple[int, int]]] = {}  # nodes and decisions of each symbol
        self.places = {0: (0, 1, 0)}  # of each node: root of its block, place in it, level
        for node, pair in enumerate(self.children):
            for bit, child in enumerate(pair):
                self._place(node, bit, child)
        self.slots = self._read_slots()
        first_condition_id = config.vocab_size - config.condition_ids - config.field_ids
        self.first_condition_id = first_condition_id
        contexts = list(range(9))
        contexts += range(9, 17) if config.words else ()
        contexts += range(17, 20) if config.sparse else ()
        contexts += (20, 21) if config.condition_ids else ()
        self.contexts = contexts
        self.starts = self._index_text()
        self.expert = np.zeros(len(self.children))
        self.rare = min(max(1e-4, 6e-7 * len(self.children)), 3e-3)
        self.begin()

    def _place(self, node: int, bit: int, child: int) -> None:
        """Compute the path to a child, and its place in the blocks of three levels."""
        root, place, level = self.places[node]
        path = [*self.paths.get(node - len(self.children), []), (node, bit)]
        if child < 0:
            self.paths[-1 - child] = path
            return
        self.paths[child - len(self.children)] = path  # of a node, at a negative key
        is_root = (level + 1) % 3 == 0
        self.places[child] = (
            (child, 1, level + 1) if is_root else (root, 2 * place + bit, level + 1)
        )

    def _read_slots(self) -> dict[int, tuple[int, int, int]]:
        """Return check, state and level of each slot in use: 11, 8 and 5 bits."""
        places = np.flatnonzero(np.unpackbits(self.tensors["used"])).tolist()
        slots = {}
        for place, (low, middle, high) in zip(places, self.tensors["slots"].tolist(), strict=True):
            value = high << 16 | middle << 8 | low
            slots[place] = (value >> 13, value >> 5 & 255, value & 31)
        return slots

    def _index_text(self) -> dict[int, int]:
        """Return where the training text goes on after seven symbols, by their hash."""
        text = self.tensors.get("text", np.empty(0, int)).tolist()
        self.source = text
        size = min(1 << 22, 2 * len(text) + 1)
        return {hash_of(reversed(text[end - 7 : end])) % size: end for end in range(7, len(text))}

    def begin(self) -> None:
        """Start a text: nothing of the last one is left."""
        self.text: list[int] = []
        self.given = 0
        self.own: dict[tuple[int, int, int], Count] = {}
        self.seen_at: dict[tuple[int, ...], int] = {}
        self.match = (0, 0)  # where the text goes on after a repetition, and its length
        self.copy = (0, 0)  # the same in the training text
        self.sets = self.tensors["sets"].astype(float)
        self.final = self.tensors["final"].astype(float)

    def hear(self, log_probs: Any) -> None:
        """Compute the expert's logit of each decision."""
        p = np.exp(log_probs.astype(float) - max(log_probs[symbol] for symbol in self.symbols(0)))
        for node, (left, right) in enumerate(self.children):
            halves = [p[self.symbols(child)].sum() + 1e-12 for child in (left, right)]
            self.expert[node] = np.clip(np.log(halves[1] / halves[0]), -10, 10)

    def symbols(self, node: int) -> list[int]:
        """Return the symbols below a node; or the one that a negative number stands for."""
        if node < 0:
            return [-1 - node]
        left, right = self.children[node]
        return self.symbols(left) + self.symbols(right)

    def read(self, symbol: int) -> None:
        """Let the text learn from a symbol, and remember it."""
        if symbol == self.config.bos_id:
            self.begin()
            self.expert[:] = 0
            return
        if symbol >= self.first_condition_id:
            self.given = mixed(self.given, symbol + 1)
            return
        if self.config.local_slots:
            self._learn(symbol)
        self.text.append(symbol)
        if self.config.local_slots:
            self._follow_own(symbol)
        if self.source:
            self._follow_source(symbol)

    def log_probabilities(self) -> np.ndarray:
        """Return the log probability of each symbol."""
        self.hashes = self._hashes()
        result = np.full(self.config.vocab_size, -np.inf)
        self._divide(0, 1.0, result)
        return result

    def _divide(self, node: int, mass: float, result: np.ndarray) -> None:
        """Divide the probability of a node among the symbols below it."""
        frequencies = self.tensors["frequencies"].astype(float)
        symbols = self.symbols(node)
        if node < 0:
            result[-1 - node] = np.log(mass)
        elif mass < self.rare:
            result[symbols] = np.log(mass * frequencies[symbols] / frequencies[symbols].sum())
        else:
            p = self.predict(node)["p"]
            self._divide(self.children[node][0], mass * (1 - p), result)
            self._divide(self.children[node][1], mass * p, result)

    def _hashes(self) -> list[int]:
        """Return the hash of each context, in the order of ``history.NAMES``."""
        text = self.text
        back = [*reversed(text), *[0] * 16]
        hashes = [0]
        for number, order in enumerate((1, 2, 3, 4, 5, 6, 8, 11), 1):
            hashes.append(mixed(hash_of(back[:order]), number))
        words: list[list[int]] = []  # finished ones, as letters
        line_words: list[list[int]] = []
        letters: list[int] = []
        gap: list[int] = []  # symbols between the last word and this one
        mark = since = column = 0
        successors: dict[int, int] = {}
        for position, symbol in enumerate(text):
            last, before = [*reversed(text[:position]), 0, 0][:2]
            pair = mixed(before + 1, last + 1) % 512
            successors[pair] = (successors.get(pair, 0) << 16 | symbol + 1) & MASK
            column += 1
            kind, folded = self._kind(symbol)
            if kind == LETTER:
                letters.append(folded)
                continue
            if letters:
                words.append(letters)
                line_words.append(letters)
                since = min(255, since + 1)
                letters = []
                gap = []
            gap.append(symbol)
            if kind == PUNCTUATION:
                mark = symbol
                since = 0
            if kind == NEWLINE:
                column = 0
                line_words = []
        word = mixed(hash_of(letters), hash_of(gap))
        previous, second, third = [*map(hash_of, reversed(words)), 0, 0, 0][:3]
        suffix = 0
        if words:
            ending = 0
            for letter in words[-1]:
                ending = (ending << 10 ^ letter) & 0x3FFFFFFF
            suffix = mixed(ending, min(15, len(words[-1])))
        first = hash_of(line_words[0]) if line_words else 0
        pair = mixed(back[1] + 1, back[0] + 1) % 512
        return [
            *hashes,
            mixed(word, 9),
            mixed(mixed(word, previous), 10),
            mixed(mixed(mixed(word, previous), second), 11),
            mixed(mixed(word, second), 12),
            mixed(mixed(word, suffix), 13),
            mixed(mixed(mixed(word, previous), third), 14),
            mixed(mixed(word, first), 15),
            mixed(mixed(word, mark), 4096 + since),
            mixed(mixed(mixed(back[1] + 1, back[2] + 1), back[3] + 1), 17),
            mixed(mixed(successors.get(pair, 0), back[0] + 1), 18),
            mixed(mixed(column, back[0] + 1), 19),
            mixed(mixed(word, self.given), 20),
            mixed(mixed(hashes[3], self.given), 21),
        ]

    def _kind(self, symbol: int) -> tuple[int, int]:
        """Return the kind of a symbol, and the id of the same letter in lower case."""
        alphabet = self.config.alphabet
        if not alphabet:
            return LETTER, symbol
        character = alphabet[symbol] if symbol < len(alphabet) else "\0"
        if character.isalpha():
            small = character.lower()
            return LETTER, alphabet.index(small) if small in alphabet else symbol
        if character == "\n":
            return NEWLINE, symbol
        return (PUNCTUATION if character in '.,;:!?()"' else OTHER), symbol

    def _find(self, context: int, node: int) -> tuple[int, int] | None:
        """Return state and level of a decision in a context of the corpus, if it was counted."""
        root, place, _ = self.places[node]
        hashed = mixed(mixed(self.hashes[context], context), root + 1)
        line = (hashed * (len(self.tensors["used"]) // 2) >> 32) * 16
        hashed = hashed * 0xC2B2AE35 & MASK
        check = (hashed >> 8 & 0xFFF8 | place) & 0x7FF
        for probe in range(4):
            slot = self.slots.get(line + (hashed >> 3 & 15 ^ 2 * place ^ probe))
            if slot is not None and slot[0] == check:
                return slot[1], slot[2]
        return None

    def predict(self, node: int) -> dict[str, Any]:
        """Return the probability ``p`` of the decision 1, and all that it was computed from."""
        level = self.places[node][2]
        own_keys = OWN_CONTEXTS if self.config.local_slots else ()
        found = [self._find(context, node) for context in self.contexts]
        for context in own_keys:
            count = self.own.get((context, self.hashes[context], node))
            found.append(None if count is None else (count.state(), count.level()))
        states = self.tensors["states"].astype(float)
        probs = [0.5 if slot is None else states[row, slot[0]] for row, slot in enumerate(found)]
        adaptive = [0.0 if slot is None else STRETCHED[slot[1]] for slot in found]
        best = (0, 0, self.config.vocab_size)  # class of the match, its decision, its symbol
        for row, (symbol, match_length) in enumerate(self._expected(), len(found)):
            path = dict(self.paths[symbol]) if match_length else {}
            probs.append(0.5)
            if node in path:
                match_class = length_class(match_length)
                probs[-1] = states[row, 2 * match_class + path[node]]
                if match_class >= best[0]:
                    best = (match_class, path[node], symbol)
        inputs = np.zeros(self.sets.shape[1])
        expert = [self.expert[node]] if self.config.expert else []
        values = [*map(stretch, probs), *(3 * (np.array(probs) - 0.5)), *adaptive, 0.3, *expert]
        inputs[: len(values)] = values
        seen = {context for context, slot in zip(self.contexts, found, strict=False) if slot}
        orders = len(seen & set(range(1, 9)))
        own = sum(slot is not None for slot in found[len(self.contexts) :])
        opinion = int(np.clip(7 + np.round(1.5 * self.expert[node]), 0, 14))
        support = opinion if self.config.expert else own
        last = self.text[-1] + 1 if self.text else 0
        before = self.text[-2] + 1 if len(self.text) > 1 else 0
        sizes = [64, 108, 160, 135, len(self.children), *[self.config.vocab_size + 1] * 3]
        choices = [
            (min(3, own // 2) * 8 + best[0]) * 2 + best[1],
            orders * 12 + min(level, 11),
            (len(seen & {9, 10, 11}) * 8 + min(7, self._letters())) * 5 + orders // 2,
            support * 9 + orders,
            node,
            last,
            before,
            best[2],
        ]
        rows = np.cumsum([0, *sizes[:-1]]) + choices
        rows = rows[: self.final.shape[1]]  # only the first without gates
        logits = np.clip(self.sets[rows] @ inputs, -12, 12)
        logit = clipped(self.final[node] @ logits)
        p = unmapped = squash(logit)
        if self.config.maps:
            position = (np.clip(logit, -7.999, 7.999) + 8) * 2
            step = int(position)
            cell = mixed(node + 1, last)
            for number, row in enumerate((cell, mixed(cell, before + 1))):
                low, high = self.tensors["maps"][number, row % (1 << 14), step : step + 2]
                mapped = low + (position - step) * (high - low)
                p += (mapped - unmapped) / 4
        return {
            "p": min(max(p, 1e-6), 1 - 1e-6),
            "unmapped": unmapped,
            "inputs": inputs,
            "rows": rows,
            "logits": logits,
        }

    def _letters(self) -> int:
        """Return the number of letters of the current word."""
        kinds = [self._kind(symbol)[0] for symbol in self.text]
        return len(kinds) - max(
            (n + 1 for n, kind in enumerate(kinds) if kind != LETTER), default=0
        )

    def _expected(self) -> list[tuple[int, int]]:
        """Return the symbol that each match expects next, and the length of the match; only
        symbols that have a leaf.
        """
        pairs = ((self.text, self.match), (self.source, self.copy))
        expected = [(text[at], length) if length else (0, 0) for text, (at, length) in pairs]
        return [(symbol, length if symbol in self.paths else 0) for symbol, length in expected]

    def _learn(self, symbol: int) -> None:
        """Change the text's weights and counts after a symbol, all of whose decisions were
        predicted with the same weights.
        """
        self.hashes = self._hashes()
        predictions = [self.predict(node) for node, _ in self.paths[symbol]]
        for (node, bit), made in zip(self.paths[symbol], predictions, strict=True):
            if self.config.adapt_weights:
                self._change_weights(node, bit, made)
            for context in OWN_CONTEXTS:
                key = (context, self.hashes[context], node)
                self.own.setdefault(key, Count()).add(bit)

    def _change_weights(self, node: int, bit: int, made: dict[str, Any]) -> None:
        """Move the weights of a decision against its errors. Only the rows of the first sets can
        change: with more than 256 nodes, not those of single nodes.
        """
        nodes = len(self.children)
        changeable = len(self.sets)
        if self.config.gated:
            changeable = 64 + 108 + 160 + 135 + (nodes if nodes <= 256 else 0)
        # the rate falls with the number of symbols that were read
        rate = 0.0005 + 0.004 / (1 + len(self.text) / 2000)
        for row, logit in zip(made["rows"], made["logits"], strict=True):
            if row < changeable:
                self.sets[row] += rate * (bit - squash(logit)) * made["inputs"]
        self.final[node] += 0.3 * rate * (bit - made["unmapped"]) * made["logits"]

    def _follow_own(self, symbol: int) -> None:
        """Update the match within the text with its last symbol."""
        at, length = self.match
        is_right = length > 0 and self.text[at] == symbol
        self.match = (at + 1, min(31, length + 1)) if is_right else (0, 0)
        end = tuple(self.text[-5:])
        candidate = self.seen_at.get(end, 0)
        if not is_right and candidate:
            self.match = (candidate, agreement(self.text, candidate, self.text))
        if len(end) == 5:
            self.seen_at[end] = len(self.text)

    def _follow_source(self, symbol: int) -> None:
        """Update the match with the training text, which needs seven symbols."""
        at, length = self.copy
        is_right = length > 0 and self.source[at] == symbol
        self.copy = (at + 1, min(31, length + 1)) if is_right else (0, 0)
        if not is_right and len(self.text) >= 7:
            size = min(1 << 22, 2 * len(self.source) + 1)
            candidate = self.starts.get(hash_of(reversed(self.text[-7:])) % size, 0)
            length = agreement(self.source, candidate, self.text)
            if length >= 7:
                self.copy = (candidate, length)
        if self.copy[0] >= len(self.source):
            self.copy = (0, 0)


def agreement(text: list[int], end: int, other: list[int]) -> int:
    """Return how many symbols before ``end`` are the last ones of another text, at most 16."""
    back = [*reversed(other), *[0] * 16]
    length = 0
    while length < min(16, end) and text[end - 1 - length] == back[length]:
        length += 1
    return length


def length_class(length: int) -> int:
    """Return the class of a match's length, 1 to 7."""
    return 1 + (length - 5) // 2 if length < 8 else min(7, 3 + (length - 8) // 5)
