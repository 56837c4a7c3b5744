"""The settings of ``ngram``. Imports neither torch nor numba."""

from dataclasses import dataclass
from typing import Annotated, Literal

from reviewgen.config import Bound, check
from reviewgen.errors import ConfigError

__all__ = ["NgramConfig"]


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """``order`` tokens make an n-gram, the predicted one included: order 6 looks back five tokens."""

    vocab_size: Annotated[int, Bound(at_least=1)]
    order: Annotated[int, Bound(at_least=1, at_most=64)] = 6
    smoothing: Literal["kneser-ney", "absolute", "witten-bell", "stupid-backoff", "none"] = "kneser-ney"
    min_count: Annotated[int, Bound(at_least=1)] = 1  # n-grams of two tokens and more that occur less often are dropped
    prune_entropy: Annotated[float, Bound(at_least=0, below=1)] = 0.0  # dropped: costs less, as a relative rise in perplexity
    quantized: bool = False  # probabilities in 8 bits
    memory_mb: Annotated[int, Bound(at_least=0)] = 0  # MiB that counting may take before it goes to disk; 0 sets no limit

    def __post_init__(self) -> None:
        check(self)
        if self.smoothing in ("none", "stupid-backoff") and (self.prune_entropy or self.quantized):
            raise ConfigError(
                f"smoothing={self.smoothing!r} has no back-off weights that could make up for what prune_entropy and quantized "
                "take away. Choose kneser-ney, absolute or witten-bell."
            )

    @property
    def is_distribution(self) -> bool:
        """Whether the probabilities of a context sum to one."""
        return self.smoothing != "stupid-backoff"
