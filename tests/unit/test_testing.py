"""The conformance suite: correct plugins pass every law, and every law detects a faulty plugin."""

import itertools
import json
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from reviewgen import registry, testing
from reviewgen.compiled.sampling import sample_token
from reviewgen.compiled.windows import NO_WINDOWS
from reviewgen.errors import UnknownPlugin
from reviewgen.protocols import GraphNode, ModelGraph, Operation
from reviewgen.testing import (
    MODEL_LAWS,
    TOKENIZER_LAWS,
    TRAINING_TEXTS,
    check_model,
    check_tokenizer,
    make_model,
    make_tokenizer,
    model_laws,
    tokenizer_laws,
    train_by_counting,
)
from reviewgen.testing.device_law import devices
from tests.plugins.faults import models as faulty_models
from tests.plugins.faults import tokenizers as faulty_tokenizers
from tests.plugins.faults.models import CountTwin as Counts

V, H = 11, 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    vocab_size: int
    scale: float = 1.0


class Tiny(nn.Module):
    """A correct recurrent model: ``h <- tanh(h / 2 + embedding)``, with ``score``."""

    Config = Settings

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.randn(config.vocab_size, H) * config.scale)

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, H),)

    def forward(self, ids, state):
        (h,) = state
        outputs = []
        for column in ids.unbind(1):
            h = torch.tanh(h / 2 + self.embedding[column])
            outputs.append(h)
        return torch.stack(outputs, dim=1) @ self.embedding.T, (h,)

    def score(self, ids, targets, state):
        logits, state = self(ids, state)
        return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0], state


class BrokenProtocol(Tiny):
    initial_state = None


class BrokenExplicit(Tiny):
    def __init__(self, config, scale=1.0):
        super().__init__(config)


class BrokenConfig(Tiny):
    @dataclass(kw_only=True)
    class Config:
        vocab_size: int
        scale: float = 1.0


class BrokenShape(Tiny):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return nn.functional.pad(logits, (0, 1)), state


class BrokenState(Tiny):
    def initial_state(self, batch_size):
        return (torch.zeros(H, batch_size),)

    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, (state[0].T,))
        return logits, (h.T,)


class BrokenChunks(Tiny):
    def forward(self, ids, state):
        return super().forward(ids, self.initial_state(len(ids)))


class BrokenCausal(Tiny):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits + logits[:, -1:], state


class BrokenRows(Tiny):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits - logits.mean(0), state


class BrokenNoMutation(Tiny):
    def forward(self, ids, state):
        logits, after = super().forward(ids, state)
        state[0].add_(1)
        return logits, after


class BrokenNormal(Tiny):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits.masked_fill(torch.arange(V) == 0, -torch.inf), state


class BrokenSameAgain(Tiny):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits + 1e-5 * torch.rand(()), state


