"""The settings of a blend: the mixture weights, and each part's entry as in config.json. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import numpy as np
from jaxtyping import Float64

from reviewgen.blending.gate import check_gate
from reviewgen.config import VOCABULARY_FIELDS, Bound, check, to_dict
from reviewgen.errors import BundleError, ConfigError, quoted
from reviewgen.registry import Plugin

T = TypeVar("T")
_KEYS = {"name": str, "distribution": str, "version": str, "config": dict}
_SPECIAL_IDS = VOCABULARY_FIELDS[1:]  # that a part's config may have
_ROUNDING = 1e-6  # tolerance of the sum of the weights


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """The settings of a blend.

    Attributes:
        vocab_size: The number of token ids, V, of the blend and of every part.
        weights: The mixture weight of each part; they sum to one. With a gate, those that the gate starts from.
        gate: How the weights depend on the context: ``{"coefficients": [...]}``, a list of numbers for each part, as in
            ``reviewgen.blending.gate``; empty for fixed weights.
        models: Each part as in config.json: the ``name`` of its plugin, its ``distribution``, ``version`` and ``config``.

    Raises:
        ConfigError: There are fewer than two parts, a part is not such an object or has another vocabulary size or other special
            ids, or there is not one weight per part, the weights do not sum to one, or the gate has another form.
    """

    vocab_size: Annotated[int, Bound(at_least=1)]
    weights: tuple[Annotated[float, Bound(at_least=0)], ...] = ()
    gate: dict[str, Any] = field(default_factory=dict)
    models: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if len(self.models) < 2:
            raise ConfigError(
                "A blend is not trained but made of at least two trained models: reviewgen.blend([a, b]), or "
                "reviewgen blend MODEL_A MODEL_B --out DIR."
            )
        for number, part in enumerate(self.models):
            if {key: type(value) for key, value in part.items()} != _KEYS:
                raise ConfigError(f"Model {number} of the blend should have the keys {', '.join(_KEYS)}; got {quoted(part)}.")
            if part["config"].get("vocab_size") != self.vocab_size:
                raise ConfigError(
                    f"Model {number} of the blend ({part['name']}) has {part['config'].get('vocab_size')} token ids, but the "
                    f"blend has {self.vocab_size}; all models of a blend must share one vocabulary."
                )
        for name in _SPECIAL_IDS:
            if len(ids := self._ids_of_parts(name)) > 1:
                raise ConfigError(
                    f"The models of a blend have the {name}s {' and '.join(map(str, ids))}; all models of a blend must share one "
                    "tokenizer."
                )
        if len(self.weights) != len(self.models):
            raise ConfigError(f"A blend of {len(self.models)} models needs {len(self.models)} weights; got {len(self.weights)}.")
        if abs(sum(self.weights) - 1) > _ROUNDING:
            raise ConfigError(f"The weights of a blend must sum to one; got {', '.join(map(str, self.weights))}.")
        if self.gate:
            check_gate(self.gate, len(self.models))

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-text id of the parts; None if no part has one in its config."""
        return next(iter(self._ids_of_parts("bos_id")), None)

    @property
    def eos_id(self) -> int | None:
        """The end-of-text id of the parts; None if no part has one in its config."""
        return next(iter(self._ids_of_parts("eos_id")), None)

    def _ids_of_parts(self, name: str) -> list[int]:
        """Return the values of a special id in the configs of the parts, each once."""
        return list(dict.fromkeys(part["config"][name] for part in self.models if name in part["config"]))

    @property
    def coefficients(self) -> Float64[np.ndarray, "M F"]:
        """The coefficients of the gate; without columns for fixed weights."""
        return np.array(self.gate.get("coefficients", [[]] * len(self.models)), np.float64)


def describe_part(plugin: Plugin, config: Any) -> dict[str, Any]:
    """Return a model's entry for ``BlendConfig.models``."""
    json_values = json.loads(json.dumps(to_dict(config)))
    return {"name": plugin.name, "distribution": plugin.package, "version": plugin.version, "config": json_values}


def join_names(parts: list[Mapping[str, T]]) -> dict[str, T]:
    """Merge the named tensors of the parts into one mapping, with the part's number as prefix.

    >>> join_names([{"weight": 1}, {"weight": 2}])
    {'0.weight': 1, '1.weight': 2}
    """
    return {f"{number}.{name}": value for number, part in enumerate(parts) for name, value in part.items()}


def split_names(named: Mapping[str, T], parts: int) -> list[dict[str, T]]:
    """Return one mapping per part; the inverse of ``join_names``.

    Raises:
        BundleError: A name does not start with the number of a part.
    """
    split: list[dict[str, T]] = [{} for _ in range(parts)]
    for name, value in named.items():
        number, dot, short_name = name.partition(".")
        if not (dot and number in map(str, range(parts))):
            raise BundleError(f"The tensor {quoted(name)} belongs to none of the {parts} models of the blend.")
        split[int(number)][short_name] = value
    return split
