"""The serving engine: texts in company are those of ``generate``, what is streamed is never wrong, and each is on its own."""

import gc
import itertools
import math
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import reviewgen
from reviewgen.errors import BrokenPlugin, ConfigError, DataError, GenerationError
from reviewgen.generation import Generation, Request, make_request
from reviewgen.model import ReviewModel
from reviewgen.sentences import sentence_ends
from reviewgen.serving import jobs
from reviewgen.serving.engine import Engine, Job
from reviewgen.serving.events import EndEvent, Event, FailedEvent, TokenEvent
from reviewgen.serving.problems import OutOfTime
from tests.support.fakes import LETTERS, FakeConfig, LetterTokenizer, QueueModel, TableModel, review_model, table
from tests.unit.test_broken_models import Growing
from tests.support.ngrams import LOOP, counted, indexed

PATIENCE = 120.0  # seconds: other processes may be busy
CALLS: list[tuple[str, dict[str, Any]]] = [  # prompt and settings
    ("the ", {"seed": 1, "num_return_sequences": 3}),
    ("", {"seed": 2, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 60}),
    ("I liked th", {"seed": 3, "words": "any", "finish": "anywhere", "num_return_sequences": 4}),
    ("", {"seed": 4, "words": "known", "finish": "sentence", "max_new_tokens": 90}),
    ("A film", {"seed": 5, "stop_strings": ["th", "it"], "num_return_sequences": 3}),
    ("the ", {"seed": 6, "repetition_penalty": 1.2, "no_repeat_ngram_size": 4, "min_new_tokens": 20}),
    ("Tr\u00e8s \u65e5", {"seed": 7, "top_k": 5, "conditions": {"style": "review"}}),
    ("the ", {"seed": 8, "temperature": (0.5, 1.2), "min_p": 0.02, "max_new_tokens": 33}),
    ("Well, ", {"seed": 9, "do_sample": False}),
    ("", {"seed": 10, "max_new_tokens": 0}),
]


class Client:
    """A consumer of one request: collects its events."""

    def __init__(self, engine: Engine, request: Request, takes: bool = True, **options: Any) -> None:
        self.request, self.takes = request, takes
        self.events: list[Event] = []
        self.is_complete = threading.Event()
        self.job: Job | None = None
        self.job = engine.submit(request, self.deliver, **options)

    def deliver(self, events: list[Event]) -> None:
        self.events += events
        while self.job is None:  # submit has not returned yet
            time.sleep(0.001)
        if self.takes:
            self.job.taken(len(events))
        if self.failure is not None or len(self.ends) == len(self.request.prompts):
            self.is_complete.set()

    def wait(self) -> "Client":
        assert self.is_complete.wait(PATIENCE), self.events[-3:]
        return self

    @property
    def ends(self) -> list[EndEvent]:
        return sorted((event for event in self.events if isinstance(event, EndEvent)), key=lambda end: end.number)

    @property
    def failure(self) -> FailedEvent | None:
        return next((event for event in self.events if isinstance(event, FailedEvent)), None)

    def tokens(self, number: int = 0) -> list[TokenEvent]:
        return [event for event in self.events if isinstance(event, TokenEvent) and event.number == number]

    def streamed(self, number: int = 0) -> str:
        return "".join(event.text for event in self.tokens(number))


def request_of(model: ReviewModel, prompt: str | Sequence[str] = "", **options: Any) -> Request:
    given: Any = {"max_new_tokens": 40} | options
    return make_request(prompt, model.generation_config, given, model.tokenizer, model.conditions)


def expect(client: Client, texts: Sequence[Generation]) -> None:
    """Assert that a client got some texts, and their tokens in order."""
    assert client.failure is None
    assert [end.text for end in client.ends] == [text.text for text in texts]
    for end, text in zip(client.ends, texts, strict=True):
        assert (list(end.ids), end.reason, end.new_tokens) == (text.tokens, text.finish_reason, text.new_tokens)
        assert end.prompt_tokens + end.new_tokens == len(end.ids)
        assert end.exceeds_max_copy == text.exceeds_max_copy
        tokens = client.tokens(end.number)
        assert [token.token for token in tokens] == text.tokens[len(text.tokens) - text.new_tokens :]
        assert client.streamed(end.number) == text.text[len(text.prompt) :]


def generated(model: ReviewModel, prompt: str | Sequence[str] = "", **options: Any) -> list[Generation]:
    settings: Any = {"max_new_tokens": 40} | options
    return model.generate(prompt, return_dict_in_generate=True, **settings)