class BrokenRoundTrip(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("bias", torch.randn(V), persistent=False)

    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits + self.bias, state


class BrokenStrict(Tiny):
    def load_state_dict(self, tensors):
        return super().load_state_dict(tensors, strict=False)


class BrokenMeta(Tiny):
    def __init__(self, config):
        super().__init__(config)
        self.norm = float(self.embedding.detach().norm())


class BrokenScore(Tiny):
    def score(self, ids, targets, state):
        logits, state = self(ids, state)
        return logits.gather(-1, targets[..., None])[..., 0], state


class TinyStepper:
    """A correct stepper of Tiny that also samples, with one random number per token and two held back."""

    def __init__(self, table):
        self.table = table

    def initial_state(self, batch_size):
        return (np.zeros((batch_size, H), np.float32),)

    def forward(self, ids, state):
        (h,) = state
        for column in ids.T:
            h = np.tanh(h / 2 + self.table[column])
        return self.logits(h), (h,)

    def logits(self, h):
        return h @ self.table.T

    def numbers(self, uniform):
        return uniform

    def sample(self, state, uniform, params, texts, new_tokens, constraints=None):
        rows, room = uniform.shape
        tokens, used, spare, uniform = np.full((rows, room), -1), np.zeros(rows, np.int64), np.empty(V), self.numbers(uniform)
        states = [tuple(part[row : row + 1] for part in state) for row in range(rows)]
        for row in range(rows):
            while used[row] < room and (used[row] == 0 or tokens[row, used[row] - 1] > 1):
                t, logits = used[row], self.logits(*states[row])[0]
                text, count = np.zeros(1, np.int64), new_tokens[row] + t
                unconstrained = NO_WINDOWS, 0, None, np.zeros(3, np.int64)
                token = sample_token(logits, text, 0, count, uniform[row, t], params, *unconstrained, spare, spare.copy())
                tokens[row, t], used[row] = token, t + 1
                _, states[row] = self.forward(np.array([[token]]), states[row])
        return tokens, used, tuple(np.concatenate(parts) for parts in zip(*states, strict=True))


class Stepping(Tiny):
    """A correct model with a stepper."""

    Stepper = TinyStepper

    def stepper(self):
        return self.Stepper(self.embedding.detach().numpy().copy())


class BrokenStep(Stepping):
    class Stepper(TinyStepper):
        def forward(self, ids, state):
            logits, state = super().forward(ids, state)
            return 1.01 * logits, state


class MutatingStepper(TinyStepper):
    def forward(self, ids, state):
        logits, after = super().forward(ids, state)
        state[0][:] = after[0]
        return logits, after


class ForgetfulStepper(TinyStepper):
    def forward(self, ids, state):
        return super().forward(ids, self.initial_state(len(ids)))


class LonelyStepper(TinyStepper):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return logits + (len(logits) == 1), state


class UnlikelyStepper(TinyStepper):
    def sample(self, state, uniform, params, texts, new_tokens, constraints=None):
        return super().sample(state, uniform, params._replace(is_greedy=False), texts, new_tokens, constraints)


class EndingStepper(TinyStepper):
    def sample(self, state, uniform, params, texts, new_tokens, constraints=None):
        tokens, used, state = super().sample(state, uniform, params, texts, new_tokens, constraints)
        tokens[:, 0] = params.eos_id
        return tokens, used, state


class CountingStepper(TinyStepper):
    def numbers(self, uniform):
        return (uniform + uniform.shape[1] / 7) % 1


class NeighbourlyStepper(TinyStepper):
    def numbers(self, uniform):
        return (uniform + uniform[:, :1].sum()) % 1


class IdleStepper(TinyStepper):
    def sample(self, state, uniform, params, texts, new_tokens, constraints=None):
        return np.full(uniform.shape, -1), np.zeros(len(uniform), np.int64), state


class Several(Tiny):
    """A correct model with two implementations; the second looks up its embeddings by a matrix product."""

    used = "looked up"

    def implementations(self):
        return "looked up", "multiplied"

    def use_implementation(self, name):
        if name not in self.implementations():
            raise ValueError(name)
        self.used = name

    def forward(self, ids, state):
        if self.used == "looked up":
            return super().forward(ids, state)
        (h,), outputs = state, []
        for x in (nn.functional.one_hot(ids, V).float() @ self.table()).unbind(1):
            h = torch.tanh(h / 2 + x)
            outputs.append(h)
        return torch.stack(outputs, dim=1) @ self.embedding.T, self.after(h)

    def table(self):
        return self.embedding

    def after(self, h):
        return (h,)


class BrokenImplementations(Several):
    def table(self):
        return 1.01 * self.embedding


class CutOff(Several):
    def table(self):
        return self.embedding.detach()


class CutOffState(Several):
    def after(self, h):
        return (h.detach(),)


class OtherState(Several):
    def after(self, h):
        return (1.001 * h,)


class Rewriting(Several):
    def use_implementation(self, name):
        super().use_implementation(name)
        self.embedding.data = self.embedding.data.to(torch.float16 if name == "multiplied" else torch.float32).float()


class Lenient(Several):
    def use_implementation(self, name):
        self.used = name


class Repeating(Several):
    def implementations(self):
        return "looked up", "looked up"


class Nameless(Several):
    def implementations(self):
        return ()


class BrokenSumsToOne(Counts):
    def __call__(self, ids, state):
        return self.counts.log().expand(*ids.shape, -1), state


class BrokenReports(Counts):
    def finish(self):
        return super().finish() | {"table": object()}


class BrokenCountMerge(Counts):
    def take_counts(self):
        return self.state_dict()

    def add_counts(self, counts):
        self.counts += counts["counts"]  # the one that is added to each count, too


class BrokenCountRanges(Counts):
    def finish_ranges(self, group):
        return self.finish()


class BrokenDevices(Tiny):
    unsuited_devices = frozenset({"apple"})


class BrokenLosses(Tiny):
    def losses(self, logits, targets):
        return {"z": logits.square().sum()}  # a sum where a mean is due


class BrokenParameterGroups(Tiny):
    def parameter_groups(self):
        return [{"params": [self.embedding], "lr": 1.0}]


class BrokenInitialWeights(Tiny):
    def initial_weights(self, tensors):
        return dict(tensors)  # unknown ones, too


class BrokenGraph(Tiny):
    def describe_graph(self):
        nodes = tuple(GraphNode(id=name, label=name, kind="value") for name in ("ids", "logits"))
        return ModelGraph(nodes=nodes, edges=(), sizes={"V": self.config.vocab_size})  # without the embedding


class BrokenOperations(Tiny):
    def operations(self, ids, state):
        yield Operation(name="logits", formula="", values=self(ids, state)[0], axes="B T V", parameters=1)  # it has more


class ForgetfulSettings(Settings):
    @classmethod
    def migrate(cls, values, version):
        return {"vocab_size": values["vocab_size"] + 1}


class BrokenMigration(Tiny):
    Config = ForgetfulSettings


MODEL_FAULTS = {
    "protocol": BrokenProtocol,
    "explicit": BrokenExplicit,
    "config": BrokenConfig,
    "shape": BrokenShape,
    "state": BrokenState,
    "same_again": BrokenSameAgain,
    "causal": BrokenCausal,
    "chunks": BrokenChunks,
    "rows": BrokenRows,
    "no_mutation": BrokenNoMutation,
    "normal": BrokenNormal,
    "round_trip": BrokenRoundTrip,
    "strict": BrokenStrict,
    "meta": BrokenMeta,
    "fixed_state": faulty_models.GrowingCache,
    "long_text": faulty_models.PositionTable,
    "aligned": faulty_models.OneLate,
    "deep_copy": faulty_models.CopiesNothing,
    "causal_in_training": faulty_models.LooksAheadInTraining,
    "carried": faulty_models.KeepsItsGraph,
    "gradients": faulty_models.UnusedLayer,
    "autocast": faulty_models.MixesDtypes,
    "learns": faulty_models.ReturnsProbabilities,
    "score": BrokenScore,
    "step": BrokenStep,
    "implementations": BrokenImplementations,
    "sums_to_one": BrokenSumsToOne,
    "reports": BrokenReports,
    "count_merge": BrokenCountMerge,
    "count_ranges": BrokenCountRanges,
    "devices": BrokenDevices,
    "losses": BrokenLosses,
    "parameter_groups": BrokenParameterGroups,
    "initial_weights": BrokenInitialWeights,
    "migration": BrokenMigration,
    "described_graph": BrokenGraph,
    "operations": BrokenOperations,
}


def model_maker(cls):
    def make():
        torch.manual_seed(0)
        model = cls(cls.Config(vocab_size=V))
        if isinstance(model, Counts):
            train_by_counting(model, V)
            return model
        return model.eval()

    return make


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    pass


class Bytes:
    """A correct tokenizer: the ids are the bytes, shifted by a number that ``train`` sets and ``save`` stores."""

    Config = NoSettings
    vocab_size, bos_id, eos_id = 258, 256, 257

    def __init__(self, shift=0):
        self.shift = shift

    @classmethod
    def train(cls, texts, config):
        return cls(sum(1 for _ in texts))

    def encode(self, text):
        return [(byte + self.shift) % 256 for byte in text.encode("utf-8", "surrogatepass")]

    def decode(self, ids):
        raw = bytes((i - self.shift) % 256 for i in ids if i < 256)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def save(self, folder):
        (folder / "bytes.json").write_text(json.dumps(self.shift))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "bytes.json").read_text()))


