import numpy as np


class Mixer:
    """Vectors of numpy, and the cost as the logarithm of the probability of what happened."""

    def __init__(self, inputs, learning_rate):
        self.w = np.ones(inputs) / inputs
        self.rate = learning_rate

    def predict(self, probs):
        odds = np.asarray(probs) / (1 - np.asarray(probs))
        self.z = np.log(odds)
        return 1 - 1 / (1 + np.prod(odds**self.w))

    def update(self, bit):
        p = 1 / (1 + np.exp(-self.w @ self.z))
        self.w = self.w + self.rate * (bit - p) * self.z


def cost(mixer, probs, bits):
    happened = []
    for row, bit in zip(probs, bits, strict=True):
        p = mixer.predict(row)
        happened.append(abs(1 - bit - p))
        mixer.update(bit)
    return -np.log2(happened).sum()
