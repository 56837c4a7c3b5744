"""Regular expressions, JSON schemas, grammars and numbers of sentences, by the library llguidance
(https://github.com/guidance-ai/llguidance; extra ``formats``).

A grammar describes what follows the prompt. If the last word of the prompt is still to be spelled,
the grammar begins with it.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from reviewgen.compiled.spelling import HALF
from reviewgen.errors import ConfigError, quoted
from reviewgen.lexicon.token_bytes import Symbols
from reviewgen.sentences import ABBREVIATIONS, NUMBER_ABBREVIATIONS

_MAX_CHARACTERS = 100_000  # max number of characters of a rule
# JSON without optional white space; otherwise a text could go on with spaces forever
_JSON_OPTIONS: Any = {"whitespace_flexible": False}
_RANGE = re.compile(r"(\d{1,4})(?:\.\.(\d{1,4}))?")  # "3" or "2..4"
# The names in capitals are terminals, which the lexer does not divide. The last word of a sentence
# is not an abbreviation or an initial (any capital but I), because its full stop ends no sentence.
_SENTENCES = r"""
SENTENCE: BODY /[.!?…]{{1,3}}["'”’)]?/
BODY: /([^.!?…。！？\s]|\s[^.!?…。！？\s]|[.][0-9a-z])+/ & ~SHORT
SHORT: /((?s:.*)[^A-Za-z0-9_.])?({words}|[A-HJ-Z])/
"""
_IN_JSON = r'[^"\\\x00-\x1f]*'  # the inside of a JSON string that has no backslash


class Grammars:
    """Makes llguidance's matchers of rules for the tokens of one tokenizer.

    Args:
        symbols: The bytes of the tokens.
        bos, eos: The ids of the tokens at the beginning and at the end.

    Raises:
        ConfigError: llguidance is not installed.
    """

    def __init__(self, symbols: Symbols, bos: int, eos: int) -> None:
        try:
            import llguidance
        except ImportError:
            raise ConfigError(
                "regex, json_schema, grammar and sentences need llguidance: pip install"
                ' "reviewgen[formats]".'
            ) from None
        self._library: Any = llguidance
        self._wrapper = _Tokens(symbols, bos, eos)

    @cached_property
    def _tokenizer(self) -> Any:
        """The tokens as llguidance's own tokenizer, which all matchers share."""
        wrapped = self._library.TokenizerWrapper(self._wrapper)
        return self._library.LLTokenizer(wrapped, n_vocab=len(self._wrapper.tokens))

    def compile(self, rule: str, value: Any, prefix: str) -> Any:
        """Return the matcher of a rule, at its beginning.

        Args:
            rule: "regex", "json_schema", "grammar" or "sentences".
            value: The value of the rule.
            prefix: The end of the prompt that the tokens are still to spell.

        Raises:
            ConfigError: The rule is invalid.
        """
        size = len(value if isinstance(value, str) else json.dumps(value))
        if size > _MAX_CHARACTERS:
            raise ConfigError(
                f"{rule} may have at most {_MAX_CHARACTERS:,} characters; it has {size:,}."
            )
        grammar = {
            "regex": self._regex_grammar,
            "json_schema": self._schema_grammar,
            "grammar": self._library.LLMatcher.grammar_from_lark,
            "sentences": _sentences_grammar,
        }[rule](value)
        if prefix:
            grammar = _with_prefix(grammar, prefix)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ConfigError(
                f"{rule} is not valid: {_reason(matcher.get_error())}; got"
                f" {quoted(value if isinstance(value, str) else json.dumps(value))}."
            )
        return matcher

    def _regex_grammar(self, regex: str) -> str:
        """Return the grammar of the texts that match a regular expression."""
        return str(self._library.LLMatcher.grammar_from_regex(regex))

    def _schema_grammar(self, schema: Mapping[str, Any]) -> str:
        """Return the grammar of the JSON texts that fit a schema. In the schema, the entry of a
        string may have the key ``sentences``.
        """
        columns = schema.get("properties") or {}
        if any(isinstance(each, Mapping) and "sentences" in each for each in columns.values()):
            return _columns_grammar(columns)
        try:
            return str(
                self._library.LLMatcher.grammar_from_json_schema(
                    dict(schema), overrides=_JSON_OPTIONS
                )
            )
        except ValueError as error:
            raise ConfigError(f"json_schema is not valid: {error}.") from None


class _Tokens:
    """The tokenizer in the form that llguidance's ``TokenizerWrapper`` takes."""

    def __init__(self, symbols: Symbols, bos: int, eos: int) -> None:
        tokens = symbols.tokens()
        # tokens with half a byte spell nothing alone: as special tokens, like bos, they never match
        halves = [number for number, token in enumerate(tokens) if max(token, default=0) >= HALF]
        self.tokens = [b"" if max(token, default=0) >= HALF else bytes(token) for token in tokens]
        self.bos_token_id = bos
        self.eos_token_id = eos
        self.special_token_ids = [bos, eos, *halves]
        self._ids = {token: number for number, token in enumerate(self.tokens) if token}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: bytes) -> list[int]:
        """Tokenize a part of the text that the grammar leaves no choice about. At each place, the
        longest token that fits is taken; if none fits, the ids so far are returned.
        """
        ids = list[int]()
        start = 0
        while start < len(text):
            for end in range(min(len(text), start + self._longest), start, -1):
                if text[start:end] in self._ids:
                    ids.append(self._ids[text[start:end]])
                    break
            else:  # no token fits
                break
            start = end
        return ids


