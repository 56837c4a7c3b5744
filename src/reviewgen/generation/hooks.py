"""Objects that are called at every token: logits processors, stopping criteria and streamers, those of transformers unchanged.

They get torch tensors of one row each: ids (1, T), all tokens so far with bos first, and scores (1, V), float32.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from reviewgen.errors import ConfigError, GenerationError, counted, quoted
from reviewgen.generation.processors import Processor
from reviewgen.generation.rows import Row
from reviewgen.protocols import Tokenizer


@dataclass(frozen=True)
class Hooks:
    """Objects that are called at every token.

    Attributes:
        processors: The logits processors, in the order of their calls; -inf rules a token out.
        criteria: Each takes ids and scores, and returns whether the text ends here.
        streamer: Has ``put(ids)``, called with the prompt and then with each new token, and ``end()``.
    """

    processors: Sequence[Processor]
    criteria: Sequence[Callable[[Any, Any], Any]]
    streamer: Any = None

    def process(self, ids: Sequence[int], scores: Float[np.ndarray, " V"]) -> Float[np.ndarray, " V"]:
        """Return the scores of the token after some ids, bos first, after the logits processors.

        Raises:
            GenerationError: They rule out every token, or one of them fails, or returns something else than scores.
        """
        if not self.processors:
            return scores
        import torch

        table = torch.from_numpy(scores.astype(np.float32))[None]
        for processor in self.processors:
            table = _call(processor, torch.tensor([list(ids)]), table)
        processed: np.ndarray = table[0].double().cpu().numpy()
        if not (processed > -np.inf).any():
            raise GenerationError(
                f"The logits processors rule out every token after {counted(len(ids) - 1, 'token')}, so none can be drawn."
            )
        return processed

    def should_stop(self, row: Row, scores: Float64[np.ndarray, " V"]) -> bool:
        """Return whether a stopping criterion ends a row, to which a token was just appended.

        Raises:
            GenerationError: One of them returns neither a bool nor a tensor.
        """
        if not self.criteria:
            return False
        import torch

        table, ids = torch.from_numpy(scores.astype(np.float32))[None], self._ids(row)
        for criterion in self.criteria:
            stops = criterion(ids, table)
            if not isinstance(stops, bool | np.bool_ | torch.Tensor):
                raise GenerationError(
                    f"{_name(criterion)} should return whether the text ends here; it returned {quoted(stops)}."
                )
            if bool(torch.as_tensor(stops).all()):
                return True
        return False

    def begin(self, rows: Sequence[Row], tokenizer: Tokenizer) -> None:
        """Put the whole prompts, as the tokenizer encodes them, into the streamer."""
        if self.streamer is None:
            return
        import torch

        for row in rows:
            self.streamer.put(torch.tensor([[*row.prefix, *row.ids, *tokenizer.encode(row.rest)]]))

    def put(self, tokens: Sequence[int]) -> None:
        """Put tokens into the streamer, one by one."""
        if self.streamer is None:
            return
        import torch

        for token in tokens:
            self.streamer.put(torch.tensor([token]))

    def end(self) -> None:
        """End the streamer: the text is complete."""
        if self.streamer is not None:
            self.streamer.end()

    def _ids(self, row: Row) -> Any:
        import torch

        return torch.tensor([[*row.prefix, *row.ids]])


def make_hooks(processors: Sequence[Processor] = (), stopping_criteria: Any = None, streamer: Any = None) -> Hooks | None:
    """Return the hooks of a call; None if there are none.

    Raises:
        ConfigError: A criterion is not callable, or the streamer lacks a method.
    """
    criteria = _callables("stopping_criteria", stopping_criteria)
    if streamer is not None and not (callable(getattr(streamer, "put", None)) and callable(getattr(streamer, "end", None))):
        raise ConfigError(f"streamer needs the methods put and end, as transformers' have; got {type(streamer).__name__}.")
    return Hooks(processors, criteria, streamer) if processors or criteria or streamer is not None else None


def _call(processor: Processor, ids: Any, table: Any) -> Any:
    """Return the scores (1, V) that a processor makes of others.

    Raises:
        GenerationError: It returns something else; or it is a plugin and raises. An error of the caller's own function is not
            caught.
    """
    import torch

    shape = tuple(table.shape)
    try:
        processed = processor.call(ids, table)
    except Exception as error:
        if processor.plugin is None:
            raise
        raise GenerationError(
            f"{processor.name} has failed after {ids.shape[1] - 1} tokens: {type(error).__name__}: {error!s:.200}"
        ) from error
    if not isinstance(processed, torch.Tensor) or tuple(processed.shape) != shape:
        got = tuple(processed.shape) if isinstance(processed, torch.Tensor) else type(processed).__name__
        raise GenerationError(f"{processor.name} should return scores of shape {shape}; it returned {got}.")
    if not (processed < torch.inf).all():
        raise GenerationError(f"{processor.name} returns scores that are not numbers (NaN or plus infinity).")
    return processed


def _callables(name: str, given: Any) -> list[Callable[[Any, Any], Any]]:
    """Return one callable or a list of them as a list; transformers' own lists are both."""
    callables = list(given) if isinstance(given, Iterable) else [] if given is None else [given]
    if not all(callable(one) for one in callables):
        raise ConfigError(f"{name} is a function of ids and scores, or a list of such functions; got {quoted(given)}.")
    return callables


def _name(criterion: Any) -> str:
    return getattr(criterion, "__name__", type(criterion).__name__)
