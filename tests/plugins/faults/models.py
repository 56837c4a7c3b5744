"""A correct recurrent model and count model, and models that each break one law: their twins in all but one line.

``MODELS`` says which law must be the first to fail, and words of its message.
"""

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

V, H = 11, 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    vocab_size: int
    hidden_size: int = H


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
        (h,), outputs = state, []
        for x in self.look_up(ids).unbind(1):
            h = torch.tanh(self.recurrent(h) + x)
            outputs.append(h)
        return self.score_all(torch.stack(outputs, dim=1)), (h,)

    def look_up(self, ids):
        return self.embedding(ids)

    def score_all(self, hidden):
        return self.output(hidden)


class CountTwin:
    """A correct count model: how often each token occurs, plus one."""

    Config = Settings

    def __init__(self, config):
        self.config, self.counts = config, torch.ones(config.vocab_size)

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
        if {name: tensor.shape for name, tensor in tensors.items()} != {"counts": self.counts.shape}:
            raise ValueError("other tensors")
        self.counts = tensors["counts"]


class NoInitialState(Twin):
    initial_state = None


class TwoArguments(Twin):
    def __init__(self, config, scale=1.0):
        super().__init__(config)


class MutableSettings(Twin):
    @dataclass(kw_only=True)
    class Config:
        vocab_size: int
        hidden_size: int = H


class ExtraLogit(Twin):
    def score_all(self, hidden):
        return F.pad(self.output(hidden), (0, 1))


class BatchSecond(Twin):
    def initial_state(self, batch_size):
        return (super().initial_state(batch_size)[0].T,)

    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, (state[0].T,))
        return logits, (h.T,)


class Forgetful(Twin):
    def forward(self, ids, state):
        return super().forward(ids, self.initial_state(len(ids)))


class SeesTheLast(Twin):
    def score_all(self, hidden):
        return self.output(hidden + 0.1 * hidden[:, -1:])


class SharesRows(Twin):
    def score_all(self, hidden):
        return self.output(hidden - hidden.mean(0))


class ChangesItsState(Twin):
    def forward(self, ids, state):
        logits, after = super().forward(ids, state)
        state[0].copy_(after[0])
        return logits, after


class ForbidsAToken(Twin):
    def score_all(self, hidden):
        return self.output(hidden).masked_fill(torch.arange(V) == 0, -torch.inf)


class AlwaysDropsOut(Twin):
    def look_up(self, ids):
        return F.dropout(self.embedding(ids), 0.2)  # in evaluation mode too


class UnsavedBuffer(Twin):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("bias", torch.randn(config.vocab_size), persistent=False)

    def score_all(self, hidden):
        return self.output(hidden) + self.bias


class TakesAnyTensors(Twin):
    def load_state_dict(self, tensors):
        return super().load_state_dict(tensors, strict=False)


class ReadsItsWeights(Twin):
    def __init__(self, config):
        super().__init__(config)
        self.norm = float(self.output.weight.detach().norm())


class GrowingCache(Twin):
    """The hidden vector is the mean of all embeddings, which the state keeps: a cache of keys and values without a window."""

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, 0, self.config.hidden_size),)

    def forward(self, ids, state):
        cache = torch.cat((state[0], self.recurrent(self.embedding(ids))), dim=1)  # (B, S+T, H)
        means = cache.cumsum(1) / torch.arange(1, cache.size(1) + 1)[:, None]
        return self.output(means[:, -ids.size(1) :]), (cache,)


class WideningState(Twin):
    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, (state[0].float(),))
        return logits, (h.double(),)


class NestingState(Twin):
    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, (state[-1],))
        return logits, (h, h)


class PositionTable(Twin):
    """Learned absolute positions, 1,024 of them; the state counts."""

    def __init__(self, config):
        super().__init__(config)
        self.positions = nn.Embedding(1024, config.hidden_size)

    def initial_state(self, batch_size):
        return (*super().initial_state(batch_size), torch.zeros(batch_size, dtype=torch.long))

    def forward(self, ids, state):
        h, count = state
        places = count[:, None] + torch.arange(ids.size(1))
        logits, (h,) = super().forward(ids, (h,))
        return logits + self.output(self.positions(places)), (h, count + ids.size(1))


