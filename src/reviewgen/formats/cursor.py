"""All rules of a call, and the position of one text in them.

Near ``max_new_tokens``, a text must be completed. How many tokens a word, a choice or a pattern
still needs is known from its automaton. How many a grammar needs, or several rules together, is
found by a search: breadth first, with a few tokens of each kind as the next token. Positions after
which the same tokens may follow count as one.

If a pattern is the only rule, its automaton becomes a part of a ``Spelling``, which lets compiled
code draw only tokens that fit. So no mask is needed after the prompt.

Dimensions: V vocabulary, W logits: V, and the ids of conditions.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from reviewgen.compiled.spelling import HALF
from reviewgen.config.generation import GRAMMARS, GenerationConfig
from reviewgen.errors import ConfigError, quoted
from reviewgen.formats.automata import (
    DEAD,
    FAR,
    FIRST,
    HOLDS,
    Automaton,
    State,
    choices,
    exclude,
    include,
    of_plugin,
    regex,
)
from reviewgen.formats.bigrams import Bigrams
from reviewgen.formats.exact import ExactPosition, ExactTable, product, refuse_other_settings
from reviewgen.formats.grammars import Grammars
from reviewgen.formats.joint import Joint
from reviewgen.formats.look_ahead import LookAhead
from reviewgen.lexicon.token_bytes import Symbols
from reviewgen.protocols.extensions import TokenAutomaton
from reviewgen.protocols.stepper import Stepper

_HORIZON = 60  # an included word comes after at most about this many words
_CHARACTERS = 5  # number of characters of an average word
# number of tokens that the look-ahead of excluded words has, so that a text rarely begins such a
# word, which it would have to leave again
_EXCLUDED_HORIZON = 3
_LEEWAY = 8  # number of tokens that a text is given beyond the fewest that its words need
# a text begins to be completed when this many more tokens are left than the shortest text has
_MARGIN = 16
_MAX_SEARCH = 64  # max number of tokens of a completion that is searched for
_MAX_NODES = 6  # max number of positions that the search keeps at each step
_SAME_KIND = 3  # max number of tokens of a kind that the search tries at each position
_AT_ONCE = 1 << 40  # more tokens than any text has left


@dataclass
class AutomatonPosition:
    """The position of a text in an automaton.

    Attributes:
        automaton: The automaton.
        start: How many tokens at the beginning of the text the automaton does not read.
        look_ahead: Raises the scores of the tokens after which the rule is likely to hold; None to
            leave the scores as they are.
        states: The state at the beginning, and the state after each token that was read.
    """

    automaton: Automaton
    start: int
    look_ahead: LookAhead | None = None
    states: list[State] = field(default_factory=lambda: [FIRST])

    @property
    def state(self) -> State:
        """The current state."""
        return self.states[-1]

    @property
    def distance(self) -> int:
        """The minimum number of tokens until the text may end, after the rest of the prompt if it
        is still to be spelled.
        """
        state = self.state if isinstance(self.state, int) else FIRST
        return int(self.automaton.distance[state])

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return isinstance(self.state, int) and self.distance == 0

    def distances(self) -> Int64[np.ndarray, " V"]:
        """Return the distance after each next token."""
        distances: np.ndarray = self.automaton.distance[self.automaton.all_after(self.state)]
        return distances

    def mask(self) -> Bool[np.ndarray, " V"]:
        """Return which tokens may follow."""
        allowed: np.ndarray = self.automaton.all_after(self.state) != DEAD
        return allowed

    def advance(self, token: int) -> None:
        """Add a token."""
        self.states.append(self.automaton.after(self.state, token))

    def take_back(self, count: int) -> None:
        """Remove the last tokens."""
        del self.states[len(self.states) - count :]

    def copy(self) -> "AutomatonPosition":
        """Return a copy, which can be advanced by itself."""
        return replace(self, states=list(self.states))


@dataclass
class GrammarPosition:
    """The position of a text in a grammar.

    Attributes:
        matcher: llguidance's matcher.
        start: How many tokens at the beginning of the text the grammar does not read.
        vocab_size: V.
        eos: The id of the end token.
        rejected: How many tokens at the end of the text the matcher has not read, because the
            grammar does not allow the first of them.
    """

    matcher: Any
    start: int
    vocab_size: int
    eos: int
    rejected: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return not self.rejected and bool(self.matcher.is_accepting())

    def mask(self) -> Bool[np.ndarray, " V"]:
        """Return which tokens may follow."""
        if self.rejected or self.matcher.is_error():
            return np.zeros(self.vocab_size, np.bool_)
        packed = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(packed, count=self.vocab_size, bitorder="little").view(np.bool_)
        # where nothing can follow, llguidance allows the end token even if the text is not complete
        allowed[self.eos] = self.matcher.is_accepting()
        return allowed

    def advance(self, token: int) -> None:
        """Add a token."""
        if self.rejected or not self.matcher.try_consume_tokens([token]):
            self.rejected += 1

    def take_back(self, count: int) -> None:
        """Remove the last tokens."""
        self.matcher.rollback(max(0, count - self.rejected))
        self.rejected = max(0, self.rejected - count)

    def copy(self) -> "GrammarPosition":
        """Return a copy, which can be advanced by itself."""
        return replace(self, matcher=self.matcher.deep_copy())


class Completion(NamedTuple):
    """The result of a search for a completion.

    Attributes:
        tokens: The tokens of a short completion; None if none was found.
        is_certain: If none was found, whether it is certain that there is none.
    """

    tokens: list[int] | None
    is_certain: bool


class Formats:
    """The rules of a call.

    Args:
        config: The settings of the call.
        symbols: The bytes of the tokens.
        bos, eos: The ids of the tokens at the beginning and at the end.
        stepper: The model, which ``exact`` needs.
        bigrams: The bigrams of the training text. Rules that hold from the start of a text, such as
            included words, need them, unless ``exact`` is set.
        plugins: The automata of plugins, by name.

    Attributes:
        horizon: How many tokens ahead the text is steered towards the included words.
        joint: All automata together; None if one by one is enough, or they are too large.
        quote: The token ``"``; -1 if there is none.
        is_searched: Whether a completion has to be searched for; else the automata tell how many
            tokens it needs.
        spelled: The automaton of the pattern, if it is the only rule: a ``Spelling`` has it, too.
        margin: A text begins to be completed when at most this many tokens are left.

    Raises:
        ConfigError: A rule is invalid, two contradict each other, or no text can fit one.
    """

    def __init__(
        self,
        config: GenerationConfig,
        symbols: Symbols,
        bos: int,
        eos: int,
        stepper: Stepper,
        bigrams: Bigrams | None,
        plugins: Mapping[str, TokenAutomaton],
    ) -> None:
        self.config = config
        self.plugins = plugins
        self.eos = eos
        self.vocab_size = len(symbols.offsets) - 1
        self._symbols = symbols
        lengths = np.diff(symbols.offsets)
        # whether the tokens are words or parts of words, and not characters
        are_words = np.median(lengths) > 1
        self.horizon = min(_HORIZON * (1 if are_words else _CHARACTERS), config.max_new_tokens)
        _refuse_contradictions(config)
        included = dict.fromkeys(config.include)
        # The automata that read a text from its start, with the prompt. Each comes with the number
        # of tokens that its look-ahead has.
        from_start = [(include(word, symbols, eos), self.horizon) for word in included]
        if config.exclude:
            from_start.append((exclude(config.exclude, symbols, eos), _EXCLUDED_HORIZON))
        for name, given in plugins.items():
            from_start.append((of_plugin(name, given, self.vocab_size, eos), self.horizon))
        self._rules = {name: getattr(config, name) for name in GRAMMARS if getattr(config, name)}
        after_prompt = list(self._automata_after_prompt())
        together = [*[automaton for automaton, _ in from_start], *after_prompt]
        self._from_start = list[Any]()  # the positions of an empty text in these automata
        if config.exact:
            self._from_start = [self._exact_position(together, stepper, bos)]
            after_prompt = []
        elif from_start:
            assert bigrams is not None
            tempered = bigrams.tempered(float(np.mean(config.temperatures)))
            self._from_start = [
                AutomatonPosition(automaton, 0, LookAhead(automaton, tempered, horizon))
                for automaton, horizon in from_start
            ]
        if self._rules:
            self._grammars = Grammars(symbols, bos, eos)
        self._after_prompt = after_prompt
        self.joint: Joint | None = None
        # words alone need no joint automaton: an included word can always still be added
        if (after_prompt or plugins) and len(together) > 1 and not config.exact:
            joint = Joint(together)
            self.joint = None if joint.distance([FIRST] * len(together)) is None else joint
        # by the rest of the prompt that is still to be spelled: the positions at its beginning
        self._grammars_after: dict[str, list[GrammarPosition]] = {}
        tokens = symbols.tokens()
        self.quote = tokens.index((ord('"'),)) if (ord('"'),) in tokens else -1
        self._by_kind = _group_by_kind(tokens)
        self.spelled: Automaton | None = None
        self.margin = 0
        self.is_searched = bool(
            self._rules or (after_prompt and len(self.names) > 1 and self.joint is None)
        )
        if after_prompt and not self.is_searched:
            self.margin = after_prompt[0].margin
            self.spelled = after_prompt[0] if config.regex and self.joint is None else None
        if self.is_searched:
            self._set_margin(self.start([], ""))

    @cached_property
    def names(self) -> list[str]:
        """The rules, for messages."""
        config = self.config
        names = [f"include={word!r}" for word in config.include]
        names += [f"exclude={word!r}" for word in config.exclude]
        names += [name for name in ("choices", *GRAMMARS) if getattr(config, name)]
        return [*names, *self.plugins]

    def describe_failure(self, reason: str) -> str:
        """Return the sentence which says that a text does not fit the rules, and why.

        Args:
            reason: Why the text has ended, as in ``Text.finish_reason``.
        """
        why = {
            "stuck": "no token that all settings allow could follow",
            "time": "max_time ran out",
        }.get(reason, f"it has ended before (finish reason {reason})")
        return f"The text does not fit {' and '.join(self.names)}: {why}."

    def start(self, ids: Sequence[int], rest: str) -> "Cursor":
        """Return the position of a text that so far consists of its prompt only.

        Args:
            ids: The tokens of the prompt.
            rest: The end of the prompt, which is not in ``ids``: the next tokens must spell it.

        Raises:
            ConfigError: The prompt contradicts a rule, or the text cannot have the tokens that the
                rules need.
        """
        if rest not in self._grammars_after:
            self._grammars_after[rest] = list(self._compile(rest))
        given = (*self._from_start, *self._grammars_after[rest])
        positions = [position.copy() for position in given]
        first = tuple(rest.encode()) or FIRST
        positions += [AutomatonPosition(each, 0, None, [first]) for each in self._after_prompt]
        # all rules but those that hold from the start begin after the tokens of the prompt
        for position in positions[len(self._from_start) :]:
            position.start = len(ids)
        cursor = Cursor(self, positions)
        cursor.follow(ids)
        if cursor.tokens_needed >= FAR:
            if not ids and not rest:
                raise _no_text(" and ".join(self.names))
            raise ConfigError(
                f"The prompt does not fit {' and '.join(self.names)}: change it, or leave out the"
                " format."
            )
        if not rest and cursor.tokens_needed > self.config.max_new_tokens:
            raise ConfigError(
                f"{' and '.join(self.names)} need at least {cursor.tokens_needed} tokens: raise"
                f" max_new_tokens, which is {self.config.max_new_tokens}."
            )
        return cursor

    def _automata_after_prompt(self) -> Iterator[Automaton]:
        """Yield the automata of what follows the prompt: of the choices, and of the regular
        expression. An expression that cannot become an automaton is left to the grammars.

        Raises:
            ConfigError: No text fits one of them.
        """
        config = self.config
        if config.choices:
            yield choices(config.choices, self._symbols, self.eos)
        automaton = regex(config.regex, self._symbols, self.eos) if config.regex else None
        if automaton is not None:
            if automaton.distance[FIRST] >= FAR:
                raise _no_text("regex")
            del self._rules["regex"]
            yield automaton

    def _exact_position(
        self, automata: list[Automaton], stepper: Stepper, bos: int
    ) -> ExactPosition:
        """Return the position of an empty text under all automata together."""
        config = self.config
        refuse_other_settings(config)
        if self._rules or not automata:
            raise ConfigError(
                "exact needs include, exclude, choices or a regex of few states, and takes no other"
                " format: give one of them, or leave exact out."
            )
        return ExactPosition(ExactTable(stepper, product(automata), config, bos, self.eos))

    def _compile(self, rest: str) -> Iterator[GrammarPosition]:
        """Yield the position at the beginning of each grammar; its text begins with ``rest``, the
        end of the prompt that is still to be spelled.
        """
        for name, value in self._rules.items():
            matcher = self._grammars.compile(name, value, rest)
            yield GrammarPosition(matcher, 0, self.vocab_size, self.eos)

    def _set_margin(self, cursor: "Cursor") -> None:
        """Set ``margin`` by the number of tokens that a completion of an empty text has.

        Args:
            cursor: The position of an empty text.

        Raises:
            ConfigError: No text can fit the rules, or the text that was found has too many tokens.
        """
        tokens, is_certain = cursor.complete(_MAX_SEARCH)
        rules = " and ".join(self.names)
        if tokens is None and is_certain:
            raise _no_text(rules)
        if tokens is not None and len(tokens) > self.config.max_new_tokens:
            raise ConfigError(
                f"The shortest text found that fits {rules} has {len(tokens)} tokens: raise"
                f" max_new_tokens, which is {self.config.max_new_tokens}."
            )
        self.margin = _MAX_SEARCH if tokens is None else len(tokens) + _MARGIN

    def candidates(self, allowed: Bool[np.ndarray, " V"]) -> list[int]:
        """Return a few allowed tokens of each kind, short ones first."""
        found = list[int]()
        for tokens in self._by_kind:
            found += tokens[allowed[tokens]][:_SAME_KIND].tolist()
        return found


@dataclass
class Cursor:
    """The position of a text in all rules of its call.

    Attributes:
        formats: The rules.
        positions: The position in each rule.
        size: How many tokens of the text were read, those of the prompt included.
        must_finish: Whether the text is to be completed as soon as possible.
    """

    formats: Formats
    positions: list[Any]
    size: int = 0
    must_finish: bool = False
    # the tokens that complete the text, once only these may follow
    _plan: list[int] = field(default_factory=list)
    _check_at: int = _AT_ONCE  # a completion is searched for once at most this many tokens are left

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return all(position.is_complete for position in self.positions)

    @property
    def tokens_needed(self) -> int:
        """The minimum number of tokens that complete the text. It is only an estimate if the
        automata are not taken together: the sum of what each of them needs.
        """
        states = self._joint_states
        distance = self.formats.joint.distance(states) if self.formats.joint and states else None
        if distance is not None:
            return distance
        return sum(position.distance for position in self._open_automata)

    def _distances(self) -> Int64[np.ndarray, " V"]:
        """Return what ``tokens_needed`` is after each next token."""
        states = self._joint_states
        distances = self.formats.joint.distances(states) if self.formats.joint and states else None
        if distances is not None:
            return distances
        after = np.zeros(self.formats.vocab_size, np.int64)
        for position in self._open_automata:
            after += position.distances()
        return after

    @property
    def _joint_states(self) -> list[int]:
        """The state of each automaton; empty while a part of the prompt is still to be spelled."""
        states = [each.state for each in self.positions if isinstance(each, AutomatonPosition)]
        numbers = [state for state in states if isinstance(state, int)]
        return numbers if len(numbers) == len(states) else []

    @property
    def _open_automata(self) -> list[AutomatonPosition]:
        """The positions in those automata that are not in the state HOLDS: whether their rule holds
        depends on what follows.
        """
        return [
            position
            for position in self.positions
            if isinstance(position, AutomatonPosition) and position.state != HOLDS
        ]

    def is_idle(self, ids: Sequence[int]) -> bool:
        """Return whether the rest of the text needs no mask.

        Args:
            ids: The tokens of the text, whose prompt is complete.
        """
        if self.formats.spelled is not None:
            return True
        self.follow(ids)
        return all(
            isinstance(position, AutomatonPosition) and position.state == HOLDS
            for position in self.positions
        )

    def spelled(self, ids: Sequence[int], new_tokens: int) -> tuple[int, int]:
        """Return the state in ``Formats.spelled`` after a text, and the maximum number of tokens
        that may still follow; -1 and 0 if ``Formats.spelled`` is None.

        Args:
            ids: The tokens of the text, whose prompt is complete.
            new_tokens: The number of new tokens of the text.
        """
        if self.formats.spelled is None:
            return -1, 0
        self.follow(ids)
        left = self.formats.config.max_new_tokens - new_tokens
        if self.must_finish:
            left = self.tokens_needed
        return self.positions[0].state, left

    def follow(self, ids: Sequence[int]) -> None:
        """Move to the end of a text to which tokens were added at its end, or from which some were
        removed there.
        """
        if self.size == len(ids):
            return
        kept = min(self.size, len(ids))
        for position in self.positions:
            # take back what was read after this token, and read on from there
            start = max(kept, position.start)
            position.take_back(max(0, self.size - start))
            for token in ids[start:]:
                position.advance(token)
        if kept < self.size:
            self._plan = []
            self._check_at = _AT_ONCE
        self.size = len(ids)

    def fits(self, ids: Sequence[int]) -> bool:
        """Return whether the text may end after ``ids``, which is a beginning of the text."""
        other = self.copy()
        other.follow(ids)
        return other.is_complete

    def copy(self) -> "Cursor":
        """Return a copy, which can follow another text."""
        return replace(
            self,
            positions=[position.copy() for position in self.positions],
            _plan=list(self._plan),
        )

    def mask(self) -> Bool[np.ndarray, " V"]:
        """Return which tokens may follow."""
        allowed = np.ones(self.formats.vocab_size, np.bool_)
        for position in self.positions:
            allowed &= position.mask()
        if self.formats.joint is not None:
            allowed &= self._distances() < FAR
        return allowed

    def apply(self, scores: Float64[np.ndarray, " W"], new_tokens: int, temperature: float) -> None:
        """Rule out the next tokens that do not fit, and raise the scores of those that lead to
        texts that fit.

        Args:
            scores: The scores of the next token; they are changed in place.
            new_tokens: The number of new tokens of the text.
            temperature: The temperature by which the scores will be divided.
        """
        formats = self.formats
        scores = scores[: formats.vocab_size]
        left = formats.config.max_new_tokens - new_tokens
        allowed = self.mask()
        # where the model would end the text inside a string of JSON, it ends the string instead:
        # the quotation mark also gets the probability of the end token
        quote = formats.quote
        closes = formats.config.json_schema and quote >= 0
        if closes and allowed[quote] and not allowed[formats.eos]:
            scores[quote] = np.logaddexp(scores[quote], scores[formats.eos])
        scores[~allowed] = -np.inf
        automata = self._open_automata
        needed = self.tokens_needed
        # the number of tokens within which the look-ahead wants all words to come
        deadline = min(left, max(formats.horizon - new_tokens, needed + _LEEWAY))
        for position in automata:
            if position.look_ahead is not None and isinstance(position.state, int):
                scores += temperature * position.look_ahead.weights(position.state, deadline)
        for position in self.positions:
            if isinstance(position, ExactPosition):
                scores += temperature * position.weights(left)
        if automata and (self.must_finish or left <= max(2 * needed + _LEEWAY, formats.margin)):
            self._hurry(scores, 0 if self.must_finish else left)
        if formats.is_searched and (self.must_finish or left <= formats.margin):
            self._finish(scores, left)

    def _hurry(self, scores: Float64[np.ndarray, " V"], left: int) -> None:
        """Rule out tokens after which the words need more than the ``left - 1`` tokens that are
        left. If this would rule out all, keep those after which the words need the fewest.
        """
        needed = self._distances()
        is_possible = scores > -np.inf
        if is_possible.any():
            limit = max(left - 1, int(needed[is_possible].min()))
            scores[needed > limit] = -np.inf

    def _finish(self, scores: Float64[np.ndarray, " V"], left: int) -> None:
        """Rule out all tokens but the next one of a completion, if the completion would soon have
        more tokens than are left.
        """
        if not self._plan and left <= self._check_at:
            tokens, _ = self.complete(min(left, _MAX_SEARCH))
            if tokens is None:  # search again when half as many tokens are left
                self._check_at = left // 2
            elif self.must_finish or len(tokens) + 2 >= left:
                self._plan = tokens or [self.formats.eos]
            else:  # search again when half of the tokens to spare are used
                self._check_at = left - (left - len(tokens)) // 2
        if self._plan:
            token = self._plan.pop(0)
            score = scores[token]
            scores[:] = -np.inf
            scores[token] = score if score > -np.inf else 0.0

    def complete(self, limit: int) -> Completion:
        """Search for a completion of at most ``limit`` tokens.

        Each step of the search adds one token to the texts of the step before. Texts that have the
        same key count as one: the same tokens may follow, and the automata are in the same states.
        """
        nodes = [(self, list[int]())]  # positions, each with the tokens that lead to it
        is_certain = True  # whether nothing was left out so far
        known = set[Any]()  # the keys of all steps
        for _ in range(limit + 1):
            following = dict[Any, tuple[Cursor, list[int]]]()  # the nodes of the next step, by key
            for cursor, tokens in nodes:
                if cursor.is_complete:
                    return Completion(tokens, True)
                allowed = cursor.mask()
                candidates = dict.fromkeys(self.formats.candidates(allowed))
                # for each word that is still needed, also the token that leads to it fastest
                for position in cursor._open_automata:
                    distances = np.where(allowed, position.distances(), FAR)
                    if distances.min() < FAR:
                        candidates[int(distances.argmin())] = None
                is_certain &= len(candidates) == allowed.sum()
                for token in candidates:
                    after = cursor.copy()
                    for position in after.positions:
                        position.advance(token)
                    mask = after.mask()
                    if mask.any() or after.is_complete:
                        count = int(mask.sum())
                        states = [each.state for each in after._open_automata]
                        key = (count, mask.tobytes(), *states)
                        following.setdefault(key, (after, [*tokens, token]))
            if not following:
                return Completion(None, is_certain)
            is_certain &= len(following) <= _MAX_NODES
            # Nodes with new keys come first; within both groups, those with fewer allowed tokens,
            # which are further on, such as ".." compared with "." in "[.]{3}". The order matters,
            # since of two nodes with the same key the next step keeps the first one.
            keys = sorted(following, key=lambda key: (key in known, key[0]))[:_MAX_NODES]
            known.update(keys)
            nodes = [following[key] for key in keys]
        return Completion(None, False)


def _no_text(rules: str) -> ConfigError:
    """Return the error that no text fits."""
    return ConfigError(
        f"No text of this model's tokens fits {rules}: check it, or leave out one of the rules."
    )


def _group_by_kind(tokens: list[Any]) -> list[np.ndarray]:
    """Return the token ids of each kind, the short tokens first. ``tokens`` has the symbols of each
    token; bos and eos, which have none, are left out.
    """
    kinds = [_kind_of(spelling[0]) if spelling else -1 for spelling in tokens]
    by_length = sorted(range(len(tokens)), key=lambda token: len(tokens[token]))
    return [
        np.array([token for token in by_length if kinds[token] == kind])
        for kind in sorted({*kinds} - {-1})
    ]


def _kind_of(symbol: int) -> int:
    """Return the kind of the tokens that begin with a symbol, as a number. Small letters are one
    kind, as are capitals, digits, and all symbols above 127; any other symbol is a kind of its own,
    with the number of the symbol.
    """
    if symbol >= 128:
        return HALF
    for number, is_kind in enumerate((str.islower, str.isupper, str.isdigit), HALF + 1):
        if is_kind(chr(symbol)):
            return number
    return symbol


def _refuse_contradictions(config: GenerationConfig) -> None:
    """Raise a ConfigError if an included word or phrase contains an excluded one."""
    for excluded in config.exclude:
        # the first letter may be of either case, as in the automata
        pattern = rf"(?i:{re.escape(excluded[0])}){re.escape(excluded[1:])}"
        for included in config.include:
            if re.search(rf"(?<!\w){pattern}(?!\w)", included):
                raise ConfigError(
                    f"include has {quoted(included)}, and exclude has {quoted(excluded)}: leave out"
                    " one of them."
                )
