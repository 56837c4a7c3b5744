"""The abilities of a config: SupportsMigration, to read what an earlier version of its plugin has
saved; and SupportsTransformers, to be converted to the config of a class of transformers, and back.
Needs no torch.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from reviewgen.config.settings import from_dict
from reviewgen.errors import BundleError, first_line

ConfigT = TypeVar("ConfigT")


@runtime_checkable
class SupportsMigration(Protocol):
    """A ``Config`` whose fields have changed between versions, and that can still read the values
    that earlier versions have saved.

    ``migrate`` is a class method of the config and not of the model, so that a saved model can
    generate without torch. It is called for every saved config. It must return the values of a
    current config unchanged.

    >>> @dataclass(frozen=True, kw_only=True)  # doctest: +SKIP
    ... class MinGruConfig:
    ...     vocab_size: int
    ...     hidden_size: int = 256
    ...
    ...     @classmethod
    ...     def migrate(cls, values, version):
    ...         if "units" in values:  # until 0.2
    ...             values["hidden_size"] = values.pop("units")
    ...         return values
    """

    @classmethod
    def migrate(cls, values: dict[str, Any], version: str) -> Mapping[str, Any]:
        """Convert saved values to values of the current config with the same meaning.

        Args:
            values: The saved values, as JSON values; a copy, which may be changed.
            version: The version of the plugin's package that saved them, as in "0.1.2"; empty if
                the plugin was registered in a process.

        Raises:
            ConfigError: Such a config is not supported any more; the message says what to do.
        """
        ...


@runtime_checkable
class SupportsTransformers(Protocol):
    """The config of a model that a class of the library transformers can compute, with the same
    weights.
    """

    def to_transformers(self) -> dict[str, Any]:
        """Return the content of the library's config.json, without the ids of special tokens.

        Raises:
            ConfigError: The model has parts that the class does not have; the message says what to
                do.
        """
        ...

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any]) -> Any:
        """Return the config of this model for the content of the library's config.json.

        Raises:
            ConfigError: The model of these values computes something else, or is too large.
        """
        ...

    @staticmethod
    def transformers_name(name: str) -> str:
        """Return the name that a tensor of the model has in the library."""
        ...


def read_saved_config(cls: type[ConfigT], values: Mapping[str, Any], version: str) -> ConfigT:
    """Return a config from saved values, which an earlier version of the plugin may have written.

    Args:
        cls: The config class.
        values: The saved values.
        version: The version of the plugin's package that saved them.

    Raises:
        BundleError: The migration raises, or returns something other than settings that the config
            takes.
        ConfigError: The config has no migration, and does not take the saved values.
    """
    if not isinstance(cls, SupportsMigration):
        return from_dict(cls, values)
    try:
        return from_dict(cls, dict(cls.migrate(dict(values), version)))
    except Exception as error:  # a plugin's code may raise anything
        raise BundleError(
            f"{cls.__name__}.migrate cannot read the config that version {version or '?'} has"
            f" saved: {first_line(error):.200}."
        ) from None