class Explosive(Twin):
    """The hidden vector grows by a tenth with each token."""

    def forward(self, ids, state):
        (h,), outputs = state, []
        for x in self.look_up(ids).unbind(1):
            h = 1.1 * h + self.recurrent(x)
            outputs.append(h)
        return self.score_all(torch.stack(outputs, dim=1)), (h,)


class OneLate(Twin):
    """``logits[b, t]`` score ``ids[b, t]``."""

    def forward(self, ids, state):
        (h,), outputs = state, []
        for x in self.look_up(ids).unbind(1):
            outputs.append(h)
            h = torch.tanh(self.recurrent(h) + x)
        return self.score_all(torch.stack(outputs, dim=1)), (h,)


class CopiesNothing(Twin):
    def __deepcopy__(self, memo):
        return self


class HoldsALock(Twin):
    def __init__(self, config):
        super().__init__(config)
        self.lock = threading.Lock()


class HoldsAClosure(Twin):
    def __init__(self, config):
        super().__init__(config)
        self.layer = lambda hidden: self.output(hidden)

    def score_all(self, hidden):
        return self.layer(hidden)


class LooksAheadInTraining(Twin):
    def score_all(self, hidden):
        return self.output(hidden + hidden.flip(1)) if self.training else self.output(hidden)


