"""Bigrams: how probable each token is after each other token. They are counted in the training text
and saved with the model, as ``bigrams.safetensors``.

Only pairs that say more than the frequencies of their tokens are kept, at most 20 for each token on
average. The other followers of a token share the rest of its probability by their own frequencies
(absolute discounting; Ney, Essen & Kneser 1994). A saved pair takes three bytes: the follower, and
its probability as a power of two.

Dimensions: V vocabulary, N pairs, R tokens with known followers, T tokens of a text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int, Int64
from safetensors.numpy import save_file

from reviewgen.errors import BundleError, GenerationError, storage_errors
from reviewgen.protocols.stepper import Stepper
from reviewgen.storage import open_tensors, read_vectors, safetensors_file

_PAIRS = 20  # max number of saved pairs, as a multiple of the vocabulary size
_MAX_TOKENS = 5_000_000  # about the max number of tokens of the training text that are counted
_DISCOUNT = 0.5  # subtracted from the count of each pair
# The followers of a token that are not saved have at least this probability together: a format may
# need one of them.
_MIN_REST = 1e-4
# A saved probability is a whole number of steps from 1 downwards; this many steps halve it.
_STEPS = 16
_BATCH = 64  # max number of texts that a model predicts side by side
_ASKED_TOKENS = (100, 1000)  # of how many tokens a model predicts the followers, in two rounds


@dataclass(frozen=True)
class Bigrams:
    """The followers of each token.

    Attributes:
        starts: The index in ``followers`` at which those of each token begin, and at the end N.
        followers: The saved followers of the first token, then those of the second, and so on.
        probs: The probability of each of these followers after its token.
        unigrams: The probability of each token, whatever comes before.
    """

    starts: Int64[np.ndarray, " V1"]
    followers: Int[np.ndarray, " N"]
    probs: Float32[np.ndarray, " N"]
    unigrams: Float32[np.ndarray, " V"]

    @property
    def rest(self) -> Float32[np.ndarray, " V"]:
        """For each token, the probability of the followers that are not saved, together."""
        known = np.bincount(
            np.repeat(np.arange(len(self.unigrams)), np.diff(self.starts)),
            self.probs,
            len(self.unigrams),
        )
        return np.maximum(1 - known, _MIN_REST).astype(np.float32)

    def tempered(self, temperature: float) -> "Bigrams":
        """Return the bigrams of a text that is sampled at a temperature."""
        power = 1 / temperature
        probs = self.probs**power
        unigrams = self.unigrams**power
        before = np.repeat(np.arange(len(unigrams)), np.diff(self.starts))  # the token of each pair
        # besides the saved pairs, every token may follow with the probability rest * unigram
        total = np.bincount(before, probs, len(unigrams)) + self.rest**power * unigrams.sum()
        return Bigrams(
            self.starts,
            self.followers,
            (probs / total[before]).astype(np.float32),
            (unigrams / unigrams.sum()).astype(np.float32),
        )


def count_bigrams(blocks: Iterable[Int[np.ndarray, " T"]], vocab_size: int) -> Bigrams:
    """Count the bigrams of a training text.

    Args:
        blocks: The token ids of the text, in blocks. Ids from ``vocab_size`` on, such as those of
            conditions, are left out.
        vocab_size: V.
    """
    parts = list[np.ndarray]()
    for block in blocks:
        parts.append(block[block < vocab_size].astype(np.int64))
        if sum(map(len, parts)) >= _MAX_TOKENS:
            break
    ids = np.concatenate(parts)
    # one number for each pair of tokens
    keys, counts = np.unique(ids[:-1] * vocab_size + ids[1:], return_counts=True)
    unigrams = np.bincount(ids, minlength=vocab_size)
    before, followers = np.divmod(keys, vocab_size)
    probs = (counts - _DISCOUNT) / unigrams[before]
    return _keep_best(before, followers, probs, unigrams / len(ids))


def ask_model(stepper: Stepper, vocab_size: int, bos: int) -> Bigrams:
    """Return the bigrams of a model that was saved without them. They are the model's predictions
    for texts that consist of a single token, for each of the most frequent tokens.

    Args:
        stepper: The model.
        vocab_size: V.
        bos: The id of the token at the beginning.

    Raises:
        GenerationError: The logits are NaN or infinite.
    """

    def predict(beginnings: Sequence[Sequence[int]]) -> Float[np.ndarray, "R V"]:
        """Return the probabilities of the next token after each of R beginnings of a text, which
        all have the same length.
        """
        batches = list[np.ndarray]()
        for first in range(0, len(beginnings), _BATCH):
            ids = np.array(beginnings[first : first + _BATCH], np.int64)
            logits, _ = stepper.forward(ids, stepper.initial_state(len(ids)))
            scores = logits[:, :vocab_size].astype(np.float64)
            scores[:, bos] = -np.inf
            if not np.isfinite(scores.max(axis=1)).all():
                raise GenerationError.of_damaged_logits()
            probs = np.exp(scores - scores.max(axis=1, keepdims=True))
            batches.append(probs / probs.sum(axis=1, keepdims=True))
        return np.concatenate(batches)

    # The first round starts from the first tokens of texts. It estimates the frequencies of all
    # tokens, by which the second round chooses the tokens that it asks the model for.
    unigrams = predict([[bos]])[0]
    for count in _ASKED_TOKENS:
        asked = np.argsort(-unigrams, kind="stable")[:count]
        asked = asked[unigrams[asked] > 0]
        table = predict([[bos, token] for token in asked.tolist()])  # (R, V)
        shares = unigrams[asked] / unigrams[asked].sum()
        unigrams = shares @ table
    # the table of the second round has the bigrams
    rows, followers = np.nonzero(table > unigrams)
    return _keep_best(asked[rows], followers, table[rows, followers], unigrams)


def _keep_best(
    before: Int64[np.ndarray, " N"],
    followers: Int64[np.ndarray, " N"],
    probs: Float[np.ndarray, " N"],
    unigrams: Float[np.ndarray, " V"],
) -> Bigrams:
    """Return bigrams with only those of the given pairs that say most about the next token.

    Args:
        before, followers: The first and the second token of each pair.
        probs: The probability of each follower after its token.
        unigrams: The probability of each token.
    """
    size = len(unigrams)
    # every token may follow, since a word that a text must contain may be new to the model
    unigrams = (unigrams + 1e-9) / (unigrams + 1e-9).sum()
    # the share of each pair in the mutual information of neighbouring tokens (nats)
    gain = unigrams[before] * probs * np.log(probs / unigrams[followers])
    kept = np.flatnonzero(gain > 0)
    if len(kept) > _PAIRS * size:
        kept = np.sort(kept[np.argpartition(-gain[kept], _PAIRS * size)[: _PAIRS * size]])
    order = kept[np.argsort(before[kept], kind="stable")]  # the kept pairs by their first token
    starts = np.concatenate(([0], np.cumsum(np.bincount(before[order], minlength=size))))
    # rounded as in a saved file, so that a saved model generates the same texts
    rounded = _from_steps(np.minimum(_to_steps(probs[order]), 255))
    return Bigrams(starts, followers[order], rounded, _from_steps(_to_steps(unigrams)))


def write_bigrams(bigrams: Bigrams, file: Path) -> None:
    """Write bigrams to a file. An existing file is replaced.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    fits_16_bits = len(bigrams.unigrams) <= 1 << 16
    arrays = {
        "counts": np.diff(bigrams.starts).astype(np.uint32),
        "followers": bigrams.followers.astype(np.uint16 if fits_16_bits else np.uint32),
        "probs": _to_steps(bigrams.probs).astype(np.uint8),
        "unigrams": _to_steps(bigrams.unigrams).astype(np.uint16),
    }
    with storage_errors(file), safetensors_file(file):
        save_file(arrays, file)


