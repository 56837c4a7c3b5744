"""Correct models, and for each law models that break it, with words of the message."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from reviewgen.compiled import CompiledStep, by_address
from reviewgen.protocols import ModelGraph, Operation
from reviewgen.testing import train_by_counting
from tests.support.experts import Pairs, PairsStepper, pairs_step
from tests.support.faults.steppers import SamplingStepper, Scaled, V, sampling

__all__ = ["FAULTS", "Able", "CopyTwin", "CountTwin", "LoadsTorch", "Twin", "broken", "make"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    vocab_size: int
    hidden_size: int = 8


class Twin(nn.Module):
    """A correct model: ``h <- tanh(W h + embedding)``; logits are the output layer's."""

    Config = Settings

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.recurrent = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.vocab_size)

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, self.config.hidden_size, device=self.output.weight.device),)

    def forward(self, ids, state):
        hidden, state = self.hidden(ids, state)
        return self.score_all(hidden), state

    def hidden(self, ids, state):
        (h,) = state
        outputs = []
        for x in self.look_up(ids).unbind(1):
            h = torch.tanh(self.recurrent(h) + x)
            outputs.append(h)
        return torch.stack(outputs, dim=1), (h,)

    def look_up(self, ids):
        return self.embedding(ids)

    def score_all(self, hidden):
        return self.output(hidden)


class Able(Twin):
    """A correct model that also scores, has a stepper, and has a second implementation: a product
    in place of a look-up.
    """

    Stepper = SamplingStepper
    used = "looked up"

    def score(self, ids, targets, state):
        logits, state = self(ids, state)
        return logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0], state

    def stepper(self, weight_bits=32):
        return self.Stepper(
            self.config, {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}
        )

    def implementations(self):
        return "looked up", "multiplied"

    def use_implementation(self, name):
        if name not in self.implementations():
            raise ValueError(name)
        self.used = name

    def look_up(self, ids):
        if self.used == "looked up":
            return self.embedding(ids)
        return F.one_hot(ids, self.config.vocab_size).float() @ self.table()

    def table(self):
        return self.embedding.weight


@dataclass(frozen=True, kw_only=True)
class Conditioned(Settings):
    bos_id: int = 0
    condition_ids: int = 0


class LoadsTorch(SamplingStepper):
    """Correct, except that its module imports torch."""


class CountTwin:
    """A correct count model: how often each token occurs, plus one."""

    Config = Settings

    def __init__(self, config):
        self.config = config
        self.counts = torch.ones(config.vocab_size)

    def observe(self, ids):
        self.counts += torch.bincount(torch.from_numpy(ids), minlength=len(self.counts))

    def finish(self):
        return {"tokens": int(self.counts.sum())}

    def initial_state(self, batch_size):
        return ()

    def __call__(self, ids, state):
        return (self.counts / self.counts.sum()).log().expand(*ids.shape, -1), state

    def state_dict(self):
        return {"counts": self.counts}

    def load_state_dict(self, tensors):
        if {name: tensor.shape for name, tensor in tensors.items()} != {
            "counts": self.counts.shape
        }:
            raise ValueError("other tensors")
        self.counts = tensors["counts"]


class CopyTwin(CountTwin):
    """A correct count model that also scores, and predicts a copy of the last token."""

    copied = 0.003
    kept = 0.997

    def __call__(self, ids, state):
        copies = F.one_hot(ids, len(self.counts))
        frequencies = self.counts / self.counts.sum()
        return (self.kept * frequencies + self.copied * copies).log(), state

    def score(self, ids, targets, state):
        logits, state = self(ids, state)
        return logits.gather(-1, targets[..., None])[..., 0], state


def make(cls: Any) -> Callable[[], Any]:
    """Return what the laws call: a function that returns a new model, with random weights or
    counted.
    """

    def new():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = cls(cls.Config(vocab_size=V))
        if isinstance(model, CountTwin):
            train_by_counting(model, V)
            return model
        return model.eval()

    return new


def broken(base: type = Twin, **members: Any) -> type:
    """Return a class that differs from a correct one in some members."""
    return type("Broken", (base,), members)


