"""Formats as a user calls them: in Python, as a command, over HTTP, in tables and receipts."""

import functools
import itertools
import json
import re
from typing import Any

import jsonschema
import lark
import numpy as np
import pytest

import reviewgen
from reviewgen.errors import ConfigError, GenerationError
from reviewgen.formats.automata import FAR, Automaton, distances
from reviewgen.formats.bigrams import count_bigrams, read_bigrams, write_bigrams
from reviewgen.formats.joint import Joint
from reviewgen.formats.patterns import END, Pattern, Unsupported
from reviewgen.sentences import sentence_ends
from tests.support.fakes import LETTERS, TableModel, review_model, table
from tests.support.live_server import in_process

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "text": {"type": "string"},
    },
    "required": ["stars", "text"],
    "additionalProperties": False,
}
GRAMMAR = 'start: "I liked " THING " so" END\nTHING: /the [a-z]+/\nEND: /[.]/'
REGEX = "the (movie|plot) was [a-z ]{3,20}[.]"
FREE = {"words": "any", "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
MODELS = ("lstm-char", "ngram-char", "ngram-word", "blend-char")


def fits_grammar(text: str) -> bool:
    return lark.Lark(GRAMMAR).parse(text) is not None


def fits_schema(text: str) -> bool:
    jsonschema.validate(json.loads(text), SCHEMA)
    return ": " not in text.partition('"text"')[0]  # no free white space


def has_word(word: str, text: str) -> bool:
    first = f"[{word[0].lower()}{word[0].upper()}]"
    return re.search(rf"\b{first}{re.escape(word[1:])}\b", text) is not None


FORMATS: list[tuple[dict[str, Any], Any]] = [
    ({"regex": REGEX}, re.compile(REGEX).fullmatch),
    ({"grammar": GRAMMAR}, fits_grammar),
    ({"choices": ["good", "so bad"]}, ["good", "so bad"].__contains__),
    ({"sentences": "2..3"}, lambda text: 2 <= len(sentence_ends(text)) <= 3),
    ({"sentences": "1"}, lambda text: len(sentence_ends(text)) == 1),
    ({"include": ["movie", "so good"]}, lambda t: has_word("movie", t) and has_word("so good", t)),
    ({"exclude": ["the", "a"]}, lambda t: not has_word("the", t) and not has_word("a", t)),
    (
        {"sentences": "2", "include": ["music"]},
        lambda text: len(sentence_ends(text)) == 2 and has_word("music", text),
    ),
    ({"regex": "[a-z ]*", "include": "plot"}, lambda t: has_word("plot", t) and t.islower()),
    (
        {"regex": "[a-z ]{8,12}", "include": "plot"},
        lambda t: has_word("plot", t) and re.fullmatch("[a-z ]{8,12}", t),
    ),
    (
        {"choices": ["a good plot", "music", "so bad", "the plot"], "include": "plot"},
        lambda t: t in ("a good plot", "the plot"),
    ),
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("settings", "fits"), FORMATS, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_every_text_fits(micro, name, settings, fits):
    options: dict[str, Any] = {"num_return_sequences": 20, "seed": 1, "max_new_tokens": 120}
    texts = micro(name).generate(**options | FREE | settings)
    assert [text for text in texts if not fits(text)] == []
    assert texts == micro(name).generate(**options | FREE | settings)


@pytest.mark.parametrize("seed", range(20))
def test_automata_are_counted_together(seed):
    """Distances against a breadth-first search over the states of three random automata."""
    rng = np.random.default_rng(seed)
    automata = []
    for size in (3, 5, 7):
        after = rng.integers(0, size, (size, 4)).astype(np.int32)
        after[0] = 0  # dead
        ends = rng.random(size) < 0.3
        ends[0] = False
        automata.append(Automaton("", after, distances(after, ends)))

    def search(states: tuple[int, ...]) -> int:
        seen = {states}
        waiting = [(states, 0)]
        for found, steps in waiting:  # grows
            if all(each.distance[at] == 0 for each, at in zip(automata, found, strict=True)):
                return steps
            for token in range(4):
                after = tuple(
                    int(each.next[at, token]) for each, at in zip(automata, found, strict=True)
                )
                if 0 not in after and after not in seen:
                    seen.add(after)
                    waiting.append((after, steps + 1))
        return FAR

    joint = Joint(automata)
    for states in itertools.product(range(1, 3), range(1, 5), range(1, 7)):
        assert joint.distance(states) == search(states)
        after = [each.next[at] for each, at in zip(automata, states, strict=True)]
        wanted = [search(each) if 0 not in each else FAR for each in zip(*after, strict=True)]
        assert joint.distances(states).tolist() == wanted


def test_rules_that_no_text_fits_together_are_refused():
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS, max_new_tokens=50)
    with pytest.raises(ConfigError, match="No text"):
        next(model.generate_each(regex="b*", include=["a"]))


def test_every_text_fits_a_schema(micro):
    texts = micro("gru-word").generate(
        num_return_sequences=20, seed=1, json_schema=SCHEMA, max_new_tokens=120, **FREE
    )
    assert all(map(fits_schema, texts))


def test_a_text_does_not_depend_on_the_batch_or_the_stream(micro):
    model = micro("gru-word")
    options: dict[str, Any] = {"seed": 4, "max_new_tokens": 60, "include": ["movie"], **FREE}
    texts = model.generate(num_return_sequences=5, **options)
    assert model.generate(**options) == texts[:1] == ["".join(model.stream(**options))]


SPELLED: list[dict[str, Any]] = [
    {"regex": "[a-z ]{3,}[.]{3}", "max_new_tokens": 40},
    {"regex": "good|good [a-z]+", "max_new_tokens": 12, "top_p": 0.5, "prompt": "It was ver"},
    {"regex": "[A-Za-z ,.]*[.]", "max_new_tokens": 40, "words": "known"},
    {"choices": ["good", "good " * 8, "so bad"], "max_new_tokens": 60},
    {"include": ["movie"], "max_new_tokens": 90},
]


@pytest.mark.parametrize("name", [*MODELS, "gru-word"])
@pytest.mark.parametrize("settings", SPELLED, ids=lambda value: str(value)[:40])
def test_a_text_does_not_depend_on_blocks(micro, name, settings):
    model = micro(name)
    prompt = settings.get("prompt", "")
    options = FREE | settings | {"seed": 4}
    options.pop("prompt", None)
    texts = model.generate(prompt, num_return_sequences=9, **options)
    assert [model.generate(prompt, **options)] == [texts[:1]]
    assert "".join(model.stream(prompt, **options)) == texts[0]
    with in_process({"model": model}) as server:
        limit = options.pop("max_new_tokens")
        fields = {"prompt": prompt, "max_tokens": limit, "n": 9, **options}
        answer = server.http.post("/v1/completions", json=fields).json()
        assert [prompt + choice["text"] for choice in answer["choices"]] == texts
    options |= {"max_new_tokens": limit, "max_time": 1000}  # other blocks
    assert model.generate(prompt, num_return_sequences=9, **options) == texts
    pattern = settings.get("regex")
    assert pattern is None or all(re.fullmatch(f"{prompt}(?:{pattern})", text) for text in texts)


def test_patterns_match_what_re_matches():
    def accepts(text: str) -> bool:
        state = automaton.first
        for byte in text.encode():
            state = row(state).get(byte, 0)
        return bool(state >> END & 1)

    letters = list[str]()
    for n in range(5):
        letters += map("".join, itertools.product("abc-", repeat=n))
    characters = [*map(chr, range(0x250)), *"\ud7ff\ue000\uffff\U00010000\U0010ffff", "ߟ", "ࠀ"]
    cases = [(each, letters) for each in ("a|ab|", "(a|ab)(c|b?c)+?", "(a*b?)*c{2}", "(|a){2,3}b")]
    cases += [
        (each, letters) for each in ("[^b-]a{0,2}", "[a-]+", "\\w*\\-", "((a|b)*c)*", "a{2,}.?")
    ]
    cases += [(each, characters) for each in (".", "[^é]", "[à-\U0001ffff]", "ö|[\\s\\w]")]
    for pattern, texts in [*cases, ("[^\\d\\s]|\\W", characters)]:
        automaton = Pattern(pattern)
        row = functools.cache(automaton.row)
        wrong = [text for text in texts if accepts(text) != bool(re.fullmatch(pattern, text))]
        assert not wrong, pattern


@pytest.mark.parametrize(
    "pattern",
    (
        *(
            "(a",
            "a)",
            "[a",
            "[]",
            "[a&&b]",
            "[[:alpha:]]",
            "[\\d-z]",
            "[z-a]",
            "a{2,1}",
            "a{1",
            "*a",
        ),
        *("\\", "\\bx", "(?i)a", "^a$", "\\p{L}", "(a{1,99}){1,99}", "((){999}){999}"),
        "(" * 5000,
    ),
    ids=lambda value: value[:10],
)
def test_other_patterns_are_left_to_llguidance(pattern):
    with pytest.raises(Unsupported):
        Pattern(pattern)


def test_a_pattern_of_exponentially_many_states_still_fits(micro):
    pattern = "[ab]*a[ab]{18}"
    assert re.fullmatch(pattern, micro("ngram-char").generate_one(seed=1, regex=pattern, **FREE))


def test_a_format_describes_what_follows_the_prompt_and_words_the_whole_text(micro):
    model = micro("ngram-word")
    for prompt in ("", "The movie", "The mov", "A goo"):
        text = model.generate_one(prompt, seed=1, regex="[a-z]{3}!", **FREE)
        assert re.fullmatch(re.escape(prompt) + "[a-z]{3}!", text)
    assert model.generate_one("The movie", max_new_tokens=0, include="movie") == "The movie"
    text = model.generate_one("The mov", seed=1, max_new_tokens=30, include="movie", **FREE)
    assert has_word("movie", text)


@pytest.mark.parametrize("end", ["\u00e9 ", "~", "~movie ", "\u00e9movie "])
def test_a_prompt_may_have_characters_that_the_model_lacks(micro, end):
    prompt = f"The plot{end}"
    text = micro("lstm-char").generate_one(prompt, seed=1, include="movie", exclude="film", **FREE)
    assert text.startswith(prompt)
    assert has_word("movie", text) and not has_word("film", text)


def test_a_word_in_capitals_is_completed_at_the_end_of_a_text():
    model = reviewgen.load("rnn-char")
    for seed in range(12):
        assert has_word("AND", model.generate_one(seed=seed, max_new_tokens=50, include="AND"))


@pytest.mark.parametrize("given", [{"must_include": "music"}, {"include": ["music"] * 2}])
def test_an_included_word_may_have_the_older_name_or_be_given_twice(micro, given):
    generate = functools.partial(micro("ngram-char").generate, seed=3, max_new_tokens=40, **FREE)
    assert generate(include="music") == generate(**given)


@pytest.mark.parametrize("limit", [12, 20, 33])
def test_a_text_is_complete_at_its_limit(micro, limit):
    for name in ("lstm-char", "gru-word"):
        for text in micro(name).generate(
            num_return_sequences=10, seed=1, max_new_tokens=limit, regex="[a-z ]*[.]{3}", **FREE
        ):
            assert re.fullmatch("[a-z ]*[.]{3}", text)


@pytest.mark.slow
def test_words_known_copies_and_a_format_hold_together(micro):
    model = micro("exact")
    options: dict[str, Any] = {"seed": 1, "num_return_sequences": 20, "max_new_tokens": 60}
    made = model.generate(
        **options,
        words="known",
        novelty="filter",
        max_copy=12,
        include=["movie"],
        return_dict_in_generate=True,
    )
    for each in made:
        assert each.problem or has_word("movie", each.text)
        assert not each.exceeds_max_copy


def test_a_dead_end_names_the_rule(micro):
    model = micro("ngram-char")
    options: dict[str, Any] = {"regex": "[bdg]{4}", "words": "known", "seed": 1}
    (made,) = model.generate(**options, return_dict_in_generate=True)
    assert made.finish_reason == "stuck"
    assert "regex" in made.problem
    with pytest.raises(GenerationError, match="regex"):
        model.generate(**options)
    with pytest.raises(GenerationError, match="regex"):
        list(model.stream(**options))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"regex": "a(b"}, "regex is not valid: unclosed group, at character 2"),
    ({"regex": "(?=a)"}, "regex is not valid"),
    ({"json_schema": "{"}, "json_schema is not valid JSON"),
    ({"json_schema": {"type": "foo"}}, "json_schema is not valid"),
    ({"json_schema": {"type": "string", "minLength": 3, "maxLength": 2}}, "json_schema"),
    ({"json_schema": {"properties": {"a": {"sentences": "2"}, "b": 5}}}, "object or boolean"),
    ({"json_schema": {"enum": ["é"]}}, "No text"),
    ({"grammar": 'start: "a" x'}, "grammar is not valid: line 1, column 8"),
    ({"grammar": "x" * 1_000_000}, "100,000 characters"),
    ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "grammar is not valid"),
    ({"json_schema": "[" * 100_000}, "json_schema is not valid JSON"),
    ({"regex": "a{60}"}, "max_new_tokens"),
    ({"sentences": "4..2"}, "sentences must be"),
    ({"include": ["né"]}, "characters that this model does not know"),
    ({"choices": ["é"]}, "characters that this model does not know"),
    ({"include": ["\ud800"]}, "characters that this model does not know"),
    ({"choices": ["\ud800"]}, "characters that this model does not know"),
    ({"include": [""]}, "include must be at least 1"),
    ({"include": ["a b"], "exclude": ["b"]}, "leave out one of them"),
    ({"include": ["abc"], "max_new_tokens": 2}, "at least 3 tokens"),
    ({"include": ["a"], "num_beams": 2}, "num_beams cannot be combined with a format"),
]


