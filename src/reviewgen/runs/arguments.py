"""What the caller of a training run may say: budgets, seeds and settings, checked before any work."""

from collections.abc import Mapping
from typing import Any

from reviewgen.config import from_strings, parse_duration
from reviewgen.errors import ConfigError
from reviewgen.training import Budget

__all__ = ["check_seed", "merge_settings", "parse_budget"]

DEFAULT_BUDGET = "2m"
MOST = 1_000_000_000  # steps or epochs


def parse_budget(budget: str | float | None, steps: int | None, epochs: float | None) -> tuple[float | None, Budget]:
    """Return the seconds of a time budget, if it is one, and the budget."""
    if sum(value is not None for value in (budget, steps, epochs)) > 1:
        raise ConfigError("Give one of budget, steps and epochs.")
    for name, value, kinds in (("steps", steps, int), ("epochs", epochs, int | float)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < MOST):
            raise ConfigError(f"{name} must be a number above 0 and below {MOST:,}; got {value!r}.")
    if steps is None and epochs is None:
        return parse_duration(DEFAULT_BUDGET if budget is None else budget), Budget()
    return None, Budget(steps=steps, epochs=epochs)


def check_seed(seed: int) -> int:
    """Return the seed, if it is one."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed must be a whole number of at least 0; got {seed!r}.")
    return seed


def merge_settings(config: type, preset: Mapping[str, Any], own: Mapping[str, Any] | None, group: str) -> dict[str, Any]:
    """Return a preset's settings, overlaid with the user's, which may be strings."""
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        raise ConfigError(f"{group} settings are a mapping, as in {{'hidden_size': 256}}; got {type(own).__name__}.")
    if group == "model" and "vocab_size" in own:
        raise ConfigError("model.vocab_size is the tokenizer's: set tokenizer.vocab_size where the tokenizer has one.")
    try:
        return dict(preset) | from_strings(config, own)
    except ConfigError as error:
        raise ConfigError(f"{group}: {error}") from None
