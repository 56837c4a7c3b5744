"""The settings of a blend: the mixture weights, and the entry of each component in config.json.
Also the presets of blends. No torch.

Each preset blends an LSTM with a model of counts that has the same tokenizer: a mixing model over
characters, an n-gram over words. The two make different errors: counts reproduce names and phrases
that were seen once; an LSTM uses context further back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from jaxtyping import Float64

from reviewgen.blending.weights import check_gate
from reviewgen.config.generation import CHAR_GENERATION, WORD_GENERATION, Preset
from reviewgen.config.settings import GIVEN_IDS, VOCABULARY_FIELDS, Bound, PositiveInt, check
from reviewgen.errors import BundleError, ConfigError, quoted
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.saved import saved_facts

if TYPE_CHECKING:
    from reviewgen.blending.characters import TokenCharacters

T = TypeVar("T")
WEB_STEPPER = Path(__file__).with_name("web_stepper.js")
# the keys of a component's entry in config.json, and the types of their values
_KEYS = {"name": str, "distribution": str, "version": str, "config": dict}
_ROUNDING = 1e-6  # tolerance of the sum of the weights


@dataclass(frozen=True, kw_only=True)
class BlendConfig:
    """The settings of a blend.

    Attributes:
        vocab_size: The number of token ids, V, of the blend and of every component.
        weights: The mixture weight of each component; they sum to one. With a gate, the gate
            multiplies these weights. 0 for a last component that mixes the others.
        gate: How the weights depend on the context: ``{"coefficients": [...]}``, a list of numbers
            for each averaged component, as in ``reviewgen.blending.weights``; empty for fixed
            weights.
        models: The entry of each component in config.json: the ``name`` of its plugin, its
            ``distribution``, ``version`` and ``config``. If a component has other tokens than the
            blend, its entry also has ``characters``: how its tokens are spelled with ids of the
            blend; see ``reviewgen.blending.characters``. If the config of the last component has
            ``"expert": true``, the blend is not an average of all components: the last one mixes
            the average of the others into its own distribution; see
            ``reviewgen.protocols.SupportsExpert``.

    Raises:
        ConfigError: There are fewer than two components; an entry is malformed; a component without
            ``characters`` has another vocabulary size or other special ids than the rest; the
            weights are not one per component, or do not sum to one; a component that mixes the
            others is not the last, or has a weight; or the gate is malformed.
    """

    vocab_size: PositiveInt
    weights: tuple[Annotated[float, Bound(at_least=0)], ...] = ()
    gate: dict[str, Any] = field(default_factory=dict)
    models: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if len(self.models) < 2:
            raise ConfigError(
                "A blend is not trained but made of at least two trained models:"
                " reviewgen.blend([a, b]), or reviewgen blend MODEL_A MODEL_B --out DIR."
            )
        for number, entry in enumerate(self.models):
            kinds = {key: type(value) for key, value in entry.items()}
            if kinds not in (_KEYS, _KEYS | {"characters": dict}):
                raise ConfigError(
                    f"Model {number} of the blend should have the keys {', '.join(_KEYS)}; got"
                    f" {quoted(entry)}."
                )
            read_characters(entry, self.vocab_size)
        for name in VOCABULARY_FIELDS:
            values = self._values(name)
            has_other_size = name == "vocab_size" and {*values} - {self.vocab_size}
            if len(values) > 1 or has_other_size:
                listed = " and ".join(map(str, values))
                raise ConfigError(
                    f"The models of a blend that have its tokens must share one {name}; it is"
                    f" {listed} in these."
                )
        count = len(self.models)
        if len(self.weights) != count or abs(sum(self.weights) - 1) > _ROUNDING:
            raise ConfigError(
                f"A blend of {count} models needs {count} weights that sum to one; got"
                f" {quoted(self.weights)}."
            )
        numbered = enumerate(self.models)
        mixing = [number for number, entry in numbered if entry["config"].get("expert") is True]
        if mixing and (mixing != [count - 1] or "characters" in self.models[-1]):
            raise ConfigError(
                "Only the last model of a blend can mix the others (expert: true), with the tokens"
                f" of the blend; got it in model {mixing[0]} of {count}, counted from 0."
            )
        if mixing and self.weights[-1] != 0:
            raise ConfigError(
                "The last model of this blend mixes the others, so its weight must be 0; got"
                f" {self.weights[-1]}."
            )
        if self.gate:
            check_gate(self.gate, self.averaged)

    @property
    def has_expert(self) -> bool:
        """Whether the last component mixes the average of the others, its expert, into its own
        distribution.
        """
        return self.models[-1]["config"].get("expert") is True

    @property
    def averaged(self) -> int:
        """The number of components whose distributions are averaged: all, or all but the last."""
        return len(self.models) - self.has_expert

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-text id that the components' configs have; None if none has one."""
        return next(iter(self._values("bos_id")), None)

    @property
    def eos_id(self) -> int | None:
        """The end-of-text id that the components' configs have; None if none has one."""
        return next(iter(self._values("eos_id")), None)

    def _values(self, name: str) -> list[int]:
        """Return the distinct values of a setting among the components that have the tokens of the
        blend.
        """
        values = [entry["config"].get(name) for entry in self.models if "characters" not in entry]
        # a config may lack the setting; if it counts ids, 0 means that there are none
        absent = (None, 0) if name in GIVEN_IDS else (None,)
        return list(dict.fromkeys(value for value in values if value not in absent))

    @property
    def coefficients(self) -> Float64[np.ndarray, "M F"]:
        """The coefficients of the gate; an array with no columns if the weights are fixed."""
        return np.array(self.gate.get("coefficients", [[]] * self.averaged), np.float64)