@pytest.mark.parametrize(
    ("settings", "message"), WRONG, ids=lambda value: getattr(value, "__name__", str(value))[:40]
)
def test_a_wrong_format_is_refused_before_anything_is_generated(settings, message):
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS, max_new_tokens=50)
    with pytest.raises(ConfigError, match=message):
        next(model.generate_each(**settings))


def test_the_command_takes_formats(run_command, model_folder, tmp_path):
    folder = model_folder("ngram-word")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    grammar = tmp_path / "rules.lark"
    grammar.write_text(GRAMMAR)
    common = ("generate", folder, "--words", "any", "--seed", "1")
    status, said, _ = run_command(*common, "--json-schema", schema)
    assert status == 0
    assert fits_schema(said.strip())
    status, said, _ = run_command(*common, "--grammar", grammar, "-n", "2")
    assert all(map(fits_grammar, said.strip().split("\n---\n")))
    status, said, _ = run_command(*common, "--include", "music", "--exclude", "movie", "--json")
    assert has_word("music", json.loads(said)["texts"][0])
    status, _, error = run_command(*common, "--regex", "(a")
    assert (status, "regex is not valid" in error) == (2, True)


def test_tables_and_receipts_repeat_the_texts(run_command, model_folder, tmp_path):
    folder = model_folder("gru-word")
    out = tmp_path / "texts.jsonl"
    receipts = tmp_path / "receipts.jsonl"
    status, _, error = run_command(
        *("generate", folder, "-n", "3", "--include", "movie", "--sentences", "1..2"),
        *("--words", "any", "--seed", "1", "--out", out, "--receipt", receipts),
    )
    assert status == 0, error
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        assert has_word("movie", row["text"]) and 1 <= len(sentence_ends(row["text"])) <= 2
    status, *_ = run_command("replay", receipts, "--model", folder)
    assert status == 0


