"""The steppers of the neural models: equal to torch's cells, row by row the same, and without torch."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from reviewgen_nnlm.model import Nnlm
from reviewgen_nnlm.stepping import NnlmStepper
from reviewgen_recurrent import stepping
from reviewgen_recurrent.gru import Gru
from reviewgen_recurrent.lstm import Lstm
from reviewgen_recurrent.rnn import Rnn

from reviewgen.compiled.sampling import DEAD_END, NONE, NOTHING_LEFT, Constraints, SamplingParams
from reviewgen.compiled.spelling import no_places
from reviewgen.compiled.windows import build_windows, copies
from reviewgen.errors import BundleError
from reviewgen.protocols import Stepper, SupportsSample, SupportsStep
from reviewgen.testing.models import call, some_ids, tensors

MODELS = {"rnn": Rnn, "gru": Gru, "lstm": Lstm, "nnlm": Nnlm}
PLAIN = SamplingParams(np.ones(1), 0, 1.0, 0.0, 1.0, 0, 0, 1 << 40, False, 1, 0, 11)


def make(name, seed=0, **settings):
    """Return a model with random weights; biases, too, which a fresh model lacks, and a hidden layer worth telling apart."""
    torch.manual_seed(seed)
    model = MODELS[name](MODELS[name].Config(**{"vocab_size": 11, "hidden_size": 37, **settings})).eval()
    for parameter_name, parameter in model.named_parameters():
        if "bias" in parameter_name or "ngrams" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def equals_the_plain_call(model, batch, time, stepper=None, tolerance=1e-4):
    """Read twice, state passed along, and compare logits and states with the plain call's."""
    stepper = stepper or model.stepper()
    memory, state = model.initial_state(batch), stepper.initial_state(batch)
    for seed in 0, 1:
        ids = some_ids(model, batch, time, seed)
        expected, memory = call(model, ids, memory)
        logits, state = stepper.forward(ids.numpy(), state)
        assert np.abs(logits - expected[:, -1].numpy()).max() < tolerance
        for found, wanted in zip(tensors(state), tensors(memory), strict=True):
            assert np.abs(found - wanted.numpy()).max() < tolerance


def sample(stepper, params=PLAIN, rows=3, numbers=64, guard=None, looks_back=0, seed=0):
    """Return the tokens of some rows after a beginning each, and the numbers that they used up."""
    random = np.random.default_rng(seed)
    texts = random.integers(2, 11, (rows, max(1, looks_back)))
    _, state = stepper.forward(texts, stepper.initial_state(rows))
    uniform = random.random((rows, numbers))
    constraints = guard and Constraints(*guard, None, no_places(rows))
    tokens, used, _ = stepper.sample(state, uniform, params, texts[:, :looks_back], np.zeros(rows, np.int64), constraints)
    return tokens, used


CELLS = [
    (name, layer, activation)
    for name, layer, activation in itertools.product(("rnn", "gru", "lstm"), ("fused", "compiled", "reference"), ("tanh", "relu"))
    if name == "rnn" or layer != "fused" or activation == "tanh"
]
OUTPUTS = {
    "untied": {"embedding_size": 7},
    "tied": {"embedding_size": 37, "tied": True},
    "projected": {"embedding_size": 7, "tied": True, "vocab_size": 300},
    "folded": {"embedding_size": 19, "tied": True},
}


