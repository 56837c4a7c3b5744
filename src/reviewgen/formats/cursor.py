"""All rules of a call, and the position of one text in them.

Near ``max_new_tokens``, a text must be completed. How many tokens a word, a choice or a pattern
still needs is known from its automaton. How many a grammar needs, or several rules together, is
searched for: breadth first, over a few tokens of each kind, where positions from which the same
tokens may follow count as one.

A pattern alone is a part of a ``Spelling``. Past the prompt it needs no mask, since no other token
is drawn.

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

_HORIZON = 60  # words; an included word is in the text after at most about this many
_CHARACTERS = 5  # number of characters of an average word
# tokens that the look-ahead of excluded words has, so that a text rarely begins such a word
_EXCLUDED_HORIZON = 3
_LEEWAY = 8  # tokens between the deadline of the words and the fewest tokens that they need
_MARGIN = 16  # a text is completed at least this many tokens before its limit
_MAX_SEARCH = 64  # tokens of a completion that is searched for
_MAX_NODES = 6  # positions at each step of the search
_SAME_KIND = 3  # tokens of a kind that the search tries at each position
_AT_ONCE = 1 << 40  # more tokens than any text has left


@dataclass
class AutomatonPosition:
    """The position of a text in an automaton.

    Attributes:
        automaton: The automaton.
        start: How many tokens of the text it does not read.
        look_ahead: Weights the tokens after which the rule is likely to hold; None weights none.
        states: The state before the text, and the state after each token.
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
        """The minimum number of tokens until the text may end."""
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
        start: How many tokens of the text it does not read.
        vocab_size: V.
        eos: The id of the end token.
        rejected: How many of the last tokens the grammar does not allow.
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
        is_certain: Whether there is no other one, if none was found.
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
        bigrams: The bigrams, which included and excluded words need without ``exact``.
        plugins: The automata of plugins, by name.

    Attributes:
        spelled: The automaton of the pattern, if it is the only rule: a ``Spelling`` has it, too.
        margin: How many tokens before its limit a text is completed at the latest.

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
        is_long = np.median(lengths) > 1
        self.horizon = min(_HORIZON * (1 if is_long else _CHARACTERS), config.max_new_tokens)
        _refuse_contradictions(config)
        included = dict.fromkeys(config.include)
        automata = [(include(word, symbols, eos), self.horizon) for word in included]
        if config.exclude:
            automata.append((exclude(config.exclude, symbols, eos), _EXCLUDED_HORIZON))
        for name, given in plugins.items():
            automata.append((of_plugin(name, given, self.vocab_size, eos), self.horizon))
        self._rules = {name: getattr(config, name) for name in GRAMMARS if getattr(config, name)}
        follows = list(self._follows())  # automata of what follows the prompt
        self._words = list[Any]()
        if config.exact:
            words = [automaton for automaton, _ in automata]
            self._words = [self._exact_position([*words, *follows], stepper, bos)]
            follows = []
        elif automata:
            assert bigrams is not None
            tempered = bigrams.tempered(float(np.mean(config.temperatures)))
            self._words = [
                AutomatonPosition(automaton, 0, LookAhead(automaton, tempered, horizon))
                for automaton, horizon in automata
            ]
        if self._rules:
            self._grammars = Grammars(symbols, bos, eos)
        self._automata = follows
        self.joint: Joint | None = None  # included words alone never contradict each other
        together = [*[automaton for automaton, _ in automata], *follows]
        if (follows or plugins) and len(together) > 1 and not config.exact:
            joint = Joint(together)
            self.joint = None if joint.distance([FIRST] * len(together)) is None else joint
        self._started: dict[str, list[GrammarPosition]] = {}
        tokens = symbols.tokens()
        self.quote = tokens.index((ord('"'),)) if (ord('"'),) in tokens else -1
        kinds = [_kind_of(token[0]) if token else -1 for token in tokens]
        by_length = sorted(range(len(tokens)), key=lambda token: len(tokens[token]))
        self._by_kind = [
            np.array([token for token in by_length if kinds[token] == kind])
            for kind in sorted({*kinds} - {-1})
        ]
        self.spelled: Automaton | None = None
        self.margin = 0
        self.is_searched = bool(
            self._rules or (follows and len(self.names) > 1 and self.joint is None)
        )
        if follows and not self.is_searched:
            self.margin = follows[0].margin
            self.spelled = follows[0] if config.regex and self.joint is None else None
        if self.is_searched:
            self._check(self.start([], ""))

    @cached_property
    def names(self) -> list[str]:
        """The rules, for messages."""
        config = self.config
        names = [f"include={word!r}" for word in config.include]
        names += [f"exclude={word!r}" for word in config.exclude]
        names += [name for name in ("choices", *GRAMMARS) if getattr(config, name)]
        return [*names, *self.plugins]

    def describe_failure(self, reason: str) -> str:
        """Return the sentence that a text does not fit the rules.

        Args:
            reason: Why the text has ended, as in ``Text.finish_reason``.
        """
        why = {
            "stuck": "no token that all settings allow could follow",
            "time": "max_time ran out",
        }.get(reason, f"it has ended before (finish reason {reason})")
        return f"The text does not fit {' and '.join(self.names)}: {why}."

    def start(self, ids: Sequence[int], rest: str) -> "Cursor":
        """Return the position of a text that consists of its prompt.

        Args:
            ids: The tokens of the prompt.
            rest: The end of the prompt, which the next tokens must spell.

        Raises:
            ConfigError: The prompt contradicts a rule, or the text cannot have the tokens that the
                rules need.
        """
        if rest not in self._started:
            self._started[rest] = list(self._compile(rest))
        positions = [position.copy() for position in (*self._words, *self._started[rest])]
        first = tuple(rest.encode()) or FIRST
        positions += [AutomatonPosition(each, 0, None, [first]) for each in self._automata]
        for position in positions[len(self._words) :]:
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

    def _follows(self) -> Iterator[Automaton]:
        """Yield the automata of the choices and of the regular expression. An expression that has
        none is left to the grammars.

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
        """Yield the positions of the grammars after a part of the prompt."""
        for name, value in self._rules.items():
            matcher = self._grammars.compile(name, value, rest)
            yield GrammarPosition(matcher, 0, self.vocab_size, self.eos)

    def _check(self, cursor: "Cursor") -> None:
        """Raise if no text can fit the rules, or only one with too many tokens."""
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
        size: How many tokens of the text were read.
        must_finish: Whether the text is to be completed as soon as possible.
    """

    formats: Formats
    positions: list[Any]
    size: int = 0
    must_finish: bool = False
    _plan: list[int] = field(default_factory=list)  # the tokens that complete the text
    _check_at: int = _AT_ONCE  # a completion is searched for once at most this many tokens are left

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return all(position.is_complete for position in self.positions)

    @property
    def tokens_needed(self) -> int:
        """The minimum number of tokens that complete the text: with fewer, a word or a choice would
        be missing.
        """
        states = self._joint_states
        together = self.formats.joint.distance(states) if self.formats.joint and states else None
        if together is not None:
            return together
        return sum(position.distance for position in self._automata)

    def _distances(self) -> Int64[np.ndarray, " V"]:
        """Return after each next token how many more the words and choices need."""
        states = self._joint_states
        together = self.formats.joint.distances(states) if self.formats.joint and states else None
        if together is not None:
            return together
        after = np.zeros(self.formats.vocab_size, np.int64)
        for position in self._automata:
            after += position.distances()
        return after

    @property
    def _joint_states(self) -> list[int]:
        """The states of all automata, if they are taken together; none while a part of the prompt
        is still to be spelled.
        """
        states = [each.state for each in self.positions if isinstance(each, AutomatonPosition)]
        numbers = [state for state in states if isinstance(state, int)]
        return numbers if len(numbers) == len(states) else []

    @property
    def _automata(self) -> list[AutomatonPosition]:
        """The positions in automata whose rule does not hold for good."""
        return [
            position
            for position in self.positions
            if isinstance(position, AutomatonPosition) and position.state != HOLDS
        ]

    def is_idle(self, ids: Sequence[int]) -> bool:
        """Return whether no mask is needed from here on.

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
        """Return the state in ``Formats.spelled`` after a text, whose prompt is complete, and in
        how many tokens the text must fit; -1 and 0 if there is none.
        """
        if self.formats.spelled is None:
            return -1, 0
        self.follow(ids)
        left = self.formats.config.max_new_tokens - new_tokens
        return self.positions[0].state, self.tokens_needed if self.must_finish else left

    def follow(self, ids: Sequence[int]) -> None:
        """Read the tokens of the text, after some were added or removed at its end."""
        if self.size == len(ids):
            return
        kept = min(self.size, len(ids))
        for position in self.positions:
            start = max(kept, position.start)
            position.take_back(max(0, self.size - start))
            for token in ids[start:]:
                position.advance(token)
        if kept < self.size:
            self._plan = []
            self._check_at = _AT_ONCE
        self.size = len(ids)

    def fits(self, ids: Sequence[int]) -> bool:
        """Return whether the text may end after these tokens, a beginning of its own."""
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
        """Rule out the next tokens that do not fit, and weigh those that do.

        Args:
            scores: The scores of the next token; updated.
            new_tokens: The number of new tokens of the text.
            temperature: The temperature by which the scores will be divided.
        """
        formats = self.formats
        scores = scores[: formats.vocab_size]
        left = formats.config.max_new_tokens - new_tokens
        allowed = self.mask()
        # a model that would end a text ends a string of JSON
        quote = formats.quote
        closes = formats.config.json_schema and quote >= 0
        if closes and allowed[quote] and not allowed[formats.eos]:
            scores[quote] = np.logaddexp(scores[quote], scores[formats.eos])
        scores[~allowed] = -np.inf
        automata = self._automata
        needed = self.tokens_needed
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
        """Rule out tokens after which too few tokens are left for the words; if all are, rule out
        those after which the words need more than after others.
        """
        after = self._distances()
        is_possible = scores > -np.inf
        if is_possible.any():
            fewest = max(left - 1, int(after[is_possible].min()))
            scores[after > fewest] = -np.inf

    def _finish(self, scores: Float64[np.ndarray, " V"], left: int) -> None:
        """Rule out all tokens but that of a completion, if there is only just time for it."""
        if not self._plan and left <= self._check_at:
            tokens, _ = self.complete(min(left, _MAX_SEARCH))
            if tokens is None:
                self._check_at = left // 2
            elif self.must_finish or len(tokens) + 2 >= left:
                self._plan = tokens or [self.formats.eos]
            else:
                self._check_at = left - (left - len(tokens)) // 2
        if self._plan:
            token = self._plan.pop(0)
            score = scores[token]
            scores[:] = -np.inf
            scores[token] = score if score > -np.inf else 0.0

    def complete(self, limit: int) -> Completion:
        """Search for a completion of at most ``limit`` tokens."""
        nodes = [(self, list[int]())]
        is_certain = True
        known = set[Any]()
        for _ in range(limit + 1):
            following = dict[Any, tuple[Cursor, list[int]]]()
            for cursor, tokens in nodes:
                if cursor.is_complete:
                    return Completion(tokens, True)
                allowed = cursor.mask()
                candidates = dict.fromkeys(self.formats.candidates(allowed))
                for position in cursor._automata:  # the way to a word
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
                        key = (count, mask.tobytes(), *(each.state for each in after._automata))
                        following.setdefault(key, (after, [*tokens, token]))
            if not following:
                return Completion(None, is_certain)
            is_certain &= len(following) <= _MAX_NODES
            # First those of a new kind, and those with fewer choices, which are further on: of two
            # that count as one, such as "." and ".." of "[.]{3}", the first is kept.
            keys = sorted(following, key=lambda key: (key in known, key[0]))[:_MAX_NODES]
            known.update(keys)
            nodes = [following[key] for key in keys]
        return Completion(None, False)


def _no_text(rules: str) -> ConfigError:
    """Return the error that no text fits."""
    return ConfigError(
        f"No text of this model's tokens fits {rules}: check it, or leave out one of the rules."
    )


def _kind_of(symbol: int) -> int:
    """Return the kind of a token by its first symbol: kinds of letters, a digit, a byte above 127,
    or the symbol itself.
    """
    character = chr(symbol)
    if symbol >= 128 or symbol >= HALF:
        return HALF
    return next(
        (
            HALF + number
            for number, is_kind in enumerate((str.islower, str.isupper, str.isdigit), 1)
            if is_kind(character)
        ),
        symbol,
    )


def _refuse_contradictions(config: GenerationConfig) -> None:
    """Raise if a word that a text must contain has a word that it must not contain."""
    for excluded in config.exclude:
        pattern = rf"(?i:{re.escape(excluded[0])}){re.escape(excluded[1:])}"
        for included in config.include:
            if re.search(rf"(?<!\w){pattern}(?!\w)", included):
                raise ConfigError(
                    f"include has {quoted(included)}, and exclude has {quoted(excluded)}: leave out"
                    " one of them."
                )