def test_saved_defaults_may_have_a_format(micro, tmp_path):
    model = micro("ngram-char")
    model.save_generation_config(tmp_path / "m", choices=["good", "bad"])
    saved = reviewgen.load(tmp_path / "m")
    assert saved.generate_one(seed=1) in ("good", "bad")
    assert saved.generate_one(seed=1, choices=[]) not in ("good", "bad")


def test_the_server_takes_openais_and_vllms_names(micro):
    with in_process({"words": micro("ngram-word")}) as server:

        def ask(path: str = "completions", **fields: Any) -> Any:
            return server.http.post(f"/v1/{path}", json={"words": "any", "seed": 1, **fields})

        schema = {"type": "json_schema", "json_schema": {"name": "review", "schema": SCHEMA}}
        for fields, fits in (
            ({"guided_regex": REGEX}, re.compile(REGEX).fullmatch),
            ({"guided_choice": ["good", "bad"]}, ["good", "bad"].__contains__),
            ({"guided_json": json.dumps(SCHEMA)}, fits_schema),
            ({"guided_grammar": GRAMMAR}, fits_grammar),
            ({"response_format": schema}, fits_schema),
            ({"include": ["music"], "stream": False}, lambda text: has_word("music", text)),
        ):
            assert fits(ask(**fields).json()["choices"][0]["text"])
        message = {"messages": [{"role": "user", "content": "The movie "}]}
        answer = ask("chat/completions", response_format=schema, **message).json()
        assert fits_schema(answer["choices"][0]["message"]["content"])
        for fields in (
            {"response_format": {"type": "xml"}},
            {"response_format": {"type": "json_schema"}},
            {"guided_regex": "(a"},
            {"grammar": "x" * 200_000},
            {"exact": True},
        ):
            assert ask(**fields).status_code == 400


def test_bigrams_are_saved_with_the_model(micro, tmp_path):
    model = micro("ngram-word")
    assert (model.bundle.folder / "bigrams.safetensors").is_file()
    rng = np.random.default_rng(1)
    ids = rng.zipf(1.3, 400_000) % 4000
    bigrams = count_bigrams([ids], 4000)
    write_bigrams(bigrams, tmp_path / "b")
    again = read_bigrams(tmp_path / "b", 4000)
    assert (tmp_path / "b").stat().st_size <= 300_000
    assert all(
        np.array_equal(a, b)
        for a, b in zip(vars(bigrams).values(), vars(again).values(), strict=True)
    )
    assert np.allclose(
        np.bincount(ids, minlength=4000)[:5] / len(ids), bigrams.unigrams[:5], rtol=0.03
    )
