"""A correct stepper of ``models.Twin``, and steppers that each break one law. Imports no torch, as a plugin's must not.

``STEPPERS`` says which law must be the first to fail, and words of its message.
"""

import numpy as np

V, H = 11, 8


class TwinStepper:
    """A correct stepper, and its factory."""

    def __init__(self, config, tensors, weight_bits=32):
        self.config, self.tensors = config, tensors

    @classmethod
    def expect(cls, config):
        size, vocabulary = config.hidden_size, config.vocab_size
        return {
            "embedding.weight": ("float32", (vocabulary, size)),
            "recurrent.weight": ("float32", (size, size)),
            "recurrent.bias": ("float32", (size,)),
            "output.weight": ("float32", (vocabulary, size)),
            "output.bias": ("float32", (None,)),
        }

    def initial_state(self, batch_size):
        return (np.zeros((batch_size, self.config.hidden_size), np.float32),)

    def forward(self, ids, state):
        h = state[0]
        for column in ids.T:
            h = self.step(h, column)
        return self.score_all(h), (h,)

    def step(self, h, ids):
        recurrent = h @ self.tensors["recurrent.weight"].T + self.tensors["recurrent.bias"]
        return np.tanh(recurrent + self.tensors["embedding.weight"][ids])

    def score_all(self, h):
        return h @ self.tensors["output.weight"].T + self.tensors["output.bias"]


class Counting(TwinStepper):
    """A correct stepper whose state also counts tokens; ``count`` is (B,)."""

    def initial_state(self, batch_size):
        return (*super().initial_state(batch_size), np.zeros(batch_size, np.int64))

    def forward(self, ids, state):
        h, count = state
        logits, (h,) = super().forward(ids, (h,))
        return self.adjust(logits, count + ids.shape[1]), (h, count + ids.shape[1])

    def adjust(self, logits, count):
        return logits


class CannotBeBuilt(TwinStepper):
    def __init__(self, config, tensors, weight_bits=32):
        super().__init__(config, {"bias": tensors["output_bias"]})


class HasNoForward(TwinStepper):
    forward = None


class MissesATensor(TwinStepper):
    @classmethod
    def expect(cls, config):
        return {name: spec for name, spec in super().expect(config).items() if name != "output.bias"}


class ExpectsOthers(TwinStepper):
    @classmethod
    def expect(cls, config):
        return super().expect(config) | {"gate.weight": ("float32", (1,))}


class ExpectsDoubles(TwinStepper):
    @classmethod
    def expect(cls, config):
        return {name: ("float64", shape) for name, (_, shape) in super().expect(config).items()}


class ExpectsATranspose(TwinStepper):
    @classmethod
    def expect(cls, config):
        return {name: (dtype, shape[::-1]) for name, (dtype, shape) in super().expect(config).items()}


class BatchLast(TwinStepper):
    def initial_state(self, batch_size):
        return (super().initial_state(batch_size)[0].T,)

    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, (state[0].T,))
        return logits, (h.T,)


class EveryPosition(TwinStepper):
    def forward(self, ids, state):
        logits, state = super().forward(ids, state)
        return np.repeat(logits[:, None], ids.shape[1], axis=1), state


class KeepsEveryToken(TwinStepper):
    def initial_state(self, batch_size):
        return (*super().initial_state(batch_size), np.zeros((batch_size, 0), np.int64))

    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, state[:1])
        return logits, (h, np.concatenate((state[1], ids), axis=1))


class Widens(TwinStepper):
    def forward(self, ids, state):
        logits, (h,) = super().forward(ids, state)
        return logits, (h.astype(np.float64),)


class Scaled(TwinStepper):
    def score_all(self, h):
        return 1.01 * super().score_all(h)


class StartsAgain(TwinStepper):
    def forward(self, ids, state):
        return super().forward(ids, self.initial_state(len(ids)))


class ChangesItsState(TwinStepper):
    def forward(self, ids, state):
        logits, after = super().forward(ids, state)
        state[0][:] = after[0]
        return logits, after


class MixesRows(TwinStepper):
    def score_all(self, h):
        return super().score_all(h + 1e-2 * (len(h) == 1))


class SharesACount(Counting):
    """Correct as long as all rows have the same number of tokens."""

    def adjust(self, logits, count):
        return logits * (count / count[:1])[:, None]


class Drifts(Counting):
    """Two millionths more with each token."""

    def adjust(self, logits, count):
        return logits * (1 + 2e-6 * count)[:, None].astype(np.float32)


class HasRoomFor256(Counting):
    def adjust(self, logits, count):
        return logits * np.ones(256, np.float32)[count - 1][:, None]


STEPPERS = [
    (CannotBeBuilt, "stepper_protocol", "cannot be built from the tensors of its model: KeyError: 'output_bias'"),
    (HasNoForward, "stepper_protocol", "lacks forward of reviewgen.protocols.Stepper"),
    (MissesATensor, "expected_tensors", "expect does not name output.bias"),
    (ExpectsOthers, "expected_tensors", "expect names gate.weight"),
    (ExpectsDoubles, "expected_tensors", "the dtype float64; in state_dict it is float32"),
    (ExpectsATranspose, "expected_tensors", "expect gives embedding.weight the shape (8, 11); in state_dict it is (11, 8)"),
    (BatchLast, "batch_first", "its first dimension must be B"),
    (EveryPosition, "batch_first", "must return logits of the shape (1, 11); got (1, 2, 11)"),
    (KeepsEveryToken, "fixed_step_state", "state[1] of the stepper after 1 tokens has shape (1, 1)"),
    (Widens, "fixed_step_state", "dtype float64; from initial_state it has (1, 8) and float32"),
    (Scaled, "step_logits", "gives other logits than the model's call after 12 tokens. The first difference is at row 0, id"),
    (StartsAgain, "step_logits", "fed chunks of [1, 1,"),
    (ChangesItsState, "step_logits", "changes the state that it is passed"),
    (MixesRows, "step_logits", "other logits for row 0 alone than in a batch. The first difference is at id"),
    (SharesACount, "stacked", "Stepped as one batch, texts of [1, 3, 7] tokens get other logits than each alone"),
    (Drifts, "drift", "drifts away from the model's call. The first difference is at row 0, token"),
    (HasRoomFor256, "drift", "fails at call 256 of 500: IndexError"),
]