class BrokenTokenizerProtocol(Bytes):
    save = None


class BrokenTokenizerConfig(Bytes):
    @dataclass
    class Config:
        pass


class BrokenEveryText(Bytes):
    def encode(self, text):
        return super().encode(text.encode().decode())


class BrokenFrame(Bytes):
    def encode(self, text):
        return [*super().encode(text), *([self.bos_id] if "<s>" in text else [])]


class BrokenStable(Bytes):
    def decode(self, ids):
        return super().decode(ids).replace("\r\n", "\n")


class BrokenKnownText(Bytes):
    def encode(self, text):
        return super().encode(text.lower())


class BrokenUnseenText(Bytes):
    def encode(self, text):
        return super().encode(text.replace("映", "?"))


class BrokenAnyIds(Bytes):
    def decode(self, ids):
        return bytes((i - self.shift) % 256 for i in ids if i < 256).decode("utf-8", "surrogatepass")


class BrokenBatch(Bytes):
    def encode_batch(self, texts):
        return super().encode_batch([text.strip() for text in texts])


class BrokenTrainedAgain(Bytes):
    times = itertools.count()

    @classmethod
    def train(cls, texts, config):
        return cls(next(cls.times))


class BrokenStreamed(Bytes):
    @classmethod
    def train(cls, texts, config):
        longest = max(map(len, texts))
        return cls(longest + sum(1 for _ in texts))


