"""Checks settings whose values are names of plugins. What is installed is not looked up here."""

from collections.abc import Sequence

from reviewgen.config.names import is_plugin_name
from reviewgen.errors import ConfigError, quoted


def check_plugin_names(setting: str, names: Sequence[str]) -> None:
    """Validate a setting whose value are names of plugins.

    Raises:
        ConfigError: A name has another form than those of plugins, or is given twice.
    """
    for number, name in enumerate(names):
        if not is_plugin_name(name):
            raise ConfigError(
                f"{setting} are names of installed plugins, of lower-case letters, digits and hyphens; {name!r:.60} is not one."
            )
        if name in names[:number]:
            raise ConfigError(f"{setting} has {quoted(name)} twice: name it once.")
