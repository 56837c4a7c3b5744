"""``reviewgen doctor MODEL`` and ``--accept``: the care of saved models."""

from typing import Any

from reviewgen.cli.console import echo, print_json
from reviewgen.errors import ConfigError


def care(model: str | None, accept: bool, as_json: bool) -> None:
    """Check a saved model, or take its changes.

    Raises:
        ConfigError: No folder is given whose changes could be accepted.
        BundleError: The model cannot be read, or has changed since it was saved.
    """
    facts: dict[str, Any] = {}
    if accept:
        facts["accepted"] = _accept(model)
    elif model is not None:
        facts["files"] = _check(model)
    if as_json:
        print_json({"model": model} | facts)
        return
    for name, paths in facts.items():
        for line in _describe(name, paths, model):
            echo(line)


def _accept(model: str | None) -> list[str]:
    from reviewgen.hub.download import locate
    from reviewgen.model.write import accept_changes

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
    from reviewgen.model.layout import MANIFEST

    bundle = load(model).bundle
    return sorted(bundle.digests) if bundle.folder is not None and (bundle.folder / MANIFEST).exists() else []


def _describe(name: str, paths: list[str], model: str | None) -> list[str]:
    if name == "accepted":
        return [f"Accepted in {model}: {', '.join(paths)}." if paths else f"Nothing has changed in {model}."]
    if not paths:
        return [f"{model} can be read. It has no manifest, so changes cannot be found; --accept writes one."]
    return [f"{model} can be read, and no file has changed since it was saved."]
