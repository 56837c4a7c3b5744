"""Finds plugins by name. Listing plugins reads package metadata and imports none of them. Finding a
plugin by name imports only this plugin.

Plugins are entry points; ``metadata.GROUPS`` has their groups. The name of an entry point is the
name that users type. In most groups, an entry point names the class or object of the plugin. In
these groups, the entry point names something else:

- ``reviewgen.steppers``, by the name of a model: a factory of steppers that generate without torch.
- ``reviewgen.weights``, by the name of a preset: a package folder that is a saved model, without
  code.
- ``reviewgen.logits_processors``: a factory of logits processors.
- ``reviewgen.web_steppers`` and ``reviewgen.web_tokenizers``, by the name of a model or tokenizer:
  the path of its JavaScript file, for pages that generate in a browser.

Plugins in this repository are found in the same way as those of third parties, but their names are
reserved: a third party's plugin with such a name does not replace them. If several third parties
use the same name, finding a plugin by this name is an error. A description of a plugin (``Plugin``)
also has the package, so it always finds the plugin of this package; a saved model has such
descriptions. Standard library only, except for the plain form of a preset.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

from reviewgen.config.generation import Preset
from reviewgen.config.names import PLAIN, parse_preset
from reviewgen.config.settings import check_text, settings_off
from reviewgen.config.training import TrainingConfig
from reviewgen.errors import (
    BrokenPlugin,
    ConfigError,
    PluginConflict,
    SourceError,
    UnknownPlugin,
    did_you_mean,
    quoted,
)
from reviewgen.registry.metadata import (
    GROUPS,
    OWN,
    InstalledPlugin,
    Plugin,
    find_api_fault,
    find_name_fault,
    installed_plugins,
    is_own,
    is_same_package,
    title_of,
)

THIS_PROCESS = "(this process)"  # the package of a registered plugin

_registered: dict[tuple[str, str], Any] = {}  # (kind, name) -> class, for this process
# (kind, name, package) -> why its import has failed in this process
_failures: dict[tuple[str, str, str], str] = {}


def list_plugins(kind: str | None = None) -> list[Plugin]:
    """Return the installed plugins of a kind, sorted by name, without importing them.

    Args:
        kind: A kind as in ``Plugin``; None for all plugins of all kinds.
    """
    if kind is None:
        return list(chain.from_iterable(map(list_plugins, GROUPS)))
    listed: list[Plugin] = []
    for same_name in _plugins(kind).values():
        listed += [_with_problem(entry.plugin, same_name) for entry in same_name]
    return sorted(listed, key=lambda plugin: (plugin.name, plugin.package != OWN, plugin.package))


def list_presets() -> list[Plugin]:
    """Return the installed presets, without importing them."""
    return list_plugins("preset")


def list_models() -> list[Plugin]:
    """Return the installed models, without importing them."""
    return list_plugins("model")


def list_tokenizers() -> list[Plugin]:
    """Return the installed tokenizers, without importing them."""
    return list_plugins("tokenizer")


def find_plugin(kind: str, name: str | Plugin) -> tuple[Any, Plugin]:
    """Import a plugin, such as a metric or the factory of a logits processor, and return it with
    its description.

    Args:
        kind: One of ``GROUPS``, other than "weights".
        name: The plugin's name, or its description.

    Raises:
        UnknownPlugin: No installed plugin has that name.
        PluginConflict: Two packages provide the name.
        BrokenPlugin: The plugin's package cannot be imported, or is written for another major
            version of the contract.
    """
    installed = _locate(kind, name)
    return _import(installed), installed.plugin


def find_model(name: str | Plugin) -> tuple[Any, Plugin]:
    """Import a model class, and return it with the description of its plugin; raises what
    ``find_plugin`` raises.
    """
    return find_plugin("model", name)


def find_tokenizer(name: str | Plugin) -> tuple[Any, Plugin]:
    """Import a tokenizer class, and return it with the description of its plugin; raises what
    ``find_plugin`` raises.
    """
    return find_plugin("tokenizer", name)


def find_logits_processor(name: str | Plugin) -> tuple[Any, Plugin]:
    """Import the factory of a logits processor, and return it with the description of its plugin;
    raises what ``find_plugin`` raises.
    """
    return find_plugin("logits processor", name)


def find_metric(name: str | Plugin) -> tuple[Any, Plugin]:
    """Import a metric, and return it with the description of its plugin; raises what
    ``find_plugin`` raises.
    """
    return find_plugin("metric", name)


def find_reader(name: str | Plugin) -> Any | None:
    """Import and return the reader for a file suffix or a URL scheme; None if no such reader is
    installed.

    Args:
        name: The suffix without its dot, or the scheme; or the description of the reader's plugin.

    Raises:
        PluginConflict, BrokenPlugin: As in ``find_plugin``.
    """
    try:
        return find_plugin("reader", name)[0]
    except UnknownPlugin:
        return None


def find_stepper(name: str | Plugin) -> Any | None:
    """Import and return the stepper factory that a model's own package provides; None if there is
    none.

    Args:
        name: The model's name, or its description.

    Raises:
        PluginConflict, BrokenPlugin: As in ``find_plugin``.
    """
    return _find_beside("stepper", "model", name)


def find_web_stepper(name: str | Plugin) -> Path | None:
    """Return the JavaScript file with the stepper of a model, from the model's own package; None if
    the package has no such file.

    Args:
        name: The model's name, or its description.

    Raises:
        PluginConflict, BrokenPlugin: As in ``find_plugin``; also if the file does not exist.
    """
    return _find_script("web stepper", "model", name)


def find_web_tokenizer(name: str | Plugin) -> Path | None:
    """Return the JavaScript file of a tokenizer. The arguments and errors are those of
    ``find_web_stepper``.
    """
    return _find_script("web tokenizer", "tokenizer", name)


def find_weights(name: str | Plugin) -> Path | None:
    """Return the installed folder of a preset's trained weights; None if there is none. Imports
    nothing.

    Args:
        name: The preset's name, or the ``Plugin`` that describes the weights.

    Raises:
        PluginConflict: Two packages provide the name.
        BrokenPlugin: The folder does not exist, or the package is written for another major version
            of the contract.
    """
    try:
        plugin, point = _locate("weights", name)
    except UnknownPlugin:
        return None
    _refuse_broken(plugin)
    assert point is not None  # weights are not registered
    top, *below = point.value.split(".")  # the package and the folders in it
    spec = importlib.util.find_spec(top)
    locations = spec.submodule_search_locations if spec else None
    for location in locations or ():
        folder = Path(location, *below)
        if folder.is_dir():
            return folder
    raise BrokenPlugin(
        f"{title_of(plugin)} are missing: their folder {point.value} does not exist. Reinstall the"
        " package; if it is your own, save a trained model in that folder and install it again."
    )


def find_preset(name: str | Plugin) -> Preset:
    """Return a preset. Any installed model and any installed tokenizer also form a preset, with
    their default settings.

    If the name ends with ``-plain``, the preset has its optional techniques switched off. These are
    the techniques that the config of its model lists and, unless the model is trained by counting,
    those that the training config lists.

    Args:
        name: The preset's name, or its description.

    Raises:
        ConfigError: The name asks for the plain form of a blend.
        SourceError: The name is not of the form ``<model>-<tokenizer>[-<size>]``.
        UnknownPlugin: No installed preset, or pair of a model and a tokenizer, has that name.
        PluginConflict: Two packages provide the preset, the model or the tokenizer.
        BrokenPlugin: The package of the preset, the model or the tokenizer cannot be imported.
    """
    if not isinstance(name, Plugin):
        parse_preset(name, preset_names())  # raises if the name does not have a preset's form
    try:
        preset, plugin = find_plugin("preset", name)
    except UnknownPlugin:
        if isinstance(name, Plugin):
            raise
        return _find_pair(name)
    if not isinstance(preset, Preset):
        raise BrokenPlugin(f"{title_of(plugin)} is not a reviewgen.config.Preset.")
    return preset


def _find_pair(name: str) -> Preset:
    """Return the preset that a model and a tokenizer form; or, if the name ends with ``-plain``,
    the plain form of a preset.

    This is called after an error of ``find_plugin``, which is hidden by ``from None``.
    """
    known = preset_names()
    problem = f"There is no preset {quoted(name)}."
    if name.endswith(PLAIN):
        base = name.removesuffix(PLAIN)
        if base.endswith(PLAIN) and base not in known:
            raise UnknownPlugin(f"{problem} Did you mean {quoted(base)}?") from None
        return _find_plain(base)
    if name not in known:
        raise UnknownPlugin(f"{problem} {did_you_mean(name, known)}") from None
    model, tokenizer = parse_preset(name)
    # these raise if two packages provide the model or the tokenizer
    _locate("model", model)
    _locate("tokenizer", tokenizer)
    return Preset(model=model, tokenizer=tokenizer)


def _find_plain(name: str) -> Preset:
    """Return the plain form of a preset."""
    preset = find_preset(name)
    if preset.parts:
        plain = " or ".join(f"{model}{PLAIN}" for model in preset.parts)
        raise ConfigError(
            f"{name} is a blend of several models, which has no plain form: give that of one of"
            f" them, {plain}."
        )
    from reviewgen.protocols.model import CountTrained  # imports torch

    model = find_model(preset.model)[0]
    is_counted = issubclass(model, CountTrained)
    training = {} if is_counted else settings_off(TrainingConfig)
    return preset.with_fixed(settings_off(model.Config), training)


def preset_names() -> set[str]:
    """Return every name that ``find_preset`` accepts, without -plain: presets, and pairs of a model
    and a tokenizer.
    """
    pairs = product(_plugins("model"), _plugins("tokenizer"))
    return _plugins("preset").keys() | map("-".join, pairs)


def register_model(name: str, model: Any) -> None:
    """Register a model class under a name, for the running process only, as in a notebook. A new
    call with the same name replaces the class.

    A trained model of the class can be saved, and loaded in every process that has registered the
    class. The class takes precedence over an installed third-party model of the same name.

    Raises:
        PluginConflict: reviewgen itself has a model of that name.
        ConfigError: The name is not a string.
        SourceError: The name cannot be part of a preset's name.
        BrokenPlugin: The class is written for another major version of the contract.
    """
    _register("model", name, model)


def register_tokenizer(name: str, tokenizer: Any) -> None:
    """Register a tokenizer class under a name, for the running process only; works like
    ``register_model``.
    """
    _register("tokenizer", name, tokenizer)


def unregister_all() -> None:
    """Forget all plugins that were registered in this process, and all failed imports. Tests of
    plugins call this.
    """
    _registered.clear()
    _failures.clear()


def _register(kind: str, name: str, plugin: Any) -> None:
    """Register a plugin for this process, after the checks that ``register_model`` describes."""
    check_text("name", name)
    if find_name_fault(kind, name) is not None:
        raise SourceError(
            f"{quoted(name)} cannot name a {kind}: use the letters a to z and digits only, a letter"
            " first."
        )
    if any(is_own(entry.plugin) for entry in installed_plugins(kind).get(name, [])):
        raise PluginConflict(
            f"The {kind} {quoted(name)} is already provided by {OWN}. Choose another name."
        )
    _refuse_other_api(Plugin(kind, name, THIS_PROCESS, ""), plugin)
    _registered[kind, name] = plugin


def _find_beside(kind: str, owner: str, name: str | Plugin) -> Any | None:
    """Import the companion of a plugin: the stepper, web stepper or web tokenizer that the plugin's
    own package provides under the same name. Return None if there is no companion.

    Args:
        kind: The kind of the companion.
        owner: The kind of the plugin.
        name: The name of the plugin, or its description.
    """
    try:
        plugin = _locate(owner, name).plugin
    except UnknownPlugin:
        return None
    for companion in installed_plugins(kind).get(plugin.name, []):
        if companion.plugin.package == plugin.package:
            return _import(companion)
    return None


def _find_script(kind: str, owner: str, name: str | Plugin) -> Path | None:
    """Return the JavaScript file of a plugin. Return None if the package has no entry point for
    such a file; raise if the file does not exist. The arguments are those of ``_find_beside``.
    """
    file = _find_beside(kind, owner, name)
    if file is None or (isinstance(file, Path) and file.is_file()):
        return file
    shown = quoted(name.name if isinstance(name, Plugin) else name)
    raise BrokenPlugin(
        f"The {kind} {shown} must be the Path of an existing JavaScript file; got {file!r:.200}."
    )


def _import(installed: InstalledPlugin) -> Any:
    """Return the object of an entry point, or of a registered plugin."""
    plugin, point = installed
    if point is None:
        return _registered[plugin.kind, plugin.name]
    _refuse_broken(plugin)
    try:
        loaded = point.load()
    # a third party's module may do anything while it is imported
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            cause = f"it calls sys.exit({error.code!r})"
        _failures[plugin.kind, plugin.name, plugin.package] = cause
        raise BrokenPlugin(f"{title_of(plugin)} cannot be imported: {cause:.300}") from error
    _refuse_other_api(plugin, loaded)
    return loaded


def _refuse_broken(plugin: Plugin) -> None:
    """Raise BrokenPlugin if a plugin has a known problem."""
    if plugin.problem is not None:
        raise BrokenPlugin(f"{title_of(plugin)} cannot be used: {plugin.problem}.")


def _refuse_other_api(plugin: Plugin, loaded: Any) -> None:
    """Raise if the object of a plugin declares that it is written for another major version of the
    contract.
    """
    package = "the class" if plugin.package == THIS_PROCESS else plugin.package
    fault = find_api_fault(getattr(loaded, "api_version", None), package)
    _refuse_broken(replace(plugin, problem=fault))


def _locate(kind: str, name: str | Plugin) -> InstalledPlugin:
    """Return the one plugin that a name or a description stands for.

    Raises:
        PluginConflict: Several packages provide the name.
        UnknownPlugin: No package, or not the package of the description, provides the name.
    """
    asked = name.name if isinstance(name, Plugin) else name
    named = _plugins(kind).get(asked, [])
    provider = "package"
    if isinstance(name, Plugin):
        provider = f"package {name.package}"
        named = [entry for entry in named if is_same_package(entry.plugin.package, name.package)]
    elif named and _comes_first(named[0].plugin):
        named = named[:1]
    if len(named) > 1:
        packages = " and ".join(entry.plugin.package for entry in named)
        raise PluginConflict(
            f"The packages {packages} provide the {kind} {quoted(asked)}. Uninstall one of them."
        )
    if not named:
        raise UnknownPlugin(
            f"No installed {provider} provides the {kind} {quoted(asked)}."
            f" {did_you_mean(asked, _plugins(kind))}"
        )
    return named[0]


def _plugins(kind: str) -> dict[str, list[InstalledPlugin]]:
    """Return the plugins of a kind, by name. Among plugins with the same name, a registered one is
    first, then reviewgen's own.
    """
    named = dict(installed_plugins(kind))
    for registered_kind, name in _registered:
        if registered_kind == kind:
            registered = InstalledPlugin(Plugin(kind, name, THIS_PROCESS, ""), None)
            named[name] = [registered, *named.get(name, [])]
    return named


def _comes_first(plugin: Plugin) -> bool:
    """Return whether a plugin takes precedence over others of the same name."""
    return plugin.package == THIS_PROCESS or is_own(plugin)


def _with_problem(plugin: Plugin, named: Sequence[InstalledPlugin]) -> Plugin:
    """Return a plugin whose ``problem`` also names a conflict with other plugins of the same name,
    or an import that has failed in this process. ``named`` are all plugins of this name.
    """
    problem = plugin.problem
    if problem is None and len(named) > 1 and not _comes_first(plugin):
        first = named[0].plugin
        if first.package == THIS_PROCESS:
            problem = "the name is registered in this process"
        elif is_own(first):
            problem = f"the name is reserved for the {plugin.kind} of {OWN}"
        else:
            problem = f"{' and '.join(entry.plugin.package for entry in named)} have this name"
    failure = _failures.get((plugin.kind, plugin.name, plugin.package))
    return replace(plugin, problem=problem or failure)
