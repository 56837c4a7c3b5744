"""The laws of the model contract in ``reviewgen.protocols``, one function each.

A law is called with ``make``, which returns a new model in evaluation mode. Its weights may be
random, but a model trained by counting must be trained. Below, a law is written as a function of
such a model. B batch, T time (tokens), V vocabulary.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from reviewgen.config.settings import from_dict, vocabulary_settings
from reviewgen.errors import NotADistribution
from reviewgen.generation.states import map_state
from reviewgen.protocols import checks
from reviewgen.protocols.checks import (
    ROWS,
    STEPS,
    assert_close,
    asserting,
    call,
    call_twice,
    influence,
    lettered,
    logits_of,
    seeded,
    some_ids,
)
from reviewgen.protocols.model import CountTrained, LanguageModel, SupportsScore, flatten_state
from reviewgen.registry.plugins import find_model
from reviewgen.testing.installed import assert_config, assert_members
from reviewgen.testing.laws import Laws, assert_same, assert_unchanged, json_round_trip

# for the law ``long_text``
LONG = 2_000  # number of tokens of the text
CHUNK = 512  # max number of its tokens in one call
# for the law ``learns``
LANES = 4  # number of rows of the batch that it trains on
LENGTH = 12  # number of tokens of each row
TRAINING_STEPS = 200  # number of training steps
LEARNING_RATES = (0.01, 0.001, 0.1)  # a model must learn with one of them
SHARE = 0.8  # the loss must fall below this share of the entropy of single tokens
# Logits in bfloat16, which rounds to 8 bits in each layer, may differ by this share of the largest
# logit.
BF16_TOLERANCE = 0.1

MODEL_LAWS = Laws(lambda make: [(make(),)])
law = MODEL_LAWS.law


def make_model(name: str, vocab_size: int = 11, seed: int = 0, **settings: Any) -> LanguageModel:
    """Create an installed model by name, ready for the laws; the global random state is not
    changed.

    A config with ``bos_id`` and ``eos_id`` gets 0 and 1.

    Raises:
        UnknownPlugin: No installed plugin has that name.
        ConfigError: A setting is unknown or out of range.
    """
    cls, _ = find_model(name)
    with seeded(seed):
        vocabulary = vocabulary_settings(
            cls.Config, vocab_size, bos_id=0, eos_id=min(1, vocab_size - 1)
        )
        model = cls(from_dict(cls.Config, {**vocabulary, **settings}))
    if isinstance(model, CountTrained):
        train_by_counting(model, vocab_size, seed)
    ready: LanguageModel = _evaluating(model)
    return ready


def train_by_counting(
    model: CountTrained, vocab_size: int, seed: int = 0, texts: int = 20
) -> Mapping[str, Any]:
    """Train a count model on a few random texts (0 is bos, 1 is eos), and return the report of
    ``finish``.
    """
    for text in texts_to_count(vocab_size, seed, texts):
        model.observe(text)
    return model.finish()


def texts_to_count(
    vocab_size: int, seed: int = 0, texts: int = 20
) -> Iterator[Int64[np.ndarray, " T"]]:
    """Yield random texts of up to 29 tokens between bos, 0, and eos, 1."""
    rng = np.random.default_rng(seed)
    for _ in range(texts):
        # no bos and eos inside a text, if there are other ids
        tokens = rng.integers(min(2, vocab_size - 1), vocab_size, size=rng.integers(1, 30))
        yield np.concatenate(([0], tokens, [1])).astype(np.int64)


@law()
def protocol(model: Any) -> None:
    """The model has the attributes and methods of LanguageModel."""
    assert_members(model, LanguageModel)


@law()
def explicit(model: Any) -> None:
    """The constructor must take one argument, the config, without a default, since only the config
    is saved.
    """
    signature = inspect.signature(type(model))
    defaults = [parameter.default for parameter in signature.parameters.values()]
    assert defaults == [inspect.Parameter.empty], f"It takes {signature}."
    assert isinstance(model.config, type(model).Config), (
        f"The attribute config is {model.config!r:.80}."
    )


@law()
def config(model: Any) -> None:
    """The config is a frozen, keyword-only dataclass of JSON values; vocab_size is first, and all
    other fields have defaults.
    """
    assert_config(type(model).Config, needs_vocab_size=True)
    assert json_round_trip(model.config) == model.config, "JSON changes it."


law()(checks.shape)


@law()
def state(model: Any) -> None:
    """The state, from ``initial_state`` and from a call, has only tensors and tuples, and B first
    in each.
    """
    for batch in 1, ROWS:
        sizes = {"B": batch, "T": STEPS, "V": model.config.vocab_size}
        after = call(model, some_ids(model, batch, STEPS))[1]
        for tensor in flatten_state((model.initial_state(batch), after)):
            assert isinstance(tensor, Tensor), f"It has a {type(tensor).__name__}."
            assert tensor.shape[:1] == (batch,), (
                f"A tensor is {lettered(tuple(tensor.shape), sizes)}; B must be {batch}."
            )


@law()
def same_again(model: Any) -> None:
    """The same call gives the same logits and state: evaluation must be deterministic, and calls
    share no hidden state.
    """
    ids = some_ids(model, ROWS, STEPS)
    assert_same(call(model, ids), call(model, ids))


law()(checks.causal)


@law()
def chunks(model: Any) -> None:
    """A text fed in chunks gives the same logits as the whole text in one call: the state must
    carry all context.
    """
    ids = some_ids(model, ROWS, STEPS)
    whole, _ = call(model, ids)
    for sizes in [1] * STEPS, [1, 4, 7], [5, 7]:
        results = []
        state = model.initial_state(ROWS)
        for chunk in torch.split(ids, sizes, dim=1):
            logits, state = call(model, chunk, state)
            results.append(logits)
        assert_close(
            torch.cat(results, dim=1),
            whole,
            f"In chunks of {sizes} tokens, logits (B, T, V) differ.",
        )


law()(checks.rows)


@law()
def no_mutation(model: Any) -> None:
    """A call modifies neither the ids nor the state that it is passed."""
    ids = some_ids(model, ROWS, STEPS)
    for passed in model.initial_state(ROWS), call(model, ids)[1]:
        with assert_unchanged(ids, passed):
            call(model, ids, passed)


@law()
def no_trace(model: Any) -> None:
    """Evaluation leaves no trace: other texts, read before or in the same batch, do not change the
    logits and scores of a text. Only the state may adapt to it.
    """
    has_scores = gives_scores(model)

    def read(ids: Tensor) -> dict[str, Tensor]:
        """Return the logits of the ids fed twice in a row, and the scores of random targets."""
        results = {"logits": call_twice(model, ids)}
        if has_scores:
            targets = some_ids(model, 1, STEPS, seed=2).expand_as(ids)
            state = model.initial_state(len(ids))
            with torch.no_grad():
                first, state = model.score(ids, targets, state)
                results["scores"] = torch.cat((first, model.score(ids, targets, state)[0]), dim=1)
        return results

    assert_no_trace(model, read)


@law()
def normal(model: Any) -> None:
    """Logits are finite; a model trained by counting may return -inf for probability zero, but not
    NaN or +inf.
    """
    logits = logits_of(model, some_ids(model, ROWS, STEPS))
    _assert_finite(model, logits)
    if not isinstance(model, CountTrained):
        assert logits.log_softmax(-1).isfinite().all(), (
            "Their log-softmax is not finite; they are too far apart."
        )


@law()
def round_trip(model: Any) -> None:
    """A saved and loaded model gives exactly the same logits: state_dict and config must contain
    all that they depend on.
    """
    # ``save`` and ``load`` are those of safetensors
    twin = _load(type(model)(json_round_trip(model.config)), load(save(copies(model))))
    ids = some_ids(model, ROWS, STEPS)
    assert_close(logits_of(twin, ids), logits_of(model, ids), tolerance=0)


@law()
def strict(model: Any) -> None:
    """``load_state_dict`` raises for an extra tensor, a missing one and one of another shape."""
    tensors = copies(model)
    invalid = {"an extra tensor": {**tensors, "unknown": torch.zeros(1)}}
    for name, tensor in tensors.items():
        others = {key: value for key, value in tensors.items() if key != name}
        invalid[f"tensors without {name}"] = others
        invalid[f"{name} with an extra dimension"] = {**others, name: tensor[None]}
    for what, wrong in invalid.items():
        with asserting(f"It accepts {what}:"):
            np.testing.assert_raises(Exception, type(model)(model.config).load_state_dict, wrong)


@law(nn.Module)
def meta(model: Any) -> None:
    """A module can be created under torch.device('meta'), where tensors take no memory, with the
    same names and shapes.
    """
    with torch.device("meta"):
        on_meta = type(model)(model.config)
    # The shapes of a count model depend on the texts that it has counted, here none.
    if not isinstance(model, CountTrained):
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        actual = {name: tensor.shape for name, tensor in on_meta.state_dict().items()}
        assert actual == expected, f"There it has {actual}, not {expected}."


@law()
def fixed_state(model: Any) -> None:
    """Shapes and dtypes of the state depend on the batch size only, since the states of texts of
    different lengths are stacked. A model that reads earlier tokens keeps a fixed number of them.
    """

    def read(batch: int, time: int) -> Any:
        """Return the state after ``time`` tokens that follow five others."""
        _, before = call(model, some_ids(model, batch, 5))
        return call(model, some_ids(model, batch, time), before)[1]

    assert_fixed_state(model.initial_state, read)


@law()
def long_text(model: Any) -> None:
    """There is no limit on the length of a text: 2,000 tokens in chunks of 512 give finite
    logits.
    """
    ids = some_ids(model, 1, LONG)
    state = model.initial_state(1)
    for start in range(0, LONG, CHUNK):
        with asserting(f"At tokens {start} to {min(start + CHUNK, LONG) - 1}:"):
            logits, state = call(model, ids[:, start : start + CHUNK], state)
            _assert_finite(model, logits)


@law()
def aligned(model: Any) -> None:
    """``logits[b, t]`` scores the token after ``ids[b, t]``: if later logits depend on ``ids[b,
    t]``, the logits at t must, too.
    """
    # whether the token at t (row) changes the logits at each position (column), (T, T)
    changes = influence(model, logits_of) > 1e-6
    # either a token changes the logits at its own position, or no token changes later logits
    assert changes.diagonal().any() or not changes.triu(1).any(), "The logits are shifted."


@law()
def deep_copy(model: Any) -> None:
    """``copy.deepcopy`` gives a model with equal logits that computes with its own tensors, which
    weight averaging changes.
    """
    ids = some_ids(model, ROWS, STEPS)
    twin = copy.deepcopy(model)
    expected = logits_of(model, ids)
    assert_close(logits_of(twin, ids), expected, "The copy gives different logits.")
    if is_trained_by_gradient(model):
        change_weights(twin)
        # the model must not have the changed weights, and the copy must compute with them
        sentence = "Changing the weights of the copy changes the model that was copied."
        assert_close(logits_of(model, ids), expected, sentence)
        loaded = _load(type(model)(model.config), copies(twin))
        sentence = "The copy computes with weights of the model that was copied."
        assert_close(logits_of(twin, ids), logits_of(loaded, ids), sentence)


def gives_scores(model: Any) -> bool:
    """Return whether a model has ``score``, and does not raise NotADistribution there."""
    ids = some_ids(model, 1, 1)
    state = model.initial_state(1)
    if not isinstance(model, SupportsScore):
        return False
    try:
        with torch.no_grad():
            model.score(ids, ids, state)
    except NotADistribution:
        return False
    return True


def is_trained_by_gradient(model: Any) -> bool:
    """Return whether a model has parameters to train, and is not trained by counting."""
    is_module = isinstance(model, nn.Module) and not isinstance(model, CountTrained)
    return is_module and any(parameter.requires_grad for parameter in model.parameters())


@law(is_trained_by_gradient)
def causal_in_training(model: Any) -> None:
    """Causal in training mode too: changing ``ids[:, t]`` does not change the logits before
    position t.
    """

    def seeded_call(model: Any, ids: Tensor) -> Tensor:
        """Return the logits in training mode, with the same random numbers in each call."""
        with seeded():
            return logits_of(model.train(), ids)

    ids = some_ids(model, ROWS, STEPS)
    # Only a model that draws its random numbers from torch gives the same logits twice.
    if torch.equal(seeded_call(model, ids), seeded_call(model, ids)):
        checks.causal(model, seeded_call)


@law(is_trained_by_gradient)
def carried(model: Any) -> None:
    """Two chunks can be trained on, with a weight update between them; the state is passed on
    detached, unmodified.
    """
    state = model.train().initial_state(ROWS)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for chunk in range(2):
        with assert_unchanged(state):
            after = _train_chunk(model, chunk, state)
        optimizer.step()
        optimizer.zero_grad()
        state = map_state(Tensor.detach, after)


@law(is_trained_by_gradient)
def gradients(model: Any) -> None:
    """Every parameter gets a finite gradient from the loss of two chunks; one that is frozen has
    ``requires_grad=False``.
    """
    with seeded():
        results = compute_in_chunks(model.train())
    missing = ", ".join(name for name, tensor in results.items() if tensor is None)
    assert not missing, f"There is no {missing}: the parameter is unused or detached."
    assert_all_finite({name: tensor for name, tensor in results.items() if tensor is not None})


@law(is_trained_by_gradient)
def autocast(model: Any) -> None:
    """Under autocast to bfloat16, loss and gradients of two chunks are finite, and logits are close
    to those in 32 bits.
    """
    state = model.train().initial_state(ROWS)
    for chunk in range(2):
        after = _train_chunk(model, chunk, state, is_rounded=True)
        state = map_state(Tensor.detach, after)
    ids = some_ids(model.eval(), ROWS, STEPS)
    exact = logits_of(model, ids)
    with torch.autocast("cpu", torch.bfloat16):
        difference = (logits_of(model, ids).float() - exact).abs().max()
    limit = BF16_TOLERANCE * max(1.0, exact.abs().max().item())
    advice = "Compute sums over many tokens, exponentials and logarithms in 32 bits."
    assert difference <= limit, (
        f"The logits differ by {difference:.3g}; at most {limit:.3g} is due to rounding. {advice}"
    )


@law(is_trained_by_gradient)
def learns(model: Any) -> None:
    """Within 200 steps on a text in which each token decides the next, the loss falls clearly below
    the unigram's.
    """
    ids = _repetitions(model.config.vocab_size)  # (B, T+1)
    # the entropy of its tokens, which are equally frequent, times SHARE
    limit = SHARE * math.log(len(set(ids.flatten().tolist())))
    if limit == 0:  # a vocabulary of one token leaves nothing to learn
        return
    losses = []
    for learning_rate in LEARNING_RATES:
        with seeded():
            model = type(model)(model.config)
            for loss in _training_losses(model, ids, learning_rate):
                losses.append(loss)
                if loss < limit:
                    return
        if not influence(model.eval(), logits_of).any():
            return  # a model of token frequencies, without context, has nothing to learn here
    logits = logits_of(model, ids)  # of the model that was trained last, for the message
    raise AssertionError(
        f"The loss is {min(losses):.3g} nats per token, and must fall below {limit:.3g}. The logits"
        f" lie between {logits.min():.3g} and {logits.max():.3g}: return scores before any softmax,"
        " sigmoid or tanh, and detach nothing."
    )


def _training_losses(model: Any, ids: Tensor, learning_rate: float) -> Iterator[float]:
    """Train a model on ids (B, T+1), and yield its loss in evaluation mode after every 25 steps."""
    from reviewgen.config.training import TrainingConfig
    from reviewgen.training.optimizers import make_optimizer

    inputs = ids[:, :-1]
    targets = ids[:, 1:]
    config = TrainingConfig(learning_rate=learning_rate, weight_decay=0.0)
    optimizer = make_optimizer(model.train(), config)
    for step in range(1, TRAINING_STEPS + 1):
        model.train().zero_grad()
        logits, _ = model(inputs, model.initial_state(LANES))
        torch.autograd.backward(_loss(logits, targets))
        optimizer.step()
        if step % 25 == 0:
            yield _loss(logits_of(model.eval(), inputs), targets).item()


def assert_no_trace(model: Any, read: Callable[[Tensor], Mapping[str, Any]]) -> None:
    """Raise AssertionError unless a text gets the same results whatever was read before, and so do
    two rows of the same text.

    Args:
        model: The model, for its vocabulary.
        read: Reads ids (B, T) from the initial state, and returns results with B rows, by name.
    """
    text = some_ids(model, 1, STEPS)
    first = read(text)
    # what is read in between, in words for the message and as ids
    for between, ids in ("it", text), ("other texts", some_ids(model, ROWS, STEPS, seed=1)):
        read(ids)
        for what, values in read(text).items():
            sentence = f"The {what} of a text are different once {between} has been read."
            assert_close(values, first[what], sentence, tolerance=0)
    for what, values in read(text.repeat(2, 1)).items():
        sentence = f"A text that occurs twice in a batch gets different {what} the second time."
        assert_close(values[1], values[0], sentence)


def assert_fixed_state(
    initial_state: Callable[[int], Any], read: Callable[[int, int], Any]
) -> None:
    """Raise AssertionError unless shapes and dtypes of a state depend on the batch size only.

    Args:
        initial_state: Returns the state before the first token, for a batch size.
        read: Returns the state after some tokens, for a batch size and a number of tokens.
    """
    # shape and dtype of each array for a batch of one row
    of_one_row = [(tuple(array.shape), array.dtype) for array in flatten_state(initial_state(1))]
    for batch in 1, ROWS:
        expected = [((batch, *shape[1:]), dtype) for shape, dtype in of_one_row]
        for time in 0, 1, 5, 40:
            state = read(batch, time) if time else initial_state(batch)
            actual = [(tuple(array.shape), array.dtype) for array in flatten_state(state)]
            assert actual == expected, (
                f"After {time} tokens it has {actual}; it must have {expected}."
            )


def change_weights(model: nn.Module) -> None:
    """Change all parameters of a model."""
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(1.5).add_(0.01)


def copies(model: Any) -> dict[str, Tensor]:
    """Return copies of the tensors of a model, by name. They are contiguous, as safetensors needs
    them.
    """
    return {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _load(model: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return a new model with these tensors, in evaluation mode."""
    model.load_state_dict(tensors)
    return _evaluating(model)


