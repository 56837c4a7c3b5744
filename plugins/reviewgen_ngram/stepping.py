"""The stepper of ngram: inference from a trained model's arrays. Must not import torch."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from reviewgen.compiled import decoding
from reviewgen.compiled.sampling import SamplingParams, compiled_constraints
from reviewgen.compiled.steps import CompiledStep
from reviewgen.errors import DataError
from reviewgen.protocols import Constraints, CountedContext, TensorSpec
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.explain import explain
from reviewgen_ngram.sampling import PROPOSALS, sample, sample_plain, step
from reviewgen_ngram.tensors import Trained, expect_arrays, read_arrays
from reviewgen_ngram.trie import advance, dense


class NgramStepper:
    """The stepper of ``ngram``. The state is the model's, int64 (B,): the node of each row's context.

    It multiplies no weights, so ``weight_bits`` has no effect.

    Raises:
        BundleError: The arrays are damaged or do not fit the config.
    """

    Config: ClassVar[type] = NgramConfig

    def __init__(self, config: NgramConfig, tensors: Mapping[str, np.ndarray], weight_bits: int = 32) -> None:
        self._config = config
        self._trained = read_arrays(tensors, config.vocab_size, config.order, config.quantized, config.is_distribution)

    @classmethod
    def of(cls, config: NgramConfig, trained: Trained) -> "NgramStepper":
        """Return the stepper of a model in memory, without checking its arrays again."""
        stepper = cls.__new__(cls)
        stepper._config, stepper._trained = config, trained
        return stepper

    @classmethod
    def expect(cls, config: NgramConfig) -> Mapping[str, TensorSpec]:
        """Return the name, dtype and shape of every array of a model with this config."""
        return expect_arrays(config.vocab_size, config.quantized)

    def initial_state(self, batch_size: int) -> Int64[np.ndarray, " B"]:
        """Return the state before the first token of B texts."""
        return np.zeros(batch_size, np.int64)

    def forward(
        self, ids: Int64[np.ndarray, "B T"], state: Int64[np.ndarray, " B"]
    ) -> tuple[Float32[np.ndarray, "B V"], Int64[np.ndarray, " B"]]:
        """Return the log probabilities after the last of T >= 1 tokens, and the state after it.

        Raises:
            DataError: An id is outside the vocabulary, or the state is not one of this model.
        """
        if ids.min() < 0 or ids.max() >= self._config.vocab_size:
            raise DataError(f"Got ids {ids.min()}..{ids.max()}; this model accepts 0..{self._config.vocab_size - 1}.")
        contexts = np.empty(ids.shape, np.int64)
        advance(self._trained.trie, ids, self._checked(state), contexts)
        last = contexts[:, -1].copy()
        rows = np.empty((len(last), self._config.vocab_size))
        dense(self._trained.trie, last, rows)
        return log_rows(rows, self._config.is_distribution).astype(np.float32), last

    def sample(
        self,
        state: Int64[np.ndarray, " B"],
        uniform: Float64[np.ndarray, "B N"],
        params: SamplingParams,
        texts: Int64[np.ndarray, "B K"],
        new_tokens: Int64[np.ndarray, " B"],
        constraints: Constraints | None = None,
    ) -> tuple[Int64[np.ndarray, "B N"], Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        """Sample up to N tokens a row in one compiled loop; see ``reviewgen.protocols.SupportsSample``.

        Raises:
            DataError: The state is not one of this model.
        """
        if params.looks_back or params.is_greedy or params.min_new_tokens > 0:  # decided by params alone, not by other rows
            return decoding.sample(self, self._config.vocab_size, state, uniform, params, texts, new_tokens, constraints)
        contexts, trie = self._checked(state), self._trained.trie
        tokens, used = np.empty(uniform.shape, np.int64), np.empty(len(uniform), np.int64)
        windows, run, spelling, places = compiled_constraints(params, constraints, len(uniform))
        can_propose = self._config.is_distribution and not params.has_filter
        is_plain = len(params.temperatures) == 1 and params.temperatures[0] == 1 and params.vocab_size >= self._config.vocab_size
        if can_propose and is_plain and run == 0:
            limits = params.max_new_tokens - new_tokens
            sample_plain(
                trie,
                trie.ends,
                trie.book,
                contexts,
                uniform,
                params.bos_id,
                params.eos_id,
                limits,
                spelling,
                places,
                tokens,
                used,
            )
        else:
            proposals = PROPOSALS if can_propose else 0
            constrained = windows, run, spelling, places
            sample(trie, contexts, uniform, params, proposals, *constrained, texts, new_tokens, tokens, used)
        return tokens, used, contexts

    @cached_property
    def compiled_step(self) -> CompiledStep:
        """The step; see ``reviewgen.protocols.SupportsCompiledStep``."""
        return CompiledStep(step, self._trained.trie)

    def state_arrays(self, state: Int64[np.ndarray, " B"]) -> tuple[Float32[np.ndarray, "0 B 0"], Int64[np.ndarray, "1 B"]]:
        """Return a copy of a state as the step takes it: no floats, and the contexts.

        Raises:
            DataError: The state is not one of this model.
        """
        return np.empty((0, len(state), 0), np.float32), self._checked(state)[None]

    def state_of(self, floats: Float32[np.ndarray, "0 B 0"], ints: Int64[np.ndarray, "1 B"]) -> Int64[np.ndarray, " B"]:
        """Return the state of such arrays."""
        return ints[0].copy()

    def explain(self, ids: Int64[np.ndarray, " T"]) -> list[CountedContext]:
        """Return the contexts and counts behind the prediction after a text; see ``reviewgen.protocols.SupportsExplain``.

        Raises:
            DataError: An id is outside the vocabulary.
        """
        _, state = self.forward(ids[None], self.initial_state(1))
        return explain(self._trained, self._config, int(state[0]), ids)

    def _checked(self, state: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
        """Return a copy of the state, if it is one of this model."""
        last = len(self._trained.trie.children) - 1
        if state.size and (state.min() < 0 or state.max() > last):
            raise DataError(f"The state is not one of this model, which has the contexts 0..{last}.")
        return state.copy()


def log_rows(rows: Float64[np.ndarray, "N V"], is_distribution: bool) -> Float64[np.ndarray, "N V"]:
    """Return the logarithms of probabilities, or of normalised scores; zero becomes -inf."""
    if not is_distribution:
        rows = rows / rows.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.log(rows)
    return logs
