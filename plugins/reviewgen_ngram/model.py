"""The n-gram language model: predicts a token from the n - 1 tokens before it, by smoothed counts.

The model follows the conventions of KenLM's lmplz. bos serves as context only and is never
predicted, eos is predicted. The lowest order is interpolated with the uniform distribution over
every id but bos. The smoothings are described in ``estimate``, texts with fields in ``fields``.

Sources: Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling";
Heafield et al. 2013 for lmplz.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64, Integer
from torch import Tensor

from reviewgen.errors import Detail, NotADistribution, TrainingError
from reviewgen.protocols import CountGroup, SingleProcess
from reviewgen.protocols.graph import ModelGraph
from reviewgen.protocols.inputs import check_ids, check_shape, check_state
from reviewgen_ngram.config import NgramConfig
from reviewgen_ngram.counts import Arena, NgramCounter, exchange
from reviewgen_ngram.estimate import (
    ABSOLUTE_FALLBACK,
    FALLBACK,
    Estimate,
    estimate,
    first_node,
    root_row,
)
from reviewgen_ngram.explain import describe_ngram
from reviewgen_ngram.fields import (
    STATE_SIZE,
    counted_form,
    fill_rows,
    score_with_fields,
    with_fields,
)
from reviewgen_ngram.nodes import Nodes, gather, grow, link
from reviewgen_ngram.prune import frequent, prune, quantize
from reviewgen_ngram.stepping import NgramStepper, checked_ids, checked_state
from reviewgen_ngram.trie import (
    Trained,
    advance,
    expect_arrays,
    log_probabilities,
    make_trie,
    read_arrays,
    score,
    write_arrays,
)

DENSE_CELLS = 1 << 21  # number of probabilities computed at once: 16 MiB
MEBIBYTE = 1 << 20


class Ngram:
    """A count model of order n over token ids. Its logits are log probabilities (nats).

    The smoothings ``kneser-ney``, ``absolute`` and ``witten-bell`` give every token but bos a
    probability above zero.

    ``none`` is maximum likelihood, c(h w) / c(h). After a seen context, an unseen n-gram has
    probability zero and scores -inf. After an unseen context, the model uses the longest suffix
    that was seen. This never makes the infinite score of a text finite: a text only reaches an
    unseen context through an unseen n-gram after a seen context (at the latest after bos), and that
    n-gram has scored -inf.

    ``stupid-backoff`` is not a distribution. Texts are generated from its normalised scores, but it
    cannot be evaluated.

    The state is a node: the text's context, which is the longest suffix of the text that is a
    context of the model. Before the first token it is node 0. With fields, the state is a row of
    numbers, which ``fields`` describes.
    """

    Config: ClassVar[type] = NgramConfig

    def __init__(self, config: NgramConfig) -> None:
        self.config = config
        self._arena = Arena(config.memory_mb * MEBIBYTE if config.memory_mb else None)
        self._counter: NgramCounter | None = None
        self._bos_id: int | None = None
        self._trained: Trained | None = None

    def observe(self, ids: Integer[np.ndarray, " T"]) -> None:
        """Count one text: its beginning-of-text id, its tokens, its end-of-text id.

        The first id serves as context only and is never predicted. If it occurs again in ``ids``,
        another text starts there.

        Raises:
            TrainingError: The text is empty, has an id outside the vocabulary, or begins with a
                different id than earlier texts; or the model is finished.
        """
        if self._trained is not None:
            raise TrainingError(
                "This n-gram model is finished and cannot count more texts. Create a new one."
            )
        if not len(ids):
            raise TrainingError("The text has no ids; it needs at least its beginning-of-text id.")
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise TrainingError(
                f"A text has ids {ids.min()}..{ids.max()}; this model accepts"
                f" 0..{self.config.vocab_size - 1}."
            )
        counter = self._counter_for(int(ids[0]))
        counter.add(counted_form(ids, self.config) if self.config.field_ids else ids)

    def finish(self) -> Mapping[str, Any]:
        """Turn the counts into probabilities, which ends the training.

        Returns:
            A report: for each order, the discounts and the number of n-grams; the orders whose
            discounts are the fall-back; the size in bytes; and notes.

        Raises:
            TrainingError: No text was observed, or none has a token after its first.
            DataError: There are more n-grams than 32-bit node numbers.
        """
        return self.finish_ranges(SingleProcess())

    def finish_ranges(self, group: CountGroup) -> Mapping[str, Any]:
        """Finish the model as ``finish`` does, together with other processes.

        Each process works on the n-grams whose first token lies in its range. Only rank 0 gets the
        model and the report; the other ranks return an empty report.

        Raises:
            TrainingError: As in ``finish``, or the texts of the processes begin with different ids.
            DataError: There are more n-grams than 32-bit node numbers.
        """
        config = self.config
        arena = self._arena
        bos_id = self._common_bos_id(group)
        counter = self._counter_for(bos_id)
        self._counter = None
        rows = exchange(counter, config.vocab_size, arena, group)
        local = grow(rows, config.vocab_size, arena, group)
        del rows
        if local.nodes.starts[2] == 2:  # the only 1-gram is bos
            raise TrainingError(
                "No observed text has a token after its first, so there is nothing to predict. Add"
                " texts."
            )
        link(local)
        estimated = estimate(local, config.vocab_size, bos_id, config.smoothing, arena, group)
        keep = None  # whether each n-gram is frequent; None if none is to be dropped
        if config.min_count > 1 or config.min_texts > 1 or config.prune_entropy:
            keep = frequent(local, config.min_count, group)
        nodes = gather(local, group)
        if group.rank:
            return {}
        del local
        return self._set_trained(nodes, estimated, keep, bos_id)

    def initial_state(self, batch_size: int) -> Int[Tensor, "B *S"]:
        """Return the state before the first token of B texts."""
        shape = (batch_size, STATE_SIZE) if self.config.field_ids else (batch_size,)
        return torch.zeros(shape, dtype=torch.int64)

    def __call__(
        self, ids: Int[Tensor, "B T"], state: Int[Tensor, "B *S"]
    ) -> tuple[Float[Tensor, "B T V"], Int[Tensor, "B *S"]]:
        """Return the log probability of every token after each of ``ids``, and the state after the
        last of them.

        Raises:
            TrainingError: The model is not trained yet.
            DataError: An id is outside the vocabulary, or the state is not one of this model.
            ShapeError: The ids or the state have another shape.
        """
        trained = self._finished()
        vocab_size = self.config.vocab_size
        sizes = {"B": check_ids(ids)}
        if self.config.field_ids:
            sizes["S"] = STATE_SIZE
        check_shape("The state", *check_state(state, 1), sizes, is_integer=True)
        checked = checked_ids(_array(ids), self.config)
        current = checked_state(_array(state), trained)
        logits = np.empty((*ids.shape, vocab_size), np.float32)
        # ``_read`` returns float64; to save memory, it gets a few positions of the texts at a time
        positions = max(1, DENSE_CELLS // (vocab_size * max(1, len(ids))))
        for start in range(0, ids.shape[1], positions):
            piece = slice(start, start + positions)
            tokens = np.ascontiguousarray(checked[:, piece])
            logits[:, piece], current = self._read(tokens, current)
        return torch.from_numpy(logits).to(ids.device), _tensor(current, ids)

    def score(
        self, ids: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], state: Int[Tensor, "B *S"]
    ) -> tuple[Float[Tensor, "B T"], Int[Tensor, "B *S"]]:
        """Return the log probability of ``targets[b, t]`` after ``ids[b, :t + 1]``, and the state
        after the last of ``ids``.

        Raises:
            NotADistribution: The smoothing is ``stupid-backoff``.
            TrainingError: The model is not trained yet.
            DataError: An id or a target is outside the vocabulary, or the state is not one of this
                model.
        """
        trained = self._finished()
        current = checked_state(_array(state), trained)
        if not self.config.is_distribution:
            raise NotADistribution(
                "The scores of stupid back-off do not sum to one, so they have no bits per"
                " character. Train with another model.smoothing to evaluate the model; generating"
                " works."
            )
        scores = np.empty(ids.shape)  # probabilities
        tokens = checked_ids(_array(ids), self.config)
        next_tokens = checked_ids(_array(targets), self.config)
        if self.config.field_ids:
            states = np.ascontiguousarray(current.T)
            score_with_fields(
                with_fields(trained, self.config), tokens, next_tokens, states, scores
            )
            current = np.ascontiguousarray(states.T)
        else:
            score(trained.trie, tokens, next_tokens, current, scores)
        with np.errstate(divide="ignore"):  # zero becomes -inf
            logs = np.log(scores).astype(np.float32)
        return torch.from_numpy(logs).to(ids.device), _tensor(current, ids)

    def stepper(self, weight_bits: int = 32) -> NgramStepper:
        """Return a stepper that shares the model's memory.

        An n-gram has no weight matrices, so ``weight_bits`` has no effect.

        Raises:
            TrainingError: The model is not trained yet.
        """
        return NgramStepper(self.config, self._finished())

    def describe_graph(self) -> ModelGraph:
        """Return the computational graph for pictures. If the model is trained, the graph also
        shows the most probable n-grams.
        """
        return describe_ngram(self.config, self._trained)

    def parameter_kinds(self) -> dict[str, int]:
        """Return the number of n-grams of each length. The 1-gram bos is left out, since bos is
        never predicted.
        """
        sizes = [] if self._trained is None else _ngrams_by_order(self._trained.starts)
        return {f"{length}-grams": size for length, size in enumerate(sizes, 1)}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of the trained model. Before training, they have the same names and no
        elements.
        """
        if self._trained is None:
            specs = expect_arrays(self.config).items()
            arrays = {name: np.empty((0, *shape[1:]), dtype) for name, (dtype, shape) in specs}
        else:
            arrays = write_arrays(self._trained)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Use a trained model's tensors, without copying them.

        Raises:
            BundleError: A tensor is missing, unexpected, has another shape, or is damaged; the
                model stays unchanged.
        """
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        self._trained = read_arrays(arrays, self.config)
        self._bos_id = self._trained.bos_id
        self._counter = None

    def _common_bos_id(self, group: CountGroup) -> int:
        """Return the id that the texts of all processes begin with; raise if they differ."""
        local_id = -1 if self._counter is None or self._bos_id is None else self._bos_id
        gathered = set(group.all_gather(np.array([local_id]))[:, 0].tolist())
        ids = sorted(gathered - {-1})
        if not ids:
            raise TrainingError(
                "No text was observed, so there is nothing to count. Call observe with at least one"
                " text first."
            )
        if len(ids) > 1:
            raise TrainingError(
                f"The texts begin with the ids {_enumerate(ids)}, by process; all must begin with"
                " the same id."
            )
        return ids[0]

    def _read(
        self, ids: Int64[np.ndarray, "B T"], state: Int64[np.ndarray, "B *S"]
    ) -> tuple[Float64[np.ndarray, "B T V"], Int64[np.ndarray, "B *S"]]:
        """Return the log probability of every token after each of T >= 1 ids, and the state after
        the last id.
        """
        trained = self._finished()
        config = self.config
        if not config.field_ids:
            contexts = np.empty(ids.shape, np.int64)
            advance(trained.trie, ids, state, contexts)
            rows = log_probabilities(trained.trie, contexts.reshape(-1), config.is_distribution)
            return rows.reshape(*ids.shape, config.vocab_size), contexts[:, -1].copy()
        states = np.ascontiguousarray(state.T)
        probs = np.empty((*ids.shape, config.vocab_size))
        fill_rows(with_fields(trained, config), ids, states, probs)
        with np.errstate(divide="ignore"):  # zero becomes -inf
            return np.log(probs), np.ascontiguousarray(states.T)

    def _set_trained(
        self, nodes: Nodes, estimated: Estimate, keep: Bool[np.ndarray, " M"] | None, bos_id: int
    ) -> Mapping[str, Any]:
        """Prune and quantise the estimated nodes as configured, and make them the trained model.

        Args:
            nodes: The n-grams.
            estimated: Their probabilities and back-off weights.
            keep: Whether each n-gram is frequent enough to be kept; None if nothing is pruned.
            bos_id: The id that begins every text.

        Returns:
            The report of ``finish``.
        """
        config = self.config
        unpruned = _ngrams_by_order(nodes.starts)
        root = root_row(nodes, estimated, config.vocab_size, bos_id)
        if keep is not None:
            nodes, estimated = prune(
                nodes, estimated, root, first_node(nodes, bos_id), keep, config.prune_entropy
            )
        probabilities = estimated.probabilities
        book = None
        backoffs = estimated.backoffs
        if config.quantized:
            probabilities, book, backoffs = quantize(nodes, estimated, root)
        trie = make_trie(nodes, probabilities, backoffs, book, root)
        self._trained = Trained(trie, nodes.starts, bos_id, estimated.discounts)
        return self._facts(nodes, estimated, unpruned)

    def _counter_for(self, bos_id: int) -> NgramCounter:
        """Return the counter of texts that begin with ``bos_id``; create it at the first text.
        Raise if the first text began with another id.
        """
        if self._counter is None:
            config = self.config
            self._counter = NgramCounter(
                config.vocab_size, config.order, self._arena, config.min_texts
            )
            self._bos_id = bos_id
        if bos_id != self._bos_id:
            raise TrainingError(
                f"A text begins with id {bos_id}, those before with {self._bos_id}; all must begin"
                " with the same id."
            )
        return self._counter

    def _finished(self) -> Trained:
        """Return the trained model, or raise if there is none yet."""
        if self._trained is None:
            raise TrainingError(
                "This n-gram model is not trained yet. Call observe and finish, or load_state_dict,"
                " first."
            )
        return self._trained

    def _facts(self, nodes: Nodes, estimated: Estimate, unpruned: list[int]) -> dict[str, Any]:
        """Return the report of ``finish`` as JSON values.

        Lists of discounts and n-grams have one item for each order, from order 1 on. ``unpruned``
        is the number of n-grams of each order before pruning.
        """
        fallback_orders = [
            order for order, fell_back in enumerate(estimated.fell_back, 1) if fell_back
        ]
        ngrams = _ngrams_by_order(nodes.starts)
        size = sum(tensor.nbytes for tensor in self.state_dict().values())
        size_note = (
            f"{sum(ngrams):,} n-grams of 1 to {self.config.order} tokens in {size / 1e6:,.1f} MB."
        )
        if sum(ngrams) < sum(unpruned):
            size_note += f" Pruning dropped {sum(unpruned) - sum(ngrams):,} others."
        notes: list[str] = [Detail(size_note)]
        # it matters little if only order 1 uses the fall-back, since its counts are large
        if fallback_orders and fallback_orders != [1]:
            subject = f"Order {fallback_orders[0]} has"
            if len(fallback_orders) > 1:
                subject = f"Orders {_enumerate(fallback_orders)} have"
            replacement = f"{ABSOLUTE_FALLBACK:g}"
            if self.config.smoothing == "kneser-ney":
                values = ", ".join(f"{value:g}" for value in FALLBACK)
                replacement = f"KenLM's fall-back {values}"
            notes.append(f"{subject} no usable discounts; {replacement} is used instead.")
        if not self.config.is_distribution:
            notes.append(
                "Stupid back-off is not a distribution: the model generates, and cannot be"
                " evaluated."
            )
        return {
            "discounts": [list(values) for values in estimated.discounts],
            "fallback_orders": fallback_orders,
            "ngrams": ngrams,
            "bytes": size,
            "notes": notes,
        }


def _ngrams_by_order(starts: Int64[np.ndarray, " L"]) -> list[int]:
    """Return the number of n-grams of each order. The 1-gram bos is left out, since bos is never
    predicted.
    """
    sizes: list[int] = np.diff(starts)[1:].tolist()
    return [sizes[0] - 1, *sizes[1:]]


def _array(tensor: Int[Tensor, "..."]) -> Int64[np.ndarray, "..."]:
    """Return a copy of a tensor as an array."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array.astype(np.int64)


def _tensor(state: Int64[np.ndarray, "B *S"], like: Tensor) -> Int[Tensor, "B *S"]:
    """Return a state as a tensor on the device of another tensor."""
    return torch.from_numpy(state).to(like.device)


def _enumerate(numbers: list[int]) -> str:
    """Join two or more numbers for a sentence, as in ``1, 2 and 5``."""
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