def _sentences_grammar(value: str) -> str:
    """Return the grammar of a number of sentences, as in "2..4" or "3".

    A sentence ends where ``reviewgen.sentences`` finds an end.
    """
    return f"start: ALL\nALL: {_repeated_sentences(value)}\n{_sentence_terminals()}"


def _columns_grammar(columns: Mapping[str, Any]) -> str:
    """Return the grammar of a JSON object in which some strings have a given number of sentences.

    Args:
        columns: The JSON schema of the value of each key. A string may have the key ``sentences``,
            as in {"type": "string", "sentences": "2..4"}.
    """
    parts = list[str]()  # the parts of the object, in order: a literal with a key, then its value
    rules = list[str]()  # the rules for the values
    for number, (name, schema) in enumerate(columns.items()):
        key = json.dumps(name, ensure_ascii=False)
        # a literal of a grammar is written like a string of JSON
        parts.append(json.dumps(("," if number else "{") + key + ":", ensure_ascii=False))
        parts.append(f"value{number}")
        if isinstance(schema, Mapping) and "sentences" in schema:
            if others := sorted(schema.keys() - {"sentences", "type", "title", "description"}):
                raise ConfigError(
                    f"sentences of {quoted(name)} cannot be combined with {', '.join(others)}:"
                    " leave out one of them."
                )
            sentences = _repeated_sentences(str(schema["sentences"]))
            rules.append(f'value{number}: "\\"" TEXT{number} "\\""')
            rules.append(f"TEXT{number}: SENTENCES{number} & /{_IN_JSON}/")
            rules.append(f"SENTENCES{number}: {sentences}")
        else:
            rules.append(f"value{number}: %json {json.dumps(schema, ensure_ascii=False)}")
    return "\n".join([f'start: {" ".join(parts)} "}}"', *rules, _sentence_terminals()])


def _repeated_sentences(value: str) -> str:
    """Return the expression for a number of sentences, "3", or for a range, "2..4".

    Raises:
        ConfigError: ``value`` is neither a number from 1 on nor a range.
    """
    match = _RANGE.fullmatch(value.replace(" ", ""))
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise ConfigError(
            f"sentences must be a number or a range, as in 3 or 2..4; got {quoted(value)}."
        )
    more = rf" (/\s/ SENTENCE){{{low - 1},{high - 1}}}" if high > 1 else ""
    return rf"/\s?/ SENTENCE{more}"


def _sentence_terminals() -> str:
    """Return the definitions of SENTENCE and of the terminals in it."""
    words = "|".join(map(re.escape, sorted(ABBREVIATIONS | NUMBER_ABBREVIATIONS)))
    return _SENTENCES.format(words=f"(?i:{words})")


def _with_prefix(grammar: str, prefix: str) -> str:
    """Return the grammar of the texts of a grammar with ``prefix`` before them."""
    # a grammar is either JSON with a list of grammars, or text in Lark's syntax
    inner = json.loads(grammar)["grammars"][0] if grammar[0] == "{" else {"lark_grammar": grammar}
    literal = json.dumps(prefix, ensure_ascii=False)
    whole = {"lark_grammar": f"start: {literal} @format"}
    return json.dumps({"grammars": [whole, inner | {"name": "format"}]})


def _reason(error: str) -> str:
    """Return llguidance's message as a part of a sentence, with the place of the error."""
    # an error in a regular expression is shown by a "^" below the character
    if match := re.search(r"regex parse error:\n {4}.*\n {4}( *)\^.*\nerror: (.*)", error):
        return f"{match[2]}, at character {len(match[1]) + 1}"
    line = error.strip().partition("\n")[0]
    return re.sub(r"^at (\d+)\((\d+)\): ", r"line \1, column \2: ", line)[:300]