def _evaluating(model: Any) -> Any:
    """Put the model into evaluation mode, without dropout, if it is a module, and return it."""
    return model.eval() if isinstance(model, nn.Module) else model


def compute_in_chunks(model: Any) -> dict[str, Tensor | None]:
    """Feed a batch of texts in two chunks. Return, by name, the logits, each tensor of the state
    and, for a module, the gradient of each parameter (None if it gets none). Gradients flow from
    the second chunk through the state into the first one.
    """
    ids = some_ids(model, ROWS, STEPS)
    targets = some_ids(model, ROWS, STEPS, seed=1)
    first, state = model(ids[:, :5], model.initial_state(ROWS))
    second, state = model(ids[:, 5:], state)
    logits = torch.cat((first, second), dim=1)  # (B, T, V)
    results: dict[str, Tensor | None] = {"logits": logits.detach()}
    for index, tensor in enumerate(flatten_state(state)):
        results[f"state ({index})"] = tensor.detach()
    if isinstance(model, nn.Module):
        weights = {
            name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad
        }
        total = _loss(logits, targets) * targets.numel()
        grads = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        for name, grad in zip(weights, grads, strict=True):
            results[f"gradient of {name}"] = None if grad is None else grad.to_dense()
    return results


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of logits (B, T, V), in nats per token."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _train_chunk(model: Any, chunk: int, state: Any, is_rounded: bool = False) -> Any:
    """Compute the loss of a chunk and the gradients, check that all are finite, and return the
    state after the chunk. ``chunk`` is the number of the chunk, from 0. With ``is_rounded``, the
    model is called under autocast to bfloat16.
    """
    ids = some_ids(model, ROWS, STEPS, seed=chunk)
    targets = some_ids(model, ROWS, STEPS, seed=chunk + 10)
    with seeded(), asserting(f"In chunk {chunk + 1}:"):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            logits, after = model(ids, state)
        loss = _loss(logits, targets)
        torch.autograd.backward(loss)
        results = {"loss": loss}
        for name, weight in model.named_parameters():
            if weight.grad is not None:
                results[f"gradient of {name}"] = weight.grad.to_dense()
        assert_all_finite(results)
    return after