@pytest.fixture(scope="module", params=["lstm-char", "ngram-word", "blend-char"])
def model(request: pytest.FixtureRequest) -> ReviewModel:
    return reviewgen.load(request.param)


@pytest.fixture(scope="module")
def engine(model: ReviewModel) -> Iterator[Engine]:
    engine = Engine(model, max_rows=8, threads=2)
    yield engine
    engine.close(drain=False)


@pytest.fixture
def letters() -> Iterator[tuple[ReviewModel, Engine]]:
    """A model that is called through torch, and its engine of four rows."""
    model = review_model(TableModel(table(LETTERS.vocab_size, eos=-2.0)), LETTERS)
    engine = Engine(model, max_rows=4)
    yield model, engine
    engine.close(drain=False)


def test_texts_in_company_are_those_of_generate(model: ReviewModel, engine: Engine) -> None:
    clients = []
    for prompt, settings in CALLS:
        clients.append(Client(engine, request_of(model, prompt, **settings)))
        time.sleep(0.01)  # the others have begun
    for client, (prompt, settings) in zip(clients, CALLS, strict=True):
        expect(client.wait(), generated(model, prompt, **settings))


def test_texts_are_the_same_while_others_are_cancelled(model: ReviewModel, engine: Engine) -> None:
    others = [Client(engine, request_of(model, "the ", seed=seed, max_new_tokens=10_000, finish="anywhere")) for seed in range(4)]
    client = Client(engine, request_of(model, "It ", seed=1, num_return_sequences=3))
    for other in others:
        time.sleep(0.01)
        assert other.job is not None
        other.job.cancel()
    expect(client.wait(), generated(model, "It ", seed=1, num_return_sequences=3))
    counts = [len(other.events) for other in others]
    expect(Client(engine, request_of(model, seed=2)).wait(), generated(model, seed=2))
    assert [len(other.events) for other in others] == counts
    assert engine.stats().jobs <= 1 and engine.stats().waiting_rows == 0


def test_log_probabilities_and_alternatives_are_the_model_s_own(model: ReviewModel, engine: Engine) -> None:
    silent = Client(engine, request_of(model, "the ", seed=1)).wait()
    assert all(math.isnan(token.logprob) and token.alternatives == () for token in silent.tokens())
    for prompt, settings in (CALLS[1], CALLS[4]):
        client = Client(engine, request_of(model, prompt, **settings), alternatives=3).wait()
        texts = generated(model, prompt, **settings)
        expect(client, texts)
        for end, text in zip(client.ends, texts, strict=True):
            own = text.log_probabilities[len(text.tokens) - text.new_tokens : len(text.tokens)]
            np.testing.assert_allclose([token.logprob for token in client.tokens(end.number)], own, rtol=1e-4, atol=1e-4)


def test_alternatives_are_the_most_probable_next_tokens(model: ReviewModel, engine: Engine) -> None:
    settings: dict[str, Any] = {"seed": 3, "max_new_tokens": 12, "finish": "anywhere"}
    client = Client(engine, request_of(model, **settings), alternatives=5).wait()
    ids = client.ends[0].ids
    for place, token in enumerate(client.tokens()):
        text = model.tokenizer.decode(ids[:place])
        if model.tokenizer.encode(text) != list(ids[:place]):
            continue  # the tokenizer would have cut it differently
        expected = model.next_tokens(text, k=5, conditions=model.generation_config.conditions).alternatives
        assert [one.token for one in token.alternatives] == [one.token for one in expected]
        found = [math.exp(one.logprob) for one in token.alternatives]
        np.testing.assert_allclose(found, [one.probability for one in expected], 5e-3)  # where bos has no probability


def test_only_the_ends_where_tokens_are_not_asked_for(model: ReviewModel, engine: Engine) -> None:
    client = Client(engine, request_of(model, "the ", seed=1, num_return_sequences=2), tokens=False).wait()
    assert len(client.events) == 2
    assert [end.text for end in client.ends] == model.generate("the ", seed=1, num_return_sequences=2, max_new_tokens=40)


def test_sentences_are_streamed_whole_and_never_taken_back(model: ReviewModel, engine: Engine) -> None:
    settings: dict[str, Any] = {"seed": 1, "num_return_sequences": 6, "finish": "sentence", "max_new_tokens": 300}
    client = Client(engine, request_of(model, "The ", **settings)).wait()
    expect(client, generated(model, "The ", **settings))
    early = 0
    for end in client.ends:
        before = client.events[: client.events.index(end)]
        text = "The " + "".join(event.text for event in before if isinstance(event, TokenEvent) and event.number == end.number)
        assert end.text.startswith(text)
        early += len(sentence_ends(end.text, 4)) > 1 and end.reason == "length"
    assert early  # some had a sentence to stream and one to remove


