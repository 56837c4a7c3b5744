"""Writes the package of a new plugin from the files in ``templates``, for ``reviewgen plugin new``.

    every                                                   the files of every package: license, CI
    model, tokenizer, weights, processor, metric, reader    the other files of each kind

The name of a template is that of the file to write, followed by ``.template``. In names and
contents, ``@name@`` stands for the plugin's name, ``@Name@`` for the name with a capital letter,
and ``@version@`` for the version of reviewgen. Standard library only.
"""

import re
from pathlib import Path

from reviewgen.errors import ConfigError, StorageError, quoted, storage_errors
from reviewgen.registry.metadata import OWN
from reviewgen.registry.plugins import list_plugins
from reviewgen.storage import atomic_folder, check_output
from reviewgen.version import __version__

KINDS = ("model", "tokenizer", "weights", "processor", "metric", "reader")
_NAME = re.compile(r"[a-z][a-z0-9]{0,39}")
_SUFFIX = ".template"


def new_plugin(name: str, kind: str, folder: Path | None = None) -> Path:
    """Write the package ``reviewgen-NAME``: code, tests, README, pyproject.toml and a CI file.

    Args:
        name: The plugin's name, which users type: up to 40 characters, each one of a to z and 0 to
            9, a letter first.
        kind: One of KINDS.
        folder: The folder to write, which must not exist; by default ``reviewgen-NAME`` in the
            current one.

    Returns:
        The folder.

    Raises:
        ConfigError: The name is not valid or reserved, the kind is unknown, or the folder exists or
            cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{quoted(kind)} is not a kind of plugin. Choose one of: {', '.join(KINDS)}."
        )
    _refuse_name(name)
    target = folder or Path(f"reviewgen-{name}")
    values = {"@name@": name, "@Name@": name.capitalize(), "@version@": __version__}
    try:
        check_output(target)
        with storage_errors(target), atomic_folder(target) as scratch:
            for group in ("every", kind):
                top = Path(__file__).parent / "templates" / group
                for template in top.rglob(f"*{_SUFFIX}"):
                    path = template.relative_to(top).as_posix().removesuffix(_SUFFIX)
                    file = scratch / _fill(path, values)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    text = _fill(template.read_text(encoding="utf-8"), values)
                    file.write_text(text, encoding="utf-8")
    except (FileExistsError, StorageError) as problem:  # what the user has typed is wrong
        raise ConfigError(str(problem)) from None
    return target


def _refuse_name(name: str) -> None:
    """Raise ConfigError if a name is not valid or is reserved. The names of reviewgen's own plugins
    are reserved, and those of the models and tokenizers that its presets consist of.
    """
    if _NAME.fullmatch(name) is None:
        rule = "use the letters a to z and digits, a letter first, at most 40 of them, as in mingru"
        raise ConfigError(f"{quoted(name, 60)} cannot name a plugin: {rule}.")
    owners = [OWN] if name == OWN else []
    for plugin in list_plugins():
        # a preset is named MODEL-TOKENIZER
        reserved = (plugin.name, *plugin.name.split("-")[:2])
        if plugin.package == OWN and name in reserved:
            owners.append(f"the {plugin.kind} {plugin.name!r} of {OWN}")
    if owners:
        raise ConfigError(
            f"The name {quoted(name)} is reserved for {owners[0]}. Choose another name."
        )


def _fill(text: str, values: dict[str, str]) -> str:
    """Replace each placeholder in a text by its value."""
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