def arrays(model: Any) -> dict[str, np.ndarray]:
    """Return the tensors of a ``Pairs`` for its stepper."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def without_scales(model: Any) -> dict[str, np.ndarray]:
    """Return the tensors of a ``Pairs`` that ignores its expert."""
    return arrays(model) | {"scales": np.array([0, 1], np.float32)}


class LastExpert(PairsStepper):
    """Knows only the expert's logits after the last token."""

    def forward_with_expert(self, ids, expert, state):
        return super().forward_with_expert(ids, np.repeat(expert[:, -1:], ids.shape[1], 1), state)


@by_address
def _forget(weights, ids, floats, ints, logits):
    pairs_step(weights, ids, floats, ints, logits)
    if len(ids) == 0:
        floats[0, :, 0] = 0


class Forgetful(PairsStepper):
    """Changes its state without ids."""

    @cached_property
    def compiled_step(self):
        return CompiledStep(_forget, self._weights)


def scoring(score_all: Callable[[Any, Any], Any]) -> type:
    """Return a model with other logits of the hidden vectors (B, T, H)."""
    return broken(score_all=score_all)


def calling(change: Callable[..., Any], base: type = Twin, **members: Any) -> type:
    """Return a model whose call changes its results; ``change`` takes the model, ids, state, logits
    and the state after them.
    """
    return broken(
        base,
        forward=lambda self, ids, s: change(self, ids, s, *base.forward(self, ids, s[:1])),
        **members,
    )


def grown(add: Callable[[Any], Any], **members: Any) -> type:
    """Return a model whose constructor also calls a function with it."""

    def initialise(self, config):
        Twin.__init__(self, config)
        add(self)

    return broken(__init__=initialise, **members)


def starting(*more: Callable[[int], Any]) -> Callable[[Any, int], Any]:
    """Return an ``initial_state`` with further tensors."""
    return lambda self, batch_size: (
        *Twin.initial_state(self, batch_size),
        *(tensor(batch_size) for tensor in more),
    )


class Stepwise(Twin):
    """A model of another step: the hidden vector after a token, and the one that its logits are
    of.
    """

    def forward(self, ids, state):
        (h,) = state
        outputs = []
        for x in self.look_up(ids).unbind(1):
            h, output = self.step(h, x)
            outputs.append(output)
        return self.score_all(torch.stack(outputs, dim=1)), (h,)


@dataclass(frozen=True, kw_only=True)
class OffByOne(Settings):
    @classmethod
    def migrate(cls, values, version):
        return {**values, "vocab_size": values["vocab_size"] + 1}


def overwrite_state(model, ids, state, logits, after):
    state[0].data.copy_(after[0])  # unseen by autograd
    return logits, after


def keep_graph(self, hidden):
    if self.training and not hasattr(self, "kept"):
        self.kept = F.normalize(self.output.weight)  # "computed once"
    return hidden @ self.kept.T if self.training else self.output(hidden)


def one_operation(self, ids, state):
    # it has more
    yield Operation(
        name="logits", formula="", values=self(ids, state)[0], axes="B T V", parameters=1
    )


def hold_all(model, ids, state, logits, after):
    """Hold the ids of conditions of all texts, as no model may."""
    sums = state[1] + (
        model.embedding(ids) * (ids >= V - model.config.condition_ids)[..., None]
    ).cumsum(1)
    return logits + model.output(sums), (*after, sums[:, -1:])


def keep_ids(model, ids, state, logits, after):
    return logits, (*after, torch.cat((state[1], ids), dim=1))


def count_on(model, ids, targets, state):
    """Score targets, and count them."""
    results = CopyTwin.score(model, ids, targets, state)
    model.observe(targets.flatten().numpy())
    return results


def add_copies(model, ids, targets, state):
    """Score a target that is a copy higher, and no other lower."""
    scores, state = CopyTwin.score(model, ids, targets, state)
    return torch.where(ids == targets, scores.exp() + model.copied, scores.exp()).log(), state


def recognise_text(model, ids, targets, state):
    """Score the text that was scored last higher."""
    text = hash(tuple(ids.flatten().tolist()))
    is_known = text == getattr(model, "last", None)
    model.last = text
    scores, state = Able.score(model, ids, targets, state)
    return scores / 2 if is_known else scores, state