class BrokenSaveLoad(Bytes):
    @classmethod
    def load(cls, folder):
        return cls()


class BrokenPlainData(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "bytes.txt").write_bytes(pickle.dumps({"shift": self.shift}, protocol=0))


TOKENIZER_FAULTS = {
    "protocol": BrokenTokenizerProtocol,
    "config": BrokenTokenizerConfig,
    "every_text": BrokenEveryText,
    "frame": BrokenFrame,
    "stable": BrokenStable,
    "known_text": BrokenKnownText,
    "unseen_text": BrokenUnseenText,
    "any_ids": BrokenAnyIds,
    "batch": BrokenBatch,
    "trained_again": BrokenTrainedAgain,
    "streamed": BrokenStreamed,
    "in_parts": faulty_tokenizers.ForgetsParts,
    "save_load": BrokenSaveLoad,
    "other_programs": faulty_tokenizers.GivesAnotherJson,
    "plain_data": BrokenPlainData,
    "no_subfolders": faulty_tokenizers.MakesAFolder,
    "file_names": faulty_tokenizers.WritesConfigJson,
    "own_folder": faulty_tokenizers.WritesWhenLoaded,
    "any_order": faulty_tokenizers.InTheOrderOfASet,
}


def tokenizer_maker(cls):
    return lambda: cls.train(TRAINING_TEXTS, cls.Config())


def test_every_law_has_a_faulty_plugin():
    assert [law.__name__ for law in MODEL_LAWS] == list(MODEL_FAULTS)
    assert [law.__name__ for law in TOKENIZER_LAWS] == list(TOKENIZER_FAULTS)


def test_every_law_is_in_its_list():
    helpers = {"MODEL_LAWS", "check_model", "make_model", "train_by_counting"}
    assert {law.__name__ for law in MODEL_LAWS} == set(model_laws.__all__) - helpers
    helpers = {"TOKENIZER_LAWS", "NASTY_TEXTS", "TRAINING_TEXTS", "check_tokenizer", "make_tokenizer", "lossless"}
    assert {law.__name__ for law in TOKENIZER_LAWS} == set(tokenizer_laws.__all__) - helpers
    assert all(hasattr(testing, name) for name in testing.__all__)


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
class TestModelLaw:
    def test_a_correct_model_passes(self, law):
        law(model_maker(Tiny))

    def test_a_correct_model_with_a_stepper_passes(self, law):
        law(model_maker(Stepping))

    def test_a_correct_model_with_implementations_passes(self, law):
        law(model_maker(Several))

    def test_a_correct_count_model_passes(self, law):
        law(model_maker(Counts))

    def test_the_faulty_plugin_is_detected(self, law):
        with pytest.raises(AssertionError):
            law(model_maker(MODEL_FAULTS[law.__name__]))


@pytest.mark.parametrize("law", TOKENIZER_LAWS, ids=lambda law: law.__name__)
class TestTokenizerLaw:
    def test_a_correct_tokenizer_passes(self, law):
        law(tokenizer_maker(Bytes))

    def test_a_correct_tokenizer_without_byte_fallback_passes(self, law):
        law(tokenizer_maker(faulty_tokenizers.Ascii))

    def test_the_faulty_plugin_is_detected(self, law):
        with pytest.raises(AssertionError):
            law(tokenizer_maker(TOKENIZER_FAULTS[law.__name__]))


SINGLE = [
    "explicit",
    "config",
    "chunks",
    "rows",
    "strict",
    "meta",
    "score",
    "step",
    "devices",
    "implementations",
]


