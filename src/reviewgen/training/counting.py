"""Training by counting: every text is observed once, then the counts become probabilities.

Most of the time goes into the second part, and grows with the number of tokens. With a deadline, both are timed on two samples,
and as many texts are counted, spread over the corpus, as can be made into a model in the time.

Under ``accelerate launch`` each of P processes counts every P-th text. Then they finish the model together, each with a range of
the counts, if it can (``SupportsCountRanges``); else the main process merges the counts of all. It sends the model to the others,
so every process ends with the model that one process would have made from all texts.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.protocols import SupportsCountMerge, SupportsCountRanges
from reviewgen.training.config import Report, StopReason
from reviewgen.training.connections import connection_errors, new_group, process_state
from reviewgen.training.count_group import Attendance, GlooGroup
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.interrupts import Interrupts, deferred, uninterrupted

_MIN_SPEED = 10_000  # tokens per second, counted and made into a model, of the slowest machine: no sample is needed to know
_WARM_UP_TOKENS = 1_000  # counted before, since the first use compiles
_SAMPLE_TOKENS = 50_000  # of the first sample; the second is four times as large
_SAFETY = 0.8  # larger models take a little longer per token
_GAIN = 0.5  # of a further process that counts a range: two were 1.5 to 1.8 times as fast as one


def train_by_counting(model: Any, train: TokenStore, deadline: float | None, evaluator: Evaluator) -> Iterator[Report]:
    """Count every text once, then finish and evaluate the model.

    If not all texts can be counted before the deadline, some are left out. If it passes, the caller stops iterating or a process
    is interrupted, the model is finished with the texts counted so far.

    Raises:
        KeyboardInterrupt: A process was interrupted while it counted; all raise it, when the model is finished.
        TrainingError: There are several processes, and the model's counts cannot be merged.
        ProcessLost: Another process has ended.
    """
    state = process_state()
    is_distributed = state.num_processes > 1
    if is_distributed and not isinstance(model, SupportsCountMerge | SupportsCountRanges):
        raise TrainingError(
            f"{type(model).__name__} cannot merge counts, so it trains in one process only: run it without a launcher."
        )
    start, tokens, texts, interrupts = time.monotonic(), 0, 0, Interrupts()
    facts: Mapping[str, Any] = {}
    is_broken = False
    with deferred(interrupts) if is_distributed else nullcontext():  # so that no exchange is left in the middle
        group = new_group() if is_distributed else None  # counts are in main memory
        attendance = Attendance(group, interrupts) if is_distributed else None
        own = _own_texts(model, train, deadline, state)
        report_every = max(1, len(own) // 100)
        try:
            for texts, number in enumerate(own.tolist(), 1):
                document = train.document(number)
                model.observe(document)
                tokens += len(document)
                if attendance is not None:
                    attendance.check()
                if texts % report_every == 0:
                    train.release_pages()
                    yield Report(texts, texts / len(own), time.monotonic() - start, tokens)
                if interrupts.arrived or (deadline is not None and time.monotonic() > deadline):
                    break
        except Exception:
            is_broken = True
            raise
        finally:
            train.release_pages()
            if not is_broken and attendance is not None:
                attendance.wait()
                texts, tokens = _sum_over_processes(texts, tokens, group)
                facts = _merge_and_finish(model, state, group)
            elif not is_broken and tokens:
                with uninterrupted():
                    facts = model.finish()
        if interrupts.arrived:
            yield Report(texts, texts / len(train), time.monotonic() - start, tokens)
    result = evaluator.evaluate(model)
    yield Report(
        step=texts,
        progress=1.0,
        seconds=time.monotonic() - start,
        tokens=tokens,
        **vars(result),
        evaluation_seconds=evaluator.total_seconds,
        notes=(*facts.get("notes", ()), *evaluator.metrics.pop_notes(), *evaluator.notes()),
        stopped=StopReason.ALL_TEXTS_COUNTED if texts == len(train) else StopReason.BUDGET_SPENT,
    )


def _own_texts(model: Any, train: TokenStore, deadline: float | None, state: Any) -> np.ndarray:
    """Return the numbers of the texts that this process counts."""
    own = np.arange(state.process_index, len(train), state.num_processes)
    if deadline is None:
        return own
    gain = _GAIN if isinstance(model, SupportsCountRanges) else 0.0  # else the first process does most of the work
    return _spread(own, _countable_share(model, train, deadline, 1 + gain * (state.num_processes - 1)))


def _countable_share(model: Any, train: TokenStore, deadline: float, speedup: float) -> float:
    """Return the share of the texts, at most 1, that can be counted and made into a model until the deadline.

    Args:
        model: The model; others of its settings are made from samples.
        train: The texts.
        deadline: Of ``time.monotonic``.
        speedup: How many times as fast as this process all processes are together.
    """
    left = deadline - time.monotonic()
    if left <= 0 or train.tokens <= max(4 * _SAMPLE_TOKENS, _MIN_SPEED * left):
        return 1.0
    _time_sample(model, train, _WARM_UP_TOKENS)
    first = _time_sample(model, train, _SAMPLE_TOKENS)
    if first > left / 8:  # there is no time for the second
        return _SAMPLE_TOKENS / train.tokens
    second = _time_sample(model, train, 4 * _SAMPLE_TOKENS)
    seconds = (second - first) / (3 * _SAMPLE_TOKENS) * train.tokens / speedup  # of all texts
    left = _SAFETY * (deadline - time.monotonic())
    return 1.0 if seconds <= left else max(_SAMPLE_TOKENS / train.tokens, left / seconds)


def _time_sample(model: Any, train: TokenStore, tokens: int) -> float:
    """Return the seconds that another model of the same settings takes for a sample of the texts."""
    start, other = time.monotonic(), type(model)(model.config)
    for number in _spread(np.arange(len(train)), min(1.0, tokens / train.tokens)).tolist():
        other.observe(train.document(number))
    other.finish()
    return time.monotonic() - start


def _spread(numbers: np.ndarray, share: float) -> np.ndarray:
    """Return a share of the numbers of texts, evenly spread; at least one, if there are any."""
    count = min(len(numbers), max(1, round(share * len(numbers))))
    return numbers[np.linspace(0, len(numbers) - 1, count).round().astype(int)] if len(numbers) else numbers


def _merge_and_finish(model: Any, state: Any, group: Any) -> Mapping[str, Any]:
    """Finish the model in the main process, from the counts of all, and send it to every other process."""
    if isinstance(model, SupportsCountRanges):
        facts = model.finish_ranges(GlooGroup(state.process_index, state.num_processes, group))
    else:
        facts = _merge(model, state, group)
    if state.is_main_process:
        for target in range(1, state.num_processes):
            _send(model.state_dict(), target, group)
    else:
        model.load_state_dict(_receive(0, group))
    return facts


def _merge(model: Any, state: Any, group: Any) -> Mapping[str, Any]:
    """Merge all counts in the main process, and finish the model there."""
    if not state.is_main_process:
        _send(model.take_counts(), 0, group)
        return {}
    for source in range(1, state.num_processes):
        model.add_counts(_receive(source, group))
    facts: Mapping[str, Any] = model.finish()
    return facts


@connection_errors()
def _sum_over_processes(texts: int, tokens: int, group: Any) -> tuple[int, int]:
    """Return the numbers of texts and tokens that all processes have counted."""
    totals = torch.tensor([texts, tokens])
    distributed.all_reduce(totals, group=group)
    return int(totals[0]), int(totals[1])


@connection_errors()
def _send(tensors: Mapping[str, Tensor], target: int, group: Any) -> None:
    """Send named tensors to another process: first their names, dtypes and shapes, then each as bytes."""
    header = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    distributed.send_object_list([header], target, group)
    for tensor in tensors.values():
        if tensor.numel():
            distributed.send(tensor.contiguous().view(-1).view(torch.uint8), target, group)


@connection_errors()
def _receive(source: int, group: Any) -> dict[str, Tensor]:
    """Receive the named tensors that ``_send`` sent from another process."""
    header: list[Any] = [None]
    distributed.recv_object_list(header, source, group)
    tensors = {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in header[0]}
    for tensor in tensors.values():
        if tensor.numel():
            distributed.recv(tensor.view(-1).view(torch.uint8), source, group)
    return tensors