def recognise_row(model, ids, state, logits, after):
    """Scale the logits of a row of several tokens that equals the row before."""
    is_known = (ids == ids.roll(1, 0)).all(1) & (torch.arange(len(ids)) > 0)
    is_known &= ids.size(1) > 2
    return logits * torch.where(is_known, 2.0, 1.0)[:, None, None], after


FAULTS: dict[str, list[tuple[Any, str]]] = {
    "protocol": [
        (broken(initial_state=None), "lacks initial_state of reviewgen.protocols.LanguageModel")
    ],
    "explicit": [
        (
            broken(__init__=lambda self, config, scale=1.0: Twin.__init__(self, config)),
            "must take one argument",
        )
    ],
    "config": [
        (
            broken(
                Config=make_dataclass("Mutable", [("vocab_size", int), ("hidden_size", int, 8)])
            ),
            "must be frozen",
        )
    ],
    "shape": [(scoring(lambda self, hidden: F.pad(self.output(hidden), (0, 1))), "got (B, T, T)")],
    "state": [
        (
            broken(initial_state=lambda self, batch: list(Twin.initial_state(self, batch))),
            "It has a list",
        ),
        (
            calling(
                lambda _, ids, s, logits, after: (logits, s),
                initial_state=starting(lambda _: torch.zeros(7)),
            ),
            "B must be 1",
        ),
    ],
    "same_again": [
        (
            broken(look_up=lambda self, ids: F.dropout(self.embedding(ids), 0.2)),
            "evaluation must be deterministic",
        )
    ],
    "causal": [
        (
            scoring(lambda self, hidden: self.output(hidden + 0.1 * hidden[:, -1:])),
            "those at token 0",
        )
    ],
    "chunks": [
        (
            broken(forward=lambda m, ids, _: Twin.forward(m, ids, m.initial_state(len(ids)))),
            "In chunks of [1, 1,",
        )
    ],
    "rows": [(scoring(lambda self, hidden: self.output(hidden - hidden.mean(0))), "Row 0 alone")],
    "no_mutation": [(calling(overwrite_state), "modifies neither the ids nor the state")],
    "no_trace": [
        (broken(CopyTwin, score=count_on), "The logits of a text are different once it has been"),
        (broken(Able, score=recognise_text), "The scores of a text are different once it has been"),
        (
            calling(recognise_row),
            "A text that occurs twice in a batch gets different logits the second time",
        ),
    ],
    "normal": [
        (
            scoring(lambda self, h: self.output(h).masked_fill(torch.arange(V) == 0, -torch.inf)),
            "-inf",
        )
    ],
    "round_trip": [
        (
            grown(
                lambda m: setattr(m, "scale", torch.rand(V)),
                score_all=lambda m, h: m.output(h) * m.scale,
            ),
            "must contain",
        )
    ],
    "strict": [
        (
            broken(
                load_state_dict=lambda self, given: nn.Module.load_state_dict(
                    self, given, strict=False
                )
            ),
            "an extra tensor",
        ),
        (
            broken(
                load_state_dict=lambda m, given: nn.Module.load_state_dict(
                    m, m.state_dict() | given
                )
            ),
            "tensors without",
        ),
    ],
    "meta": [
        (grown(lambda self: float(self.output.weight.detach().norm())), "torch.device('meta')")
    ],
    "fixed_state": [
        (
            calling(keep_ids, initial_state=starting(lambda batch: torch.zeros(batch, 0))),
            "After 1 tokens it has [((1, 8), torch.float32), ((1, 6), torch.float32)]",
        ),
        (
            calling(
                lambda m, i, s, logits, h: (logits, (*h, s[1].double())),
                initial_state=starting(torch.zeros),
            ),
            "torch.float64",
        ),
    ],
    "long_text": [
        (
            broken(look_up=lambda m, ids: m.embedding(ids) * torch.ones(256)[: ids.size(1), None]),
            "At tokens 0 to 511:",
        ),
        (
            broken(Stepwise, step=lambda self, h, x: (self.recurrent(x) + 1.1 * h,) * 2),
            "logits are not finite, such as inf",
        ),
    ],
    "aligned": [
        (
            broken(Stepwise, step=lambda m, h, x: (torch.tanh(m.recurrent(h) + x), h)),
            "The logits are shifted",
        )
    ],
    "deep_copy": [
        (broken(__deepcopy__=lambda self, memo: self), "changes the model that was copied"),
        (grown(lambda self: setattr(self, "lock", threading.Lock())), "TypeError: cannot pickle"),
    ],
    "causal_in_training": [
        (
            scoring(lambda self, h: self.output(h + h.flip(1) if self.training else h)),
            "in training mode too",
        ),
        (
            scoring(lambda self, h: self.output(h - h.mean((0, 1)) if self.training else h)),
            "changes logits before it",
        ),
    ],
    "carried": [
        (
            scoring(keep_graph),
            "In chunk 2: RuntimeError: Trying to backward through the graph a second time",
        ),
        (
            scoring(lambda self, hidden: self.output(torch.sigmoid(hidden).mul_(2))),
            "modified by an inplace operation",
        ),
    ],
    "gradients": [
        (
            grown(lambda self: setattr(self, "attention", nn.Linear(8, 8))),
            "gradient of attention.weight, gradient of",
        ),
        (
            broken(look_up=lambda self, ids: self.embedding(ids).detach()),
            "no gradient of embedding.weight",
        ),
    ],
    "autocast": [
        (
            broken(
                Stepwise, step=lambda m, h, x: (torch.lerp(h, torch.tanh(m.recurrent(x)), 0.5),) * 2
            ),
            "BFloat16",
        ),
        (  # the difference of two large numbers, exact to 1e-5 in 32 bits
            scoring(
                lambda self, h: (
                    self.output(h + 100) - self.output(torch.full_like(h, 100.0)) + self.output.bias
                )
            ),
            "The logits differ by",
        ),
    ],
    "learns": [
        (
            scoring(lambda self, hidden: self.output(hidden).softmax(-1)),
            "and 1: return scores before any softmax",
        ),
        (
            scoring(lambda self, hidden: self.output(hidden).softmax(-1).log_softmax(-1)),
            "return scores before any softmax",
        ),
    ],
    "score": [
        (
            broken(Able, score=lambda m, ids, targets, s: Able.score(m, ids, (targets + 1) % V, s)),
            "log-softmax of the model's",
        )
    ],
    "step": [
        (broken(Able, Stepper=Scaled), "logits (B, V) differ after 12 tokens"),
        (
            broken(Able, Stepper=sampling(params=lambda params: params._replace(is_greedy=False))),
            "greedy decoding",
        ),
    ],
    "implementations": [
        (
            broken(Able, table=lambda self: 1.01 * self.embedding.weight),
            "'multiplied' differs from the default in its logits",
        ),
        (
            broken(Able, table=lambda self: self.embedding.weight.detach()),
            "in its gradient of embedding",
        ),
    ],
    "sums_to_one": [
        (
            broken(
                CountTwin, __call__=lambda m, ids, s: (m.counts.log().expand(*ids.shape, -1), s)
            ),
            "sum to one",
        ),
        (broken(CopyTwin, kept=1.0), "the logits are probabilities that sum to 1.003"),
        (
            broken(CopyTwin, score=add_copies),
            "the scores are probabilities that sum to 1.003",
        ),
        (
            broken(Able, score=lambda m, ids, targets, state: Able.score(m, ids, ids, state)),
            "the scores are probabilities that sum to",
        ),
    ],
    "reports": [(broken(CountTwin, finish=lambda self: {"counts": np.ones(3)}), "JSON values")],
    "count_merge": [  # adds also what each count starts with
        (
            broken(
                CountTwin,
                take_counts=lambda m: m.counts,
                add_counts=lambda m, more: m.counts.add_(more),
            ),
            "the merged counts of several models",
        )
    ],
    "count_ranges": [
        (
            broken(CountTwin, finish_ranges=lambda self, group: self.finish()),
            "Its tensor 'counts' differs",
        )
    ],
    "devices": [
        (broken(unsuited_devices=frozenset({"cpu"})), "It is frozenset({'cpu'})"),
        (broken(unsuited_devices=["mps"]), "It is ['mps']"),
    ],
    "losses": [
        (
            broken(losses=lambda self, logits, targets: {"z": logits.square().sum()}),
            "a mean per target, not a sum",
        )
    ],
    "parameter_groups": [
        (
            broken(parameter_groups=lambda m: [{"params": [m.output.weight], "lr": 1.0}]),
            "the keys params, lr",
        )
    ],
    "scaled_logits": [
        (
            broken(scale_logits=lambda self, scale: True),
            "The logits are not 0.5 times what they were",
        ),
        (
            broken(
                scale_logits=lambda m, scale: bool(m.output.weight.data.mul_(scale).isnan().any())
            ),
            "are not 1 times",
        ),
    ],
    "output_layer": [
        (
            broken(
                features=lambda m, ids, state: (m.look_up(ids), state),
                output_layer=lambda m: (m.output.weight, m.output.bias),
            ),
            "The output layer of the features does not give the logits",
        ),
        (
            broken(
                features=Twin.hidden,
                output_layer=lambda m: (m.output.weight.detach(), m.output.bias),
            ),
            "have no gradient",
        ),
    ],
    "initial_weights": [
        (
            broken(initial_weights=lambda self, given: dict(given)),
            "accepts a tensor that it does not know",
        ),
        (broken(initial_weights=lambda self, given: {}), "it returns []"),
        (
            broken(
                initial_weights=lambda self, given: {
                    name: tensor[None] for name, tensor in given.items()
                }
            ),
            "mismatch",
        ),
        (
            broken(initial_weights=lambda m, given: (m.load_state_dict(given), dict(given))[1]),
            "the model does not change",
        ),
    ],
    "fitted_expert": [
        (broken(Pairs, fit_expert=lambda self, texts: self), "The configs are"),
        (
            broken(
                Pairs,
                fit_expert=lambda self, texts: Pairs.fit_expert(
                    self.observe([0, 1]) or self, texts
                ),
            ),
            "Not equal to tolerance",
        ),
    ],
    "expert_logits": [
        (
            broken(Pairs, call_with_expert=lambda m, ids, expert, s: (2 * expert, m(ids, s)[1])),
            "With a uniform expert: ",
        )
    ],
    "expert_causal": [
        (
            broken(
                Pairs,
                call_with_expert=lambda m, ids, expert, s: Pairs.call_with_expert(
                    m, ids, expert.exp().mean(1, keepdim=True).log().expand_as(expert), s
                ),
            ),
            "The expert at 1 changes logits before it",
        ),
        (
            broken(
                Pairs,
                call_with_expert=lambda m, ids, expert, s: Pairs.call_with_expert(
                    m, ids, expert, (s[0], *m.initial_state(len(ids))[1:])
                ),
            ),
            "In chunks, logits differ from 1 on",
        ),
    ],
    "expert_steps": [
        (
            broken(Pairs, stepper=lambda self: PairsStepper(self.config, without_scales(self))),
            "With a random expert, forward_with_expert gives other logits after 1 tokens",
        ),
        (
            broken(Pairs, stepper=lambda self: LastExpert(self.config, arrays(self))),
            "With a random expert, forward_with_expert gives other logits after 5 tokens",
        ),
        (
            broken(Pairs, stepper=lambda self: Forgetful(self.config, arrays(self))),
            "Without ids, the compiled step changes the state",
        ),
        (
            broken(Pairs, stepper=lambda self: SamplingStepper(self.config, {})),
            "The stepper has no forward_with_expert",
        ),
    ],
    "migration": [
        (broken(Config=OffByOne), "OffByOne(vocab_size=12, hidden_size=8) for version '0'")
    ],
    "described_graph": [
        (broken(describe_graph=lambda self: ModelGraph(nodes=(), edges=(), sizes={})), "graph")
    ],
    "operations": [(broken(operations=one_operation), "The operations have 1 parameters in all")],
    "given": [
        (broken(Config=Conditioned), "hold it in the state"),
        (
            calling(
                hold_all,
                Config=Conditioned,
                initial_state=starting(lambda batch: torch.zeros(batch, 1, 8)),
            ),
            "begin anew where an id is config.bos_id",
        ),
    ],
}
"""Of each law, by name, models that break it before any other, and words of the message."""