def test_prompts_of_several_texts_and_a_text_longer_than_the_others(model: ReviewModel, engine: Engine) -> None:
    prompts = ["the ", "", "I liked th" + "e movie and th" * 30]
    client = Client(engine, request_of(model, prompts, seed=5, num_return_sequences=2)).wait()
    expect(client, generated(model, prompts, seed=5, num_return_sequences=2))


def test_what_must_be_included_and_beams_are_those_of_generate(model: ReviewModel, engine: Engine) -> None:
    for settings in ({"must_include": "the", "num_return_sequences": 2}, {"num_beams": 3, "num_return_sequences": 2}):
        options = {"seed": 4, "max_new_tokens": 20} | settings
        expect(Client(engine, request_of(model, "A", **options), alternatives=2).wait(), generated(model, "A", **options))


def test_a_hopeless_search_can_be_cancelled(model: ReviewModel, engine: Engine) -> None:
    client = Client(engine, request_of(model, must_include="\u2603", max_new_tokens=1000, seed=1))
    time.sleep(0.05)
    assert client.job is not None
    client.job.cancel()
    expect(Client(engine, request_of(model, must_include="e", seed=1)).wait(), generated(model, must_include="e", seed=1))
    assert client.events == []


def test_searches_take_turns(model: ReviewModel, engine: Engine) -> None:
    long = Client(engine, request_of(model, must_include="e", num_return_sequences=60, seed=1))
    short = Client(engine, request_of(model, must_include="e", num_return_sequences=2, seed=2)).wait()
    assert len(long.ends) < 30
    assert engine.stats().offline_rows > 30 and engine.stats().waiting_rows == 0
    expect(short, generated(model, "", must_include="e", num_return_sequences=2, seed=2))
    assert long.job is not None
    long.job.cancel()


def test_a_hopeless_search_does_not_hold_up_another(model: ReviewModel, engine: Engine) -> None:
    hopeless: dict[str, Any] = {"must_include": "\u2603", "max_new_tokens": 10**9, "min_new_tokens": 10**9, "max_time": PATIENCE}
    first = Client(engine, request_of(model, seed=1, **hopeless))
    settings: dict[str, Any] = {"must_include": "e", "seed": 2, "num_return_sequences": 2, "max_new_tokens": 20}
    expect(Client(engine, request_of(model, **settings)).wait(), generated(model, **settings))
    assert first.events == []
    assert first.job is not None
    first.job.cancel()


def test_the_time_of_a_search_counts_while_it_waits(model: ReviewModel, engine: Engine) -> None:
    hopeless: dict[str, Any] = {"must_include": "\u2603", "max_new_tokens": 10**9, "min_new_tokens": 10**9}
    clients = [Client(engine, request_of(model, max_time=2.0, **hopeless)) for _ in range(3)]
    late = Client(engine, request_of(model, max_time=1e-9, must_include="e")).wait()
    assert late.failure is not None and isinstance(late.failure.error, OutOfTime)
    started = time.monotonic()
    assert all(client.wait().failure is not None for client in clients)
    assert time.monotonic() - started < PATIENCE / 2


def test_a_text_that_goes_back_is_streamed_at_its_end() -> None:
    model = indexed(counted(LOOP, order=5), LOOP, temperature=0.7, max_new_tokens=30)
    engine = Engine(model)
    options: dict[str, Any] = {"seed": 0, "novelty": "filter", "max_copy": 3, "num_return_sequences": 12}
    client = Client(engine, request_of(model, "a", **options), alternatives=2)
    free = Client(engine, request_of(model, "a", seed=0, novelty="report", num_return_sequences=4))
    expect(client.wait(), generated(model, "a", **options))
    for end in client.ends:
        text = model.generate("a", **options)[end.number]
        assert end.copied == text.novelty.spans  # type: ignore[attr-defined]  # with novelty they are GeneratedTexts
        np.testing.assert_allclose(
            [token.logprob for token in client.tokens(end.number)],
            generated(model, "a", **options)[end.number].log_probabilities[1 : len(end.ids)],
            rtol=1e-4,
            atol=1e-5,
        )
    assert any(span.tokens > 8 for end in free.wait().ends for span in end.copied)
    engine.close()


