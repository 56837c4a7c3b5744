"""What a blend is made of, as JSON values: weights, and for each part what config.json says of a model. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from reviewgen.config import Bound, check, to_dict
from reviewgen.errors import BundleError, ConfigError
from reviewgen.registry import Plugin

__all__ = ["BlendConfig", "describe_part", "join_names", "split_names"]

T = TypeVar("T")
_KEYS = {"name": str, "distribution": str, "version": str, "config": dict}
_ROUNDING = 1e-6  # how far from one the weights may sum


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """The settings of a blend.

    Attributes:
        vocab_size: The number of token ids, V, that of every part.
        weights: Each part's share of the probability; they sum to one.
        models: Each part as config.json has a model: ``name`` of its plugin, ``distribution``, ``version``, ``config``.

    Raises:
        ConfigError: There are fewer than two parts, one of them is no such object or has another vocabulary, or the weights
            are not one a part, or do not sum to one.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]
    weights: tuple[Annotated[float, Bound(at_least=0)], ...] = ()
    models: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if len(self.models) < 2:
            raise ConfigError(
                "A blend is not trained, it is made of at least two trained models: reviewgen.blend([a, b]), or "
                "reviewgen blend MODEL_A MODEL_B --out DIR."
            )
        for number, part in enumerate(self.models):
            if {key: type(value) for key, value in part.items()} != _KEYS:
                raise ConfigError(f"Model {number} of the blend should have the keys {', '.join(_KEYS)}; got {part!r}.")
            if part["config"].get("vocab_size") != self.vocab_size:
                raise ConfigError(
                    f"Model {number} of the blend ({part['name']}) has {part['config'].get('vocab_size')} tokens, the blend "
                    f"{self.vocab_size}: they do not belong together."
                )
        if len(self.weights) != len(self.models):
            raise ConfigError(f"A blend of {len(self.models)} models needs as many weights; got {len(self.weights)}.")
        if abs(sum(self.weights) - 1) > _ROUNDING:
            raise ConfigError(f"The weights of a blend must sum to one; got {', '.join(map(str, self.weights))}.")


def describe_part(plugin: Plugin, config: Any) -> dict[str, Any]:
    """Return a model's plugin and config as they stand in ``BlendConfig.models``."""
    plain = json.loads(json.dumps(to_dict(config)))
    return {"name": plugin.name, "distribution": plugin.package, "version": plugin.version, "config": plain}


def join_names(parts: list[Mapping[str, T]]) -> dict[str, T]:
    """Return what is named in each part under one name for all: ``weight`` of part 0 is ``0.weight``."""
    return {f"{number}.{name}": value for number, part in enumerate(parts) for name, value in part.items()}


def split_names(named: Mapping[str, T], parts: int) -> list[dict[str, T]]:
    """Undo ``join_names``.

    Raises:
        BundleError: A name is of no part.
    """
    split: list[dict[str, T]] = [{} for _ in range(parts)]
    for name, value in named.items():
        number, dot, own = name.partition(".")
        if not (dot and number in map(str, range(parts))):
            raise BundleError(f"{name!r} belongs to none of the {parts} models of the blend.")
        split[int(number)][own] = value
    return split