def read_bigrams(file: Path, vocab_size: int) -> Bigrams:
    """Read the bigrams of a model.

    Raises:
        BundleError: The file is damaged, or belongs to another vocabulary.
    """
    kinds = {
        "counts": ("uint32",),
        "followers": ("uint16", "uint32"),
        "probs": ("uint8",),
        "unigrams": ("uint16",),
    }
    with open_tensors(file, "bigrams") as tensors:
        counts, followers, probs, unigrams = read_vectors(tensors, kinds).values()
        starts = np.concatenate(([0], np.cumsum(counts.astype(np.int64))))
        fits = len(counts) == len(unigrams) == vocab_size
        fits = fits and int(starts[-1]) == len(followers) == len(probs)
        if not fits or (followers >= vocab_size).any():
            raise BundleError("is damaged: its arrays do not fit the vocabulary.")
    return Bigrams(starts, followers, _from_steps(probs), _from_steps(unigrams))


def _to_steps(probs: Float32[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return probabilities as numbers of steps: minus 16 times their binary logarithms, rounded."""
    steps: np.ndarray = np.round(-_STEPS * np.log2(probs))
    return steps


def _from_steps(steps: Int[np.ndarray, " N"]) -> Float32[np.ndarray, " N"]:
    """Return the probabilities of numbers of steps as ``_to_steps`` returns them."""
    return np.exp2(-steps.astype(np.float32) / _STEPS)