def test_any_model_is_called_token_by_token(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters
    calls = [("ab", {"seed": seed, "num_return_sequences": 3, "stop_strings": ["cab"] if seed % 2 else []}) for seed in range(4)]
    clients = [Client(engine, request_of(model, prompt, **settings), alternatives=1) for prompt, settings in calls]
    for client, (prompt, settings) in zip(clients, calls, strict=True):
        expect(client.wait(), generated(model, prompt, **settings))


def test_long_prompts_of_requests_that_are_gone_are_not_fed() -> None:
    class Waits(TableModel):
        """Waits before it reads a long prompt."""

        def __call__(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if ids.shape[1] > 100:
                assert goes_on.wait(PATIENCE)
            return super().__call__(ids, state)

    goes_on, fake = threading.Event(), Waits(table(LETTERS.vocab_size, eos=-2.0))
    model = review_model(fake, LETTERS)
    engine = Engine(model)
    prompts = [letter + "ab" * 300 for letter in "abcdefgh"]
    gone = [Client(engine, request_of(model, prompt)) for prompt in prompts]
    while engine.stats().live_rows < len(gone):
        time.sleep(0.01)
    stays = Client(engine, request_of(model, prompts[-1], seed=1))  # waits for the same prompt as one that goes
    for client in gone:
        assert client.job is not None
        client.job.cancel()
    goes_on.set()
    expect(stays.wait(), generated(model, prompts[-1], seed=1))
    fed = sum(shape[1] for shape in fake.calls if shape[1] > 100)  # in pieces of up to 512 tokens
    assert fed <= 3 * 602  # the first, which was being fed; the one that is waited for; and that of generate
    engine.close()


def test_logits_processors_and_stopping_criteria(model: ReviewModel, engine: Engine) -> None:
    def louder(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores * 1.5

    def is_long(ids: torch.Tensor, scores: torch.Tensor) -> bool:
        return ids.shape[1] > 20

    hooks: dict[str, Any] = {"logits_processor": [louder], "stopping_criteria": [is_long], "seed": 2, "num_return_sequences": 2}
    client, plain = Client(engine, request_of(model, "the ", **hooks)), Client(engine, request_of(model, "the ", seed=2))
    expect(client.wait(), generated(model, "the ", **hooks))
    expect(plain.wait(), generated(model, "the ", seed=2))


def test_a_failing_processor_ends_its_request_only(model: ReviewModel, engine: Engine) -> None:
    def fails(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] > 12:
            raise RuntimeError("no more")
        return scores

    client = Client(
        engine, request_of(model, "the ", logits_processor=[fails], seed=1, num_return_sequences=3, finish="anywhere")
    )
    plain = Client(engine, request_of(model, "the ", seed=2, num_return_sequences=3))
    failure = client.wait().failure
    assert failure is not None and isinstance(failure.error, GenerationError) and "RuntimeError: no more" in str(failure.error)
    expect(plain.wait(), generated(model, "the ", seed=2, num_return_sequences=3))


def test_damaged_logits_end_their_request_only() -> None:
    damaged = table(LETTERS.vocab_size, eos=-30.0)
    damaged[LETTERS.encode("h")[0]] = float("nan")  # after an h
    damaged[:, LETTERS.encode("h")[0]] = -30.0
    model = review_model(TableModel(damaged), LETTERS)
    engine = Engine(model)
    client = Client(engine, request_of(model, "ah", seed=1))
    plain = Client(engine, request_of(model, "ab", seed=1, num_return_sequences=3))
    failure = client.wait().failure
    assert failure is not None and "NaN" in str(failure.error)
    expect(plain.wait(), generated(model, "ab", seed=1, num_return_sequences=3))
    engine.close()


class Fragile(TableModel):
    """Raises for a whole batch if one row's last token is h."""

    def __call__(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if (ids == LETTERS.encode("h")[0]).any():
            raise ValueError("h is not for me")
        return super().__call__(ids, state)


def test_what_fails_for_a_batch_ends_the_request_at_fault() -> None:
    logits = table(LETTERS.vocab_size, eos=-30.0)
    logits[:, LETTERS.encode("h")[0]] = -30.0
    logits[LETTERS.encode("g")[0], LETTERS.encode("h")[0]] = 30.0  # h after g
    logits[: LETTERS.encode("g")[0], LETTERS.encode("g")[0]] = -30.0  # g after h and blank only
    model = review_model(Fragile(logits), LETTERS)
    engine = Engine(model)
    clients = [Client(engine, request_of(model, "g" if seed == 2 else "a", seed=seed)) for seed in range(5)]
    ended = [client.wait().failure for client in clients]
    assert "ValueError: h is not for me" in str(ended[2])
    texts = [client.ends[0].text for client, failure in zip(clients, ended, strict=True) if failure is None]
    assert len(texts) >= 1
    engine.close()


def test_a_state_that_grows_is_a_sentence() -> None:
    with pytest.raises(BrokenPlugin, match="must have a fixed size from the start"):
        Engine(review_model(Growing(FakeConfig(vocab_size=LETTERS.vocab_size)), LETTERS))


def test_a_request_for_many_texts_leaves_room_for_others(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters
    many = Client(engine, request_of(model, seed=1, num_return_sequences=60, min_new_tokens=40))
    for seed in range(5):
        expect(
            Client(engine, request_of(model, seed=seed, min_new_tokens=40)).wait(), generated(model, seed=seed, min_new_tokens=40)
        )
    assert not many.is_complete.is_set()
    assert engine.stats().live_rows <= 8  # each started row is finished before the next one starts
    expect(many.wait(), generated(model, seed=1, num_return_sequences=60, min_new_tokens=40))


def test_those_that_came_first_have_the_seats() -> None:
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    engine, order = Engine(model, max_rows=2), []
    options: dict[str, Any] = {"min_new_tokens": 200, "max_new_tokens": 200}
    clients = [Client(engine, request_of(model, seed=seed, **options)) for seed in range(6)]
    waiting = set(range(6))
    while waiting:
        for number in sorted(waiting):
            if clients[number].is_complete.is_set():
                order.append(number)
                waiting.remove(number)
        time.sleep(0.0005)
    assert set(order[:2]) == {0, 1} and set(order[4:]) == {4, 5}
    engine.close()


def test_a_slow_reader_stops_its_own_text_only(letters: tuple[ReviewModel, Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_UNTAKEN", 30)
    model, engine = letters
    length = 600
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": length, "min_new_tokens": length}
    slow = Client(engine, request_of(model, **options), takes=False)
    expect(Client(engine, request_of(model, **options)).wait(), generated(model, **options))
    got = len(slow.events)
    assert 30 < got < length
    time.sleep(0.1)
    assert len(slow.events) == got
    assert slow.job is not None
    slow.takes = True
    slow.job.taken(got)
    expect(slow.wait(), generated(model, **options))


def test_a_consumer_that_raises_ends_its_request_only(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters

    def fails(events: list[Event]) -> None:
        raise RuntimeError("the client has gone")

    job = engine.submit(request_of(model, seed=1, num_return_sequences=50), fails)
    expect(Client(engine, request_of(model, seed=2)).wait(), generated(model, seed=2))
    assert job.is_cancelled and engine.is_alive


def test_closing_finishes_the_texts_or_ends_them() -> None:
    model = review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)
    engine = Engine(model)
    client = Client(engine, request_of(model, seed=1, num_return_sequences=100))
    engine.close(drain=True)
    expect(client, generated(model, seed=1, num_return_sequences=100))
    with pytest.raises(GenerationError, match="closed"):
        engine.submit(request_of(model), lambda events: None)
    engine = Engine(model)
    endless = Client(engine, request_of(model, seed=1, max_new_tokens=10**9, min_new_tokens=10**9))
    engine.close(drain=True, timeout=0.1)
    assert not engine.is_alive
    failure = endless.wait().failure
    assert failure is not None and "shut down" in str(failure.error)


def test_time_ends_a_text(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters
    options: dict[str, Any] = {"max_new_tokens": 10**9, "min_new_tokens": 10**9, "max_time": 0.1, "num_return_sequences": 6}
    client = Client(engine, request_of(model, seed=1, **options)).wait()
    assert {end.reason for end in client.ends} == {"time"}
    assert [client.streamed(end.number) for end in client.ends] == [end.text for end in client.ends]


def test_token_ids_are_fed_as_they_are(model: ReviewModel, engine: Engine) -> None:
    prompt = "I liked the"
    ids = model.tokenizer.encode(prompt)
    client = Client(engine, request_of(model, prompt, seed=1, finish="anywhere"), prompt_ids=[ids], alternatives=0).wait()
    (end,) = client.ends
    assert list(end.ids[: len(ids)]) == ids and end.prompt_tokens == len(ids)
    assert end.text.startswith(prompt) and client.streamed() == end.text[len(prompt) :]
    if model.tokenizer_name == "char":  # which samples nothing of a prompt again
        assert end.text == model.generate_one(prompt, seed=1, finish="anywhere", max_new_tokens=40)


def test_token_ids_may_end_inside_a_character(model: ReviewModel, engine: Engine) -> None:
    whole = model.tokenizer.encode("a \U0001f3b9")
    client = Client(engine, request_of(model, "a ", seed=1, finish="anywhere"), prompt_ids=[whole[:-1]]).wait()
    (end,) = client.ends
    decoded = model.tokenizer.decode(end.ids)
    assert end.text == (decoded.rstrip("\ufffd") if end.reason == "length" else decoded)
    assert end.text == "a " + client.streamed()


@pytest.mark.parametrize("ids", [[-1], [10**9], [0]])
def test_ids_of_no_token_are_a_sentence(letters: tuple[ReviewModel, Engine], ids: list[int]) -> None:
    model, engine = letters
    with pytest.raises(ConfigError, match="is not the id of a token"):
        engine.submit(request_of(model, "a"), lambda events: None, prompt_ids=[ids])
    with pytest.raises(ConfigError, match="lists of token ids"):
        engine.submit(request_of(model, "a"), lambda events: None, prompt_ids=[])


def test_what_the_model_lacks_is_said_at_once(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters
    for options in ({"novelty": "filter"}, {"words": "known"}):
        with pytest.raises(DataError):
            engine.submit(request_of(model, **options), lambda events: None)


def test_a_character_in_parts_is_delivered_with_its_last_part() -> None:
    model = reviewgen.load("ngram-char")
    tokenizer = model.tokenizer
    ids = tokenizer.encode("a\u00e9\U0001f3b9b\u65e5")
    assert len(ids) > 5  # bytes
    queue = review_model(QueueModel(ids, tokenizer), tokenizer)
    engine = Engine(queue)
    client = Client(engine, request_of(queue, words="any")).wait()
    assert client.streamed() == client.ends[0].text == "a\u00e9\U0001f3b9b\u65e5"
    assert [token.text for token in client.tokens()] == [
        text if whole else ""
        for before, after in itertools.pairwise(tokenizer.decode(ids[:count]) for count in range(len(ids) + 1))
        for whole in [not after.endswith("\ufffd")]
        for text in [after[len(before.rstrip("\ufffd")) :]]
    ]
    engine.close()


def test_a_stop_string_inside_a_token_ends_the_stream_there() -> None:
    model = reviewgen.load("ngram-word")
    engine = Engine(model)
    options: dict[str, Any] = {"seed": 2, "stop_strings": ["ovi", "il", "ha"], "num_return_sequences": 8, "max_new_tokens": 100}
    expect(Client(engine, request_of(model, **options)).wait(), generated(model, **options))
    engine.close()


class Untidy(LetterTokenizer):
    """Joins its tokens with hyphens, so that the text of a token depends on the one before."""

    def decode(self, ids: Sequence[int]) -> str:
        return "-".join(LetterTokenizer.decode(self, [token]) for token in ids if token >= 2)


def test_a_tokenizer_whose_tokens_do_not_stand_for_themselves() -> None:
    tokenizer = Untidy("abcdefgh ")
    tokenizer.characters += "xy"
    tokenizer.vocab_size += 2
    model = review_model(TableModel(table(tokenizer.vocab_size, eos=-2.0)), tokenizer)
    engine = Engine(model)
    client = Client(engine, request_of(model, seed=3)).wait()
    assert client.ends[0].text == generated(model, seed=3)[0].text
    assert client.ends[0].text.startswith(client.streamed())
    engine.close()


def test_nothing_is_kept_of_requests_that_are_done(letters: tuple[ReviewModel, Engine]) -> None:
    model, engine = letters
    started = []
    for seed in range(150):
        client = Client(engine, request_of(model, "abcdefgh "[: seed % 9] * (seed // 9), seed=seed, max_new_tokens=5))
        if seed % 3 == 0:
            assert client.job is not None
            client.job.cancel()
        else:
            client.wait()
        started.append(weakref.ref(client.job))
    del client
    expect(Client(engine, request_of(model, seed=1)).wait(), generated(model, seed=1))
    until = time.monotonic() + PATIENCE
    while engine.stats().jobs and time.monotonic() < until:
        time.sleep(0.01)
    Client(engine, request_of(model, seed=2)).wait()  # the engine holds no other request any more
    gc.collect()
    assert sum(job() is not None for job in started) <= 1
    assert len(engine._batch._beginnings._kept) <= 64 and not engine._batch._beginnings._waiting