@pytest.mark.parametrize("name", SINGLE)
def test_a_fault_breaks_no_other_law(name):
    for law in MODEL_LAWS:
        if law.__name__ != name:
            law(model_maker(MODEL_FAULTS[name]))


class BrokenByMissing(Tiny):
    def load_state_dict(self, tensors):
        return super().load_state_dict({**self.state_dict(), **tensors})


class BrokenByShape(Counts):
    def load_state_dict(self, tensors):
        if list(tensors) != ["counts"]:
            raise ValueError("other tensors")


@pytest.mark.parametrize("fault", [BrokenByMissing, BrokenByShape])
def test_strict_finds_each_kind_of_fault(fault):
    with pytest.raises(AssertionError, match="must raise"):
        model_laws.strict(model_maker(fault))


@pytest.mark.parametrize(
    ("stepper", "sentence"),
    [
        (MutatingStepper, "changes the state"),
        (ForgetfulStepper, "chunks"),
        (LonelyStepper, "alone"),
        (UnlikelyStepper, "greedy decoding"),
        (EndingStepper, "not within the first"),
        (CountingStepper, "per call"),
        (NeighbourlyStepper, "numbers per call|must not depend on the others"),
        (IdleStepper, "uses none of"),
    ],
)
def test_step_finds_each_kind_of_fault(monkeypatch, stepper, sentence):
    monkeypatch.setattr(Stepping, "Stepper", stepper)
    with pytest.raises(AssertionError, match=sentence):
        model_laws.step(model_maker(Stepping))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (CutOff, "'multiplied' gives another gradient of embedding"),
        (CutOffState, "'multiplied' gives another gradient of embedding"),
        (OtherState, "'multiplied' gives another (logits|state)"),
        (Rewriting, "'multiplied' changes the model's tensors|gives another"),
        (Lenient, "accepts"),
        (Repeating, "twice"),
        (Nameless, "empty"),
    ],
)
def test_implementations_finds_each_kind_of_fault(fault, sentence):
    with pytest.raises(AssertionError, match=sentence):
        model_laws.implementations(model_maker(fault))


def test_check_runs_every_law():
    check_model(model_maker(Tiny))
    check_tokenizer(tokenizer_maker(Bytes))
    with pytest.raises(AssertionError, match="Row 0 alone"):
        check_model(model_maker(BrokenRows))
    with pytest.raises(AssertionError, match="encode_batch"):
        check_tokenizer(tokenizer_maker(BrokenBatch))


@pytest.fixture
def registered(monkeypatch):
    """Register fakes by name, for one test."""
    monkeypatch.setattr(registry.plugins, "_registered", {})
    registry.register_model("tiny", Tiny)
    registry.register_model("counts", Counts)
    registry.register_tokenizer("bytes", Bytes)


@pytest.mark.usefixtures("registered")
class TestByName:
    def test_a_model_is_built_with_settings_and_in_evaluation_mode(self):
        model = make_model("tiny", vocab_size=7, scale=0.5)
        assert model.config == Settings(vocab_size=7, scale=0.5)
        assert not model.training

    def test_a_seed_gives_the_same_model_and_leaves_global_random_state_alone(self):
        before = torch.random.get_rng_state()
        first, second, other = make_model("tiny"), make_model("tiny"), make_model("tiny", seed=1)
        assert torch.equal(first.embedding, second.embedding)
        assert not torch.equal(first.embedding, other.embedding)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_a_count_model_is_trained(self):
        assert make_model("counts").counts.sum() > V

    @pytest.mark.parametrize("vocab_size", [2, 3])
    def test_a_tiny_vocabulary_works(self, vocab_size):
        check_model(lambda: make_model("counts", vocab_size=vocab_size))

    def test_a_tokenizer_is_trained(self):
        assert make_tokenizer("bytes").shift == len(TRAINING_TEXTS)

    def test_an_unknown_name_is_an_error(self):
        with pytest.raises(UnknownPlugin):
            make_model("nothing")


@pytest.mark.parametrize("named", [["mps"], frozenset({"cpu"}), frozenset({"mps:0"}), frozenset({3})])
def test_unsuited_devices_must_be_device_types(named):
    class Broken(Tiny):
        unsuited_devices = named

    with pytest.raises(AssertionError, match="unsuited_devices"):
        devices(model_maker(Broken))
