"""The mixing model: predicts a symbol, decision by decision, from many contexts at once.

Each of some twenty contexts (the last symbols, words, lines) has counts of what followed it in the
corpus; a mixer of gated logistic units turns what they say into one probability. A text adds counts
of its own, and changes the mixer for itself; both are a part of its state, so nothing is kept from
one text to the next.

Sources: Mahoney 2005, "Adaptive Weighing of Context Models for Lossless Data Compression"; Knoll &
de Freitas 2012, "A Machine Learning Perspective on Predictive Coding with PAQ".
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64, Integer
from torch import Tensor

from reviewgen.errors import DataError, Detail, TrainingError
from reviewgen.protocols.graph import ModelGraph
from reviewgen.protocols.inputs import check_ids, check_shape, check_state
from reviewgen_mixing.coding import Network
from reviewgen_mixing.config import MixingConfig
from reviewgen_mixing.explain import describe_mixing
from reviewgen_mixing.history import is_state
from reviewgen_mixing.passes import score
from reviewgen_mixing.stepping import MixingStepper
from reviewgen_mixing.trained import MAX_WEIGHT, expect_arrays, read_arrays, write_arrays
from reviewgen_mixing.training import fit_expert, train_network

State: TypeAlias = tuple[Float32[Tensor, "B F I"], Int64[Tensor, "B K"]]


class Mixing:
    """A model that mixes the predictions of many contexts. Its logits are log probabilities (nats).

    The ids of conditions, and bos, have probability zero; every other id has more.

    The state is a pair: the changes of the mixer's weights, float32 (B, F, I), and the registers,
    own counts and last symbols of each text, int64 (B, K). Both have a fixed size.
    """

    Config: ClassVar[type] = MixingConfig

    def __init__(self, config: MixingConfig) -> None:
        self.config = config
        self._texts: list[np.ndarray] = []
        self._network: Network | None = None

    def observe(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Keep one text for ``finish``: its beginning-of-text id, its tokens, its end-of-text id.

        Raises:
            TrainingError: The model is finished, or the text has ids outside the vocabulary.
        """
        if self._network is not None:
            raise TrainingError(
                "This mixing model is finished and cannot count more texts. Create a new one."
            )
        if len(ids) and (ids.min() < 0 or ids.max() >= self.config.vocab_size):
            raise TrainingError(
                f"A text has ids {ids.min()}..{ids.max()}; this model accepts"
                f" 0..{self.config.vocab_size - 1}."
            )
        self._texts.append(ids.astype(np.min_scalar_type(self.config.vocab_size)))

    def finish(self) -> Mapping[str, Any]:
        """Train the model on the texts, in their order, and return facts for the training record.

        Raises:
            TrainingError: No text has a token after its first, or the vocabulary has fewer than two
                symbols besides bos, conditions and fields.
        """
        config = self.config
        given = config.condition_ids + config.field_ids
        if config.vocab_size - given < 3:
            raise TrainingError(
                f"A mixing model needs two symbols besides bos; got vocab_size={config.vocab_size},"
                f" of which {given} are ids of conditions and fields."
            )
        if not any(len(text) > 1 for text in self._texts):
            raise TrainingError(
                "No observed text has a token after its first, so there is nothing to predict. Add"
                " texts."
            )
        self._network = train_network(self._texts, self.config)
        self._texts = []
        size = sum(tensor.nbytes for tensor in self.state_dict().values())
        kept = "the training text and " if self.config.keep_text else ""
        slots = int(np.count_nonzero(self._network.slots.values))
        note = f"{kept}{slots:,} decisions in their contexts, in {size / 1e6:,.1f} MB."
        # ``kept`` may begin the note with a small letter
        return {"slots": slots, "bytes": size, "notes": [Detail(note[0].upper() + note[1:])]}

    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first token of B texts."""
        return tuple(map(torch.from_numpy, self.stepper().initial_state(batch_size)))

    def __call__(
        self, ids: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return the log probability of every token after each of ``ids``, and the state after the
        last.

        Raises:
            TrainingError: The model is not trained yet.
            DataError: An id is outside the vocabulary, or the state is not one of this model.
            ShapeError: The ids or the state have another shape.
        """
        return self._read(ids, None, state)

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: State
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return the log probability of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the state
        after the last of ``ids``. Only the decisions on the way to the targets are computed.

        Raises:
            TrainingError: The model is not trained yet.
            DataError: An id or a target is outside the vocabulary, or the state is not one of this
                model.
            ShapeError: The ids, the targets or the state have another shape.
        """
        scores, state = self._read(ids, None, state, targets)
        return scores[..., 0], state

    def fit_expert(
        self, texts: Iterable[tuple[Int64[np.ndarray, " T"], Float32[np.ndarray, "T V"]]]
    ) -> "Mixing":
        """Return a model that mixes the distribution of another model in; see
        ``reviewgen.protocols.SupportsExpert``. It shares the counts of this model.
        """
        fitted = Mixing(replace(self.config, expert=True))
        fitted._network = fit_expert(self._finished(), texts)
        return fitted

    def call_with_expert(
        self, ids: Int[Tensor, "B T"], expert: Float[Tensor, "B T V"], state: State
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Return what a call returns, with an expert's log probabilities after each of ``ids``."""
        return self._read(ids, expert, state)

    def score_with_expert(
        self,
        ids: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        expert: Float[Tensor, "B T V"],
        state: State,
    ) -> tuple[Float[Tensor, "B T"], State]:
        """Return what ``score`` returns, with an expert's log probabilities after each of
        ``ids``.
        """
        scores, state = self._read(ids, expert, state, targets)
        return scores[..., 0], state

    def stepper(self, weight_bits: int = 32) -> MixingStepper:
        """Return a stepper that shares the model's memory; ``weight_bits`` has no effect.

        Raises:
            TrainingError: The model is not trained yet.
        """
        return MixingStepper(self.config, self._finished())

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of counted decisions, and of the weights that mix them."""
        if self._network is None:
            return {}
        weights = self._network.weights
        return {
            "counts": int(np.count_nonzero(self._network.slots.values)),
            "mixer": weights.sets.size + weights.final.size,
            "probability maps": weights.maps.size,
            "states": weights.states.size,
        }

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph, to be drawn."""
        return describe_mixing(self.config, self.parameter_kinds().get("counts", 0))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the trained model. Before training, they have the same names and no
        elements.
        """
        if self._network is None:
            specs = expect_arrays(self.config).items()
            arrays = {name: np.empty((0, *shape[1:]), dtype) for name, (dtype, shape) in specs}
        else:
            arrays = write_arrays(self._network, self.config)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Use a trained model's tensors.

        Raises:
            BundleError: A tensor is missing, unexpected, has another shape, or is damaged; the
                model stays unchanged.
        """
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        self._network = read_arrays(arrays, self.config)
        self._texts = []

    def _read(
        self,
        ids: Int[Tensor, "B T"],
        expert: Float[Tensor, "B T V"] | None,
        state: State,
        targets: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T R"], State]:
        """Return the log probability of every token after each of ``ids``, R = V, or with
        ``targets`` that of each target only, R = 1; and the state after the last of ``ids``.
        """
        network = self._finished()
        batch = check_ids(ids)
        floats, ints = self._copied(state, batch)
        log_probs = self._expert_array(ids, expert)
        tokens = self._checked(ids)
        wanted = tokens[:, :0]
        width = self.config.vocab_size
        if targets is not None:
            check_shape("The targets", targets, {"B": batch, "T": ids.shape[1]}, is_integer=True)
            wanted = self._checked(targets)
            width = 1
        results = np.empty((*ids.shape, width), np.float32)
        for row in range(batch):
            # views of the shapes (F, 1, I) and (K, 1), which ``score`` updates
            text_state = floats[row][:, None], ints[row][:, None]
            score(network, tokens[row], wanted[row], log_probs[row], *text_state, results[row])
        return _like(results, ids), (_like(floats, ids), _like(ints, ids))

    def _expert_array(
        self, ids: Int[Tensor, "B T"], expert: Float[Tensor, "B T V"] | None
    ) -> Float32[np.ndarray, "B U V"]:
        """Return an expert's log probabilities as a float32 array.

        If ``expert`` is None, the result depends on the model. If it was fitted to an expert,
        return zeros, U = T, which stand for uniform distributions. Otherwise return no rows, U = 0.

        Raises:
            DataError: The model was not fitted to an expert, or the expert's log probabilities
                are NaN or infinite.
            ShapeError: The expert does not have a log probability for each symbol after each id.
        """
        vocab_size = self.config.vocab_size
        if expert is None:
            tokens = ids.shape[1] if self.config.expert else 0
            return np.zeros((len(ids), tokens, vocab_size), np.float32)
        check_shape("The expert", expert, {"B": len(ids), "T": ids.shape[1], "V": vocab_size})
        if not self.config.expert:
            raise DataError("This mixing model has no expert. Call fit_expert first.")
        array = np.ascontiguousarray(expert.detach().cpu().numpy(), np.float32)
        if not (array < np.inf).all():
            raise DataError("The log probabilities of the expert are NaN or infinite.")
        return array

    def _copied(self, state: State, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of the two tensors of a state as arrays.

        Raises:
            ShapeError: The state has other shapes.
            DataError: The state is not one of this model.
        """
        network = self._finished()
        changes, memory = check_state(state, 2)
        expected_changes, expected_memory = self.initial_state(0)
        _, rows, width = expected_changes.shape
        check_shape("The changes in the state", changes, {"B": batch, "F": rows, "I": width})
        sizes = {"B": batch, "K": expected_memory.shape[1]}
        check_shape("The numbers of the state", memory, sizes, is_integer=True)
        floats = np.array(changes.detach().cpu().numpy(), np.float32, order="C")
        ints = np.array(memory.detach().cpu().numpy(), np.int64, order="C")
        vocab_size = self.config.vocab_size
        are_numbers = (np.abs(floats) < MAX_WEIGHT).all()
        if not are_numbers or not is_state(
            ints, vocab_size, network.local_slots, len(network.text)
        ):
            raise DataError(
                "The state is not one of this model, which has"
                f" {vocab_size} symbols. Start with initial_state."
            )
        return floats, ints

    def _checked(self, ids: Int[Tensor, "B T"]) -> Int64[np.ndarray, "B T"]:
        """Return ids as an array.

        Raises:
            DataError: An id is outside the vocabulary.
        """
        array = np.ascontiguousarray(ids.detach().cpu().numpy(), np.int64)
        if array.size and (array.min() < 0 or array.max() >= self.config.vocab_size):
            raise DataError(
                f"The ids are {array.min()}..{array.max()}; this model accepts"
                f" 0..{self.config.vocab_size - 1}."
            )
        return array

    def _finished(self) -> Network:
        """Return the trained network, or raise if there is none yet."""
        if self._network is None:
            raise TrainingError(
                "This mixing model is not trained yet. Call observe and finish, or load_state_dict,"
                " first."
            )
        return self._network


def _like(array: np.ndarray, tensor: Tensor) -> Tensor:
    """Return an array as a tensor on the device of another tensor."""
    return torch.from_numpy(array).to(tensor.device)