def assert_all_finite(results: Mapping[str, Tensor]) -> None:
    """Raise AssertionError with the names of the tensors that hold NaN or infinity."""
    wrong = ", ".join(name for name, tensor in results.items() if not tensor.isfinite().all())
    assert not wrong, f"These are NaN or infinite: {wrong}."


def _assert_finite(model: Any, logits: Tensor) -> None:
    """Raise AssertionError unless logits are finite, or -inf for a count model."""
    is_valid = logits.isfinite()
    if isinstance(model, CountTrained):
        is_valid = logits < torch.inf  # True for -inf, False for NaN
    wrong = logits[~is_valid]
    assert not len(wrong), (
        f"{len(wrong)} of {logits.numel()} logits are not finite, such as {wrong[0].item()}."
    )


def _repetitions(vocab_size: int) -> Tensor:
    """Return ids (LANES, LENGTH + 1). Each row repeats one token, which the simplest model of a
    context can learn.

    There are two to four different tokens (one if V is 1). With more of them, the loss that a model
    must reach is higher. It must stay clearly below the loss of a faulty model that returns
    probabilities in place of logits, which is at least ln(1 + (V - 1) / e): low if V is small.
    """
    faulty_loss = math.log(1 + (vocab_size - 1) / math.e)
    different = min(2, vocab_size)  # number of different tokens
    while different < min(4, vocab_size) and SHARE * math.log(different + 1) < 0.8 * faulty_loss:
        different += 1
    token_of_row = vocab_size - 1 - torch.arange(LANES) % different  # (B,), the last ids
    return token_of_row[:, None].repeat(1, LENGTH + 1)
