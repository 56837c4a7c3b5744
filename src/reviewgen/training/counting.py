"""Train a model by counting: it observes every text once, then it is finished, which turns the
counts into probabilities.

Finishing takes most of the time, and its time grows with the number of tokens. With a time budget,
both parts are timed on two samples. From this follows how many texts can be counted and finished in
the time; these are chosen evenly over the corpus.

Under ``accelerate launch``, each of P processes counts every P-th text. If the model is a
``SupportsCountRanges``, the processes then finish it together, each with a range of the counts.
Otherwise the main process merges the counts of all and finishes the model. It sends the model to
the others, so every process ends with the model that one process would have made from all texts.
Arrays are sent in pieces, so that the buffers of torch and the network stay small.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, distributed

from reviewgen.compiled.jit import clock
from reviewgen.data.tokens import Tokens
from reviewgen.errors import TrainingError
from reviewgen.interrupts import block_signals
from reviewgen.processes import Processes, connection_errors
from reviewgen.protocols.model import SupportsCountMerge
from reviewgen.protocols.ranges import SupportsCountRanges
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.report import Report, StopReason

# tokens per second, counting and finishing together, that every machine reaches; a training that
# needs no more than this is not timed on samples
_MIN_SPEED = 10_000
_WARM_UP_TOKENS = 1_000  # counted before the samples, since the first use may compile
_SAMPLE_TOKENS = 50_000  # tokens of the first sample; the second is four times as large
# only this share of the time is planned for, since larger models take a little longer per token
_SAFETY = 0.8
# each additional process adds this share of the speed of one process (measured: two processes are
# 1.5 to 1.8 times as fast as one)
_GAIN = 0.5
_PIECE_BYTES = 1 << 26  # max bytes of an array sent at once


def train_by_counting(
    model: Any, train: Tokens, seconds: float | None, evaluator: Evaluator
) -> Iterator[Report]:
    """Count every text once, then finish and evaluate the model.

    If not all texts can be counted in the given seconds, some are left out. Counting stops early if
    the time is over, if the caller stops iterating or if a process is interrupted; the model is
    then finished with the texts counted so far.

    Raises:
        KeyboardInterrupt: A process was interrupted while it counted. All processes raise it, after
            the model is finished.
        TrainingError: There are several processes, and the model's counts cannot be merged.
        ProcessLost: Another process has ended.
    """
    processes = evaluator.processes
    if processes.world_size > 1 and not isinstance(model, SupportsCountMerge | SupportsCountRanges):
        raise TrainingError(
            f"{type(model).__name__} cannot merge counts, so it trains in one process only: run it"
            " without a launcher."
        )
    tokens = 0
    counted = 0  # number of texts
    facts: Mapping[str, Any] = {}
    start = clock()
    numbers = _choose_texts(model, train, seconds, processes)
    report_every = max(1, len(numbers) // 100)
    is_broken = False
    try:
        for counted, number in enumerate(numbers.tolist(), 1):
            document = train.document(number)
            model.observe(document)
            tokens += len(document)
            if counted % report_every == 0:
                train.release_pages()
                yield Report(counted, counted / len(numbers), clock() - start, tokens)
            is_late = seconds is not None and clock() - start > seconds
            if is_late or processes.interrupted.is_set():
                break
    except Exception:
        is_broken = True
        raise
    finally:  # the model is finished even if the caller has stopped iterating
        train.release_pages()
        if not is_broken:
            totals = processes.all_gather([counted, tokens, processes.interrupted.is_set()])
            counted, tokens, interrupted = map(int, totals.sum(axis=0))
            if tokens:
                with block_signals():
                    facts = _finish(model, processes)
    if interrupted:
        yield Report(counted, counted / len(train), clock() - start, tokens)
        raise KeyboardInterrupt
    report = Report(
        step=counted,
        progress=1.0,
        seconds=0.0,
        tokens=tokens,
        notes=tuple(facts.get("notes", ())),
        stopped=StopReason.ALL_TEXTS_COUNTED if counted == len(train) else StopReason.BUDGET_SPENT,
    )
    yield replace(evaluator.evaluate(model, report), seconds=clock() - start)


def _choose_texts(
    model: Any, train: Tokens, seconds: float | None, processes: Processes
) -> Int64[np.ndarray, " N"]:
    """Return the numbers of the texts that this process counts: of P processes, each takes every
    P-th text, or only some of these if the time is short.
    """
    numbers = np.arange(processes.rank, len(train), processes.world_size)
    if seconds is None:
        return numbers
    # without count ranges, the first process finishes the model alone
    gain = _GAIN if isinstance(model, SupportsCountRanges) else 0.0
    speedup = 1 + gain * (processes.world_size - 1)
    return _spread(numbers, _countable_share(model, train, seconds, speedup))


def _countable_share(model: Any, train: Tokens, seconds: float, speedup: float) -> float:
    """Estimate which share of the texts can be counted and finished in a given time (at most 1).

    Args:
        model: The model. It is not changed: new models with its settings are timed on samples.
        train: The texts.
        seconds: The time.
        speedup: The speed of all processes together, relative to that of this one.
    """
    if train.count <= max(4 * _SAMPLE_TOKENS, _MIN_SPEED * seconds):
        return 1.0
    start = clock()
    _time_sample(model, train, _WARM_UP_TOKENS)
    sample_seconds = _time_sample(model, train, _SAMPLE_TOKENS)
    sample_share = _SAMPLE_TOKENS / train.count
    if sample_seconds > seconds / 8:  # there is no time for the second sample
        return sample_share
    # the second sample has four times as many tokens
    added_seconds = _time_sample(model, train, 4 * _SAMPLE_TOKENS) - sample_seconds
    seconds_per_token = added_seconds / (3 * _SAMPLE_TOKENS)  # without what each sample takes once
    seconds_for_all = seconds_per_token * train.count / speedup
    time_left = _SAFETY * (seconds - (clock() - start))
    return 1.0 if seconds_for_all <= time_left else max(sample_share, time_left / seconds_for_all)


def _time_sample(model: Any, train: Tokens, tokens: int) -> float:
    """Return the seconds that a new model with the same settings takes to count and finish a sample
    of about ``tokens`` tokens.
    """
    start = clock()
    new_model = type(model)(model.config)
    for number in _spread(np.arange(len(train)), tokens / train.count).tolist():
        new_model.observe(train.document(number))
    new_model.finish()
    return clock() - start


def _spread(numbers: np.ndarray, share: float) -> np.ndarray:
    """Return an evenly spread share of the numbers: at least one, unless there are none; all if the
    share is 1 or more.
    """
    if not len(numbers):
        return numbers
    count = min(len(numbers), max(1, round(share * len(numbers))))
    indexes = np.linspace(0, len(numbers) - 1, count).round().astype(int)
    return np.asarray(numbers[indexes])


def _finish(model: Any, processes: Processes) -> Mapping[str, Any]:
    """Finish the model from the counts of all processes, and send it to all of them.

    Returns:
        The facts that finishing the model returns; empty in other processes if only the main
        process finishes it.
    """
    group = GlooGroup(processes)
    other_ranks = range(1, processes.world_size)
    if other_ranks and isinstance(model, SupportsCountRanges):
        facts = model.finish_ranges(group)
    elif processes.rank:
        facts = {}
        group.send(model.take_counts(), 0)
    else:
        for source in other_ranks:
            model.add_counts(group.receive(source))
        facts = model.finish()
    if processes.rank:
        model.load_state_dict(group.receive(0))
        return facts
    # the main process sends the finished model to the others
    for target in other_ranks:
        group.send(model.state_dict(), target)
    return facts


class GlooGroup:
    """A ``CountGroup`` that exchanges arrays in main memory, by torch's Gloo backend.

    All methods raise ProcessLost if another process has ended.
    """

    def __init__(self, processes: Processes) -> None:
        self.rank = processes.rank
        self.world_size = processes.world_size
        self._group = processes.group
        self._processes = processes

    def all_gather(self, numbers: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, "P N"]:
        """Gather N numbers from each of P processes; return them in every process."""
        return np.stack(self._processes.all_gather_object(numbers))

    @connection_errors()
    def all_to_all(
        self, parts: Sequence[Shaped[np.ndarray, "..."]]
    ) -> list[Shaped[np.ndarray, "..."]]:
        """Send ``parts[r]`` to rank r; return the arrays that this process received, in order of
        rank.
        """
        # row r has the sizes that rank r sends, and column r those that rank r receives
        sizes = self.all_gather(np.array([len(part) for part in parts]))[:, self.rank].tolist()
        received = [np.empty((size, *parts[0].shape[1:]), parts[0].dtype) for size in sizes]
        received[self.rank] = parts[self.rank]
        # in each round, every rank sends to one other rank, and receives from one other rank
        for shift in range(1, self.world_size):
            target = (self.rank + shift) % self.world_size
            source = (self.rank - shift) % self.world_size
            works = [
                distributed.isend(piece, target, self._group) for piece in _pieces(parts[target])
            ]
            works += [
                distributed.irecv(piece, source, self._group) for piece in _pieces(received[source])
            ]
            for work in works:
                if work is not None:  # isend returns None to a process outside the group
                    work.wait()
        return received

    @connection_errors()
    def all_gather_into(
        self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]
    ) -> None:
        """Write the parts of all ranks to ``whole``, in order of rank, in every process."""
        self.gather_into(whole, part)
        for piece in _pieces(whole):
            distributed.broadcast(piece, 0, self._group)

    @connection_errors()
    def gather_into(self, whole: Shaped[np.ndarray, " N"], part: Shaped[np.ndarray, " M"]) -> None:
        """Write the parts of all ranks to ``whole``, in order of rank, in rank 0 only."""
        ends = np.cumsum(self.all_gather(np.array([len(part)]))[:, 0]).tolist()
        if self.rank:
            for piece in _pieces(np.ascontiguousarray(part)):
                distributed.send(piece, 0, self._group)
            return
        whole[: len(part)] = part  # part may already be a view of this slice
        # the slices of the other ranks follow that of rank 0
        for source, (start, stop) in enumerate(pairwise(ends), 1):
            for piece in _pieces(whole[start:stop]):
                distributed.recv(piece, source, self._group)

    @connection_errors()
    def reduce_scatter(
        self, array: Shaped[np.ndarray, " N"], sizes: Int64[np.ndarray, " P"]
    ) -> None:
        """Sum an array over the processes, in place. Rank r gets the sums of its own slice only.

        ``sizes`` holds the length of the slice of each rank.
        """
        piece_length = _PIECE_BYTES // array.itemsize
        edges = np.cumsum([0, *sizes]).tolist()
        for target, (start, stop) in enumerate(pairwise(edges)):
            for first in range(start, stop, piece_length):
                piece = torch.from_numpy(array[first : min(stop, first + piece_length)])
                distributed.reduce(piece, target, group=self._group)

    @connection_errors()
    def send(self, tensors: Mapping[str, Tensor], target: int) -> None:
        """Send named tensors to another process: first a header with their names, dtypes and
        shapes, then the bytes of each.
        """
        header = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
        distributed.send_object_list([header], target, self._group)
        for tensor in tensors.values():
            if tensor.numel():
                distributed.send(
                    tensor.contiguous().view(-1).view(torch.uint8), target, self._group
                )

    @connection_errors()
    def receive(self, source: int) -> dict[str, Tensor]:
        """Receive the named tensors that the process ``source`` sends."""
        header: list[Any] = [None]
        distributed.recv_object_list(header, source, self._group)
        tensors = {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in header[0]}
        for tensor in tensors.values():
            if tensor.numel():
                distributed.recv(tensor.view(-1).view(torch.uint8), source, self._group)
        return tensors


def _pieces(array: Shaped[np.ndarray, "..."]) -> Iterator[Tensor]:
    """Yield the bytes of an array in pieces, as tensors that share the array's memory."""
    if array.size:
        yield from torch.split(torch.from_numpy(array.reshape(-1).view(np.uint8)), _PIECE_BYTES)
