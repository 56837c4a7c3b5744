"""The counting loop: every text once, then probabilities.

Under ``accelerate launch`` each of P processes counts every P-th text. The first gathers what the others have counted, finishes
the model and hands it to them, so that all go on with the model of one process that saw every text.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from reviewgen.data import TokenStore
from reviewgen.errors import TrainingError
from reviewgen.protocols import SupportsCountMerge
from reviewgen.training.config import Report, StopReason
from reviewgen.training.device import process_state
from reviewgen.training.evaluator import Evaluator
from reviewgen.training.interrupts import uninterrupted
from reviewgen.training.processes import PATIENCE, peers

__all__ = ["count"]


def count(model: Any, train: TokenStore, deadline: float | None, evaluator: Evaluator) -> Iterator[Report]:
    """Count every text once, then finish and evaluate; a count that is cut short finishes with what it has seen.

    Raises:
        TrainingError: There are several processes, and the model's counts cannot be merged.
        ProcessLost: Another process has ended.
    """
    place = process_state()
    several = place.num_processes > 1
    if several and not isinstance(model, SupportsCountMerge):
        raise TrainingError(
            f"{type(model).__name__} cannot merge counts, so it is trained by one process: do without a launcher."
        )
    group = distributed.new_group(backend="gloo", timeout=PATIENCE) if several else None  # counts lie in main memory
    start, seen, texts = time.monotonic(), 0, 0
    own = range(place.process_index, len(train), place.num_processes)
    every = max(1, len(own) // 100)
    facts: Mapping[str, Any] = {}
    try:
        for texts, number in enumerate(own, 1):
            document = train.document(number)
            model.observe(document)
            seen += len(document)
            if texts % every == 0:
                train.release_pages()
                yield Report(texts, texts / len(own), time.monotonic() - start, seen)
            if deadline is not None and time.monotonic() > deadline:
                break
    finally:
        with uninterrupted():
            if several:
                facts = _finish_together(model, place, group)
                texts, seen = _add_up(texts, seen, group)
            elif seen:
                facts = model.finish()
        train.release_pages()
    verdict = evaluator.evaluate(model)
    yield Report(
        step=texts,
        progress=1.0,
        seconds=time.monotonic() - start,
        tokens=seen,
        **vars(verdict),
        notes=(*facts.get("notes", ()), *evaluator.notes()),
        stopped=StopReason.ALL_TEXTS_COUNTED if texts == len(train) else StopReason.BUDGET_SPENT,
    )


def _finish_together(model: Any, place: Any, group: Any) -> Mapping[str, Any]:
    """Merge the counts of all processes in the first, finish there, and give every process the finished model."""
    facts: Mapping[str, Any] = {}
    if place.is_main_process:
        for source in range(1, place.num_processes):
            model.add_counts(_receive(source, group))
        facts = model.finish()
        for target in range(1, place.num_processes):
            _send(model.state_dict(), target, group)
    else:
        _send(model.take_counts(), 0, group)
        model.load_state_dict(_receive(0, group))
    return facts


@peers()
def _add_up(texts: int, seen: int, group: Any) -> tuple[int, int]:
    """Return the texts and tokens that all processes have seen."""
    numbers = torch.tensor([texts, seen])
    distributed.all_reduce(numbers, group=group)
    return int(numbers[0]), int(numbers[1])


@peers()
def _send(tensors: Mapping[str, Tensor], target: int, group: Any) -> None:
    """Send named tensors to another process: their form, then each as bytes."""
    form = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    distributed.send_object_list([form], target, group)
    for tensor in tensors.values():
        if tensor.numel():
            distributed.send(tensor.contiguous().view(-1).view(torch.uint8), target, group)


@peers()
def _receive(source: int, group: Any) -> dict[str, Tensor]:
    form: list[Any] = [None]
    distributed.recv_object_list(form, source, group)
    tensors = {name: torch.empty(shape, dtype=dtype) for name, dtype, shape in form[0]}
    for tensor in tensors.values():
        if tensor.numel():
            distributed.recv(tensor.view(-1).view(torch.uint8), source, group)
    return tensors