class NormalisesOverTime(Twin):
    """Batch normalisation: in training by the mean of the batch, later by a running mean."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(config.hidden_size))

    def score_all(self, hidden):
        return self.output(hidden - (hidden.mean((0, 1)) if self.training else self.mean))


class KeepsItsGraph(Twin):
    kept = None

    def score_all(self, hidden):
        if not self.training:
            return self.output(hidden)
        if self.kept is None:
            self.kept = F.normalize(self.output.weight)  # "computed once"
        return hidden @ self.kept.T + self.output.bias


class ChangesInPlace(Twin):
    def score_all(self, hidden):
        squashed = torch.sigmoid(hidden)
        return self.output(squashed.mul_(2)) if self.training else self.output(2 * squashed)


class ChangesItsStateInTraining(Twin):
    def forward(self, ids, state):
        logits, after = super().forward(ids, state)
        if self.training:
            state[0].data.copy_(after[0])  # unseen by autograd
        return logits, after


class WithoutGraph(Twin):
    def score_all(self, hidden):
        with torch.no_grad():
            return self.output(hidden)


class UnusedLayer(Twin):
    def __init__(self, config):
        super().__init__(config)
        self.attention = nn.Linear(config.hidden_size, config.hidden_size)


class DetachedEmbedding(Twin):
    def look_up(self, ids):
        return self.embedding(ids).detach()


class RootOfZero(Twin):
    def look_up(self, ids):
        x = self.embedding(ids)
        return x + ((x - x) ** 2).sqrt()


class MixesDtypes(Twin):
    def forward(self, ids, state):
        (h,), outputs = state, []
        for x in self.look_up(ids).unbind(1):
            h = torch.lerp(h, torch.tanh(self.recurrent(x)), 0.5)
            outputs.append(h)
        return self.score_all(torch.stack(outputs, dim=1)), (h,)


class Cancels(Twin):
    """The difference of two large numbers, exact to 1e-5 in 32 bits."""

    def score_all(self, hidden):
        return self.output(hidden + 100) - self.output(torch.full_like(hidden, 100.0)) + self.output.bias


class ReturnsProbabilities(Twin):
    def score_all(self, hidden):
        return self.output(hidden).softmax(-1)


class TwoSoftmaxes(Twin):
    def score_all(self, hidden):
        return self.output(hidden).softmax(-1).log_softmax(-1)


class Squashed(Twin):
    def score_all(self, hidden):
        return torch.sigmoid(self.output(hidden))


class ScoresTheCurrent(Twin):
    """``score`` reads the log-probability of ``ids``, not of ``targets``."""

    def score(self, ids, targets, state):
        logits, state = self(ids, state)
        return logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0], state


class NotNormalised(CountTwin):
    def __call__(self, ids, state):
        return self.counts.log().expand(*ids.shape, -1), state


class ReportsAnArray(CountTwin):
    def finish(self):
        return {"counts": np.ones(3)}


class UnsuitedForTheCpu(Twin):
    unsuited_devices = frozenset({"cpu"})


MODELS = [
    (NoInitialState, "protocol", "lacks initial_state of reviewgen.protocols.LanguageModel"),
    (TwoArguments, "explicit", "must take one argument, the config"),
    (MutableSettings, "config", "must be frozen"),
    (ExtraLogit, "shape", "must have the shape"),
    (BatchSecond, "state", "first dimension must be B"),
    (Forgetful, "chunks", "the state must carry all context. The first difference is at row 0, token 1, id"),
    (SeesTheLast, "causal", "must not use future tokens. The first difference is at row 0, token 0, id"),
    (SharesRows, "rows", "in a batch; rows must be independent. The first difference is at token"),
    (ChangesItsState, "no_mutation", "modifies the state"),
    (ForbidsAToken, "normal", "-inf"),
    (AlwaysDropsOut, "same_again", "evaluation must be deterministic"),
    (UnsavedBuffer, "round_trip", "must contain everything"),
    (TakesAnyTensors, "strict", "accepts an extra tensor"),
    (ReadsItsWeights, "meta", "cannot be created under torch.device('meta')"),
    (GrowingCache, "fixed_state", r"state[0] after 1 tokens has shape (1, 1, 8)"),
    (WideningState, "fixed_state", "dtype torch.float64; from initial_state it has (1, 8) and torch.float32"),
    (NestingState, "fixed_state", "has the tensors state[0], state[1]; from initial_state it has state[0]"),
    (PositionTable, "long_text", "fails at tokens 1024 to 1535 of a text of 2,000"),
    (Explosive, "long_text", "must be finite"),
    (OneLate, "aligned", "The logits are shifted: changing token 0 first changes the logits at token 1, by"),
    (CopiesNothing, "deep_copy", "changes the model that was copied. The first difference is at row 0, token 0"),
    (HoldsALock, "deep_copy", "copy.deepcopy of the model fails: TypeError"),
    (HoldsAClosure, "deep_copy", "does not compute with its own weights; a closure"),
    (LooksAheadInTraining, "causal_in_training", "In training mode, changing token"),
    (NormalisesOverTime, "causal_in_training", "In training mode, changing token 1 changes logits before it"),
    (KeepsItsGraph, "carried", "carried over and detached. The model keeps a tensor with its graph"),
    (ChangesInPlace, "carried", "changes in place a tensor that the gradient needs"),
    (ChangesItsStateInTraining, "carried", "In training mode, a call modifies the state"),
    (WithoutGraph, "carried", "do not depend on the parameters"),
    (UnusedLayer, "gradients", "no gradient to attention.weight, attention.bias"),
    (DetachedEmbedding, "gradients", "no gradient to embedding.weight"),
    (RootOfZero, "gradients", "The gradient of embedding.weight is nan at index"),
    (MixesDtypes, "autocast", "The model mixes dtypes"),
    (Cancels, "autocast", "Under autocast to bfloat16 the logits differ by"),
    (ReturnsProbabilities, "learns", "The logits are probabilities"),
    (TwoSoftmaxes, "learns", "two softmaxes in a row"),
    (Squashed, "learns", "do not squash them"),
    (ScoresTheCurrent, "score", "other log-probabilities than the model's call. The first difference is at row 0, token 0"),
    (NotNormalised, "sums_to_one", "they must sum to one"),
    (ReportsAnArray, "reports", "JSON values"),
    (UnsuitedForTheCpu, "devices", "must not contain 'cpu'"),
]