def describe_component(
    plugin: Plugin, config: Any, characters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the entry of a model for ``BlendConfig.models``, as JSON values."""
    entry: dict[str, Any] = json.loads(json.dumps(saved_facts(plugin, config)))
    if characters:
        entry["characters"] = dict(characters)
    return entry


def read_characters(entry: Mapping[str, Any], vocab_size: int) -> "TokenCharacters | None":
    """Return, for each token of a component, the ids of the blend that spell it; None if the
    component has the tokens of the blend.

    Args:
        entry: The entry of the component.
        vocab_size: The number of ids of the blend.

    Raises:
        ConfigError: ``characters`` in the entry is malformed.
    """
    if "characters" not in entry:
        return None
    # imported here, since it loads numba, which presets do not need
    from reviewgen.blending.characters import TokenCharacters

    return TokenCharacters.of_entry(
        entry["characters"], entry["config"].get("vocab_size"), vocab_size
    )


def join_names(components: list[Mapping[str, T]]) -> dict[str, T]:
    """Merge the named tensors of the components into one mapping, with the number of the component
    as a prefix.

    >>> join_names([{"weight": 1}, {"weight": 2}])
    {'0.weight': 1, '1.weight': 2}
    """
    joined: dict[str, T] = {}
    for number, named in enumerate(components):
        joined |= {f"{number}.{name}": value for name, value in named.items()}
    return joined


def split_names(named: Mapping[str, T], components: int) -> list[dict[str, T]]:
    """Return one mapping per component; the inverse of ``join_names``.

    Raises:
        BundleError: A name does not start with the number of a component.
    """
    split: dict[str, dict[str, T]] = {str(number): {} for number in range(components)}
    for name, value in named.items():
        number, dot, short_name = name.partition(".")
        if not dot or number not in split:
            raise BundleError(
                f"The tensor {quoted(name)} belongs to none of the {components} models of the"
                " blend."
            )
        split[number][short_name] = value
    return list(split.values())


BLEND_CHAR = Preset(
    model="blend",
    tokenizer="char",
    generation_settings=CHAR_GENERATION,
    parts=("lstm-char", "mixing-char"),
)
BLEND_WORD = Preset(
    model="blend",
    tokenizer="word",
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    generation_settings=WORD_GENERATION,
    parts=("lstm-word", "ngram-word"),
)