@pytest.mark.parametrize(("name", "layer", "activation"), CELLS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_recurrent_stepper_equals_the_cells_of_torch(name, layer, activation, output, layers):
    model = make(name, layer=layer, activation=activation, layers=layers, **OUTPUTS[output])
    equals_the_plain_call(model, batch=3, time=4)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
class TestRecurrent:
    @pytest.mark.parametrize("size", [1, 5, 64, 100])
    def test_any_width_works(self, name, size):
        equals_the_plain_call(make(name, hidden_size=size, embedding_size=3), batch=5, time=3)

    @pytest.mark.parametrize("activation", ["tanh", "relu"])
    def test_zoneout_becomes_its_expectation(self, name, activation):
        model = make(name, zoneout=0.3, activation=activation, layers=2)
        equals_the_plain_call(model, batch=3, time=20)
        others = make(name, activation=activation, layers=2)
        ids = some_ids(model, 1, 5).numpy()
        found, other = (m.stepper().forward(ids, m.stepper().initial_state(1))[0] for m in (model, others))
        assert np.abs(found - other).max() > 1e-3

    def test_a_large_vocabulary_is_not_looked_up(self, name, monkeypatch):
        model = make(name, vocab_size=3000, layers=2)
        equals_the_plain_call(model, batch=2, time=3)
        monkeypatch.setattr(stepping, "TABLE_BYTES", 0)
        equals_the_plain_call(model, batch=2, time=3)

    def test_a_long_text_stays_equal(self, name):
        equals_the_plain_call(make(name, layers=2), batch=1, time=2000)

    def test_many_texts_are_fed_in_chunks(self, name):
        equals_the_plain_call(make(name, layers=2), batch=70, time=20)
        equals_the_plain_call(make(name, ngrams=3), batch=70, time=20)

    @pytest.mark.parametrize(
        "settings", [{"ngrams": 2}, {"ngrams": 5, "ngram_buckets": 50, "layers": 2}, {"ngrams": 16, "tied": True}]
    )
    def test_ngrams_have_the_same_rows_as_in_training(self, name, settings):
        model = make(name, embedding_size=37, **settings)
        equals_the_plain_call(model, batch=3, time=1)
        equals_the_plain_call(model, batch=3, time=20)
        assert type(model.stepper()).expect(model.config) == {
            key: ("float32", tuple(tensor.shape)) for key, tensor in model.state_dict().items()
        }

    def test_sampled_rows_keep_their_own_ngrams(self, name):
        """Each row, read anew from its beginning, leads to the state in which sampling left it."""
        stepper, endings = make(name, ngrams=4).stepper(), PLAIN._replace(min_new_tokens=3)
        random = np.random.default_rng(0)
        begun = random.integers(2, 11, (9, 2))
        _, state = stepper.forward(begun, stepper.initial_state(9))
        uniform = random.random((9, 40))
        tokens, _, after = stepper.sample(state, uniform, endings, begun[:, :0], np.zeros(9, np.int64))
        for row in range(9):
            text = tokens[row][tokens[row] != NONE]
            fed = text[:-1] if text[-1] == endings.eos_id else text
            _, expected = stepper.forward(np.array([[*begun[row], *fed]]), stepper.initial_state(1))
            for found, wanted in zip(after, expected, strict=True):
                assert np.abs(found[row] - wanted[0]).max() < 1e-5

    def test_the_tensors_are_those_expected(self, name):
        for layer, output in itertools.product(("fused", "reference"), OUTPUTS.values()):
            model = make(name, layer=layer, layers=2, **output)
            found = {key: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for key, t in model.state_dict().items()}
            assert type(model.stepper()).expect(model.config) == found

    @pytest.mark.parametrize(("bits", "tolerance"), [(16, 1e-3), (8, 0.3)])
    def test_fewer_bits_give_nearly_the_same_logits(self, name, bits, tolerance):
        model = make(name, layers=2)
        equals_the_plain_call(model, batch=2, time=30, stepper=model.stepper(weight_bits=bits), tolerance=tolerance)


class TestNnlm:
    @pytest.mark.parametrize("activation", ["tanh", "relu"])
    @pytest.mark.parametrize("order", [2, 3, 12])
    @pytest.mark.parametrize("time", [1, 2, 20])
    def test_it_equals_the_plain_call(self, activation, order, time):
        equals_the_plain_call(make("nnlm", activation=activation, order=order, embedding_size=5), batch=5, time=time)

    def test_a_large_vocabulary_is_not_looked_up(self, monkeypatch):
        model = make("nnlm", vocab_size=3000)
        equals_the_plain_call(model, batch=2, time=3)
        monkeypatch.setattr("reviewgen_nnlm.stepping.TABLE_BYTES", 0)
        equals_the_plain_call(model, batch=2, time=3)

    def test_the_tensors_are_those_expected(self):
        found = {key: ("float32", tuple(tensor.shape)) for key, tensor in make("nnlm").state_dict().items()}
        assert NnlmStepper.expect(make("nnlm").config) == found


@pytest.mark.parametrize("name", MODELS)
class TestEvery:
    def test_it_keeps_the_contract(self, name):
        model = make(name)
        assert isinstance(model, SupportsStep)
        assert isinstance(model.stepper(), Stepper)
        assert isinstance(model.stepper(), SupportsSample)

    def test_it_does_not_follow_the_model(self, name):
        model = make(name)
        stepper, ids = model.stepper(), np.array([[3, 4]])
        before, _ = stepper.forward(ids, stepper.initial_state(1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        assert np.array_equal(stepper.forward(ids, stepper.initial_state(1))[0], before)

    @pytest.mark.parametrize("damage", [np.nan, np.inf])
    def test_damaged_tensors_are_refused(self, name, damage):
        model = make(name)
        arrays = {key: tensor.numpy().copy() for key, tensor in model.state_dict().items()}
        arrays["output.bias"][1] = damage
        with pytest.raises(BundleError, match=r"output\.bias"):
            type(model.stepper())(model.config, arrays)

    @pytest.mark.parametrize("rows", [2, 4, 7])
    def test_a_row_is_the_same_to_the_bit_among_others(self, name, rows):
        model = make(name)
        stepper, ids = model.stepper(), some_ids(model, rows, 30).numpy()
        logits, state = stepper.forward(ids, stepper.initial_state(rows))
        uniform, numbers = np.random.default_rng(0).random((rows, 200)), np.zeros(rows, np.int64)
        together, used, _ = stepper.sample(state, uniform, PLAIN, ids[:, :0], numbers)
        for row in range(rows):
            one = slice(row, row + 1)
            logits_alone, state_alone = stepper.forward(ids[one], stepper.initial_state(1))
            assert np.array_equal(logits_alone, logits[one])
            tokens, used_alone, _ = stepper.sample(state_alone, uniform[one], PLAIN, ids[one, :0], numbers[one])
            assert np.array_equal(tokens, together[one])
            assert used_alone == used[row]

    def test_numbers_left_over_are_given_again(self, name):
        stepper = make(name).stepper()
        endless = PLAIN._replace(min_new_tokens=10**6)
        state, uniform, none = stepper.initial_state(1), np.random.default_rng(0).random((1, 100)), np.zeros((1, 0), np.int64)
        whole, used, after = stepper.sample(state, uniform, endless, none, np.zeros(1, np.int64))
        assert used == 100
        place, pieces = 0, []
        while place < 100:
            tokens, taken, state = stepper.sample(state, uniform[:, place : place + 32], endless, none, np.array([place]))
            pieces.append(tokens[tokens != NONE])
            place += taken[0]
        assert np.array_equal(np.concatenate(pieces), whole[whole != NONE])
        for found, wanted in zip(tensors(state), tensors(after), strict=True):
            assert np.array_equal(found, wanted)

    def test_a_row_ends_with_the_end_token(self, name):
        tokens, used = sample(make(name).stepper(), rows=50, numbers=100)
        lengths = (tokens != NONE).sum(axis=1)
        assert np.array_equal(lengths, used)
        assert len(set(lengths)) > 5
        for row, length in zip(tokens, lengths, strict=True):
            assert (row[:length] >= 1).all()
            assert length == 100 or row[length - 1] == 1

    def test_without_random_numbers_there_is_no_token(self, name):
        tokens, used = sample(make(name).stepper(), numbers=0)
        assert (tokens == NONE).all()
        assert not used.any()

    @pytest.mark.parametrize("rows", [1, 9])
    def test_sampling_params_are_applied(self, name, rows):
        params = PLAIN._replace(no_repeat_ngram_size=2, min_new_tokens=40, temperatures=np.array([0.5, 3.0]), top_k=9)
        for row in sample(make(name).stepper(), params, rows, numbers=40)[0]:
            pairs = list(itertools.pairwise(row[row >= 0]))
            assert len(set(pairs)) == len(pairs) == 39

    @pytest.mark.parametrize("rows", [1, 9])
    def test_the_copy_guard_is_applied(self, name, rows):
        corpus = np.random.default_rng(1).integers(2, 11, 3000)
        windows = build_windows(corpus, (0, 1), length=3, bits_per_window=16)
        stepper, endless = make(name).stepper(), PLAIN._replace(min_new_tokens=1000)
        tokens, used = sample(stepper, endless, rows, numbers=100, guard=(windows, 2), looks_back=4)
        copied, _ = sample(stepper, endless, rows, numbers=100, looks_back=4)
        assert np.array_equal(used, (tokens != NONE).sum(axis=1))
        assert any(copies(windows, row, end, 2) for row in copied for end in range(3, 99))
        for row in tokens:
            text = row[row >= 0]
            assert not any(copies(windows, text, end, 2) for end in range(len(text)))

    def test_a_row_without_a_possible_token_ends(self, name):
        windows = build_windows(np.repeat(np.arange(2, 11), 2), (0, 1), length=1, bits_per_window=64)
        endless = PLAIN._replace(min_new_tokens=1000)
        tokens, used = sample(make(name).stepper(), endless, guard=(windows, 1), looks_back=1)
        assert (tokens[:, 0] == DEAD_END).all()
        assert (used == 1).all()
        tokens, _ = sample(make(name).stepper(), endless._replace(vocab_size=2))
        assert (tokens[:, 0] == NOTHING_LEFT).all()


def test_steppers_load_no_torch():
    code = "import sys, reviewgen_recurrent.stepping, reviewgen_nnlm.stepping; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
