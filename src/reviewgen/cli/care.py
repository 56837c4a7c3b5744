"""``reviewgen doctor MODEL``, ``--accept`` and ``--clean``: the care of saved models and of what killed processes have left."""

import logging
from typing import Any

from reviewgen.cli.console import echo, print_json
from reviewgen.errors import ConfigError
from reviewgen.storage import to_path


def care(model: str | None, accept: bool, clean: bool, as_json: bool) -> None:
    """Check a saved model, take its changes, or remove what killed processes have left.

    Raises:
        ConfigError: No folder is given whose changes could be accepted, or one in a folder that does not exist.
        BundleError: The model cannot be read, or has changed since it was saved.
    """
    facts: dict[str, Any] = {}
    if accept:
        facts["accepted"] = _accept(model)
    elif model is not None and not clean:
        facts["files"] = _check(model)
    if clean:
        facts["removed"], facts["unfinished"] = _clean(model)
    if as_json:
        print_json({"model": model} | facts)
        return
    for name, paths in facts.items():
        for line in _describe(name, paths, model):
            echo(line)


def _accept(model: str | None) -> list[str]:
    from reviewgen.bundle.write import accept_changes
    from reviewgen.hub.download import locate

    if model is None:
        raise ConfigError("Give the saved model whose changes are accepted: reviewgen doctor ./my-model --accept.")
    location = locate(model, local_files_only=True)
    if location.is_downloaded:
        raise ConfigError(
            f"{model} is on the Hub: take its changes into a folder of your own, with reviewgen pull {model} --out ./my-model "
            "--accept-changes."
        )
    return accept_changes(location.folder)


def _check(model: str) -> list[str]:
    from reviewgen.api import load
    from reviewgen.bundle.layout import MANIFEST

    bundle = load(model).bundle
    return sorted(bundle.digests) if bundle.folder is not None and (bundle.folder / MANIFEST).exists() else []


def _clean(model: str | None) -> tuple[list[str], list[str]]:
    """Return what was removed, and what can be gone on from and so was not."""
    from reviewgen.runs.folder import clean

    folder = None if model is None else to_path("model", model)
    if folder is not None and not folder.absolute().parent.is_dir():  # a model that was not finished need not exist itself
        raise ConfigError(f"{folder} is in a folder that does not exist. Check the path.")
    logger = logging.getLogger("reviewgen")
    logger.disabled = True  # what it would say is the result here
    try:
        return clean(folder)
    finally:
        logger.disabled = False


def _describe(name: str, paths: list[str], model: str | None) -> list[str]:
    if name == "removed":
        return [f"Removed {path}" for path in paths] or ["Killed processes have left no files."]
    if name == "unfinished":
        return [f"{path} is unfinished: give its command again to go on from it, or remove it." for path in paths]
    if name == "accepted":
        return [f"Accepted in {model}: {', '.join(paths)}." if paths else f"Nothing has changed in {model}."]
    if not paths:
        return [f"{model} can be read. It has no manifest, so changes cannot be found; --accept writes one."]
    return [f"{model} can be read, and no file has changed since it was saved."]
