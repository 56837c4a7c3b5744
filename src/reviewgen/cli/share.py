"""``reviewgen push | pull``: uploads a trained model to the Hugging Face Hub, and downloads one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, notes, print_json, show_log
from reviewgen.errors import ConfigError, quoted

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

Repository = Annotated[str, typer.Argument(help="owner/name on the Hub, optionally with @revision.", show_default=False)]


def push(
    model: options.Model,
    repository: Repository,
    license: Annotated[str | None, typer.Option(help="A license identifier of the Hub: apache-2.0, mit, cc-by-4.0 ...")] = None,
    language: Annotated[
        str | None, typer.Option(help="The language of the texts, for the card: en, de ... Separate several by commas.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit message.")] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="The visibility of a new repository.  [default: the owner's setting]"),
    ] = None,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Open a pull request instead of a commit.")] = False,
    allow: Annotated[
        str,
        typer.Option(
            help="Publish despite these findings: email, url, phone, handle, copies, text, license. Separate several by commas."
        ),
    ] = "",
    copy_limit: Annotated[
        float, typer.Option(help="The maximum share of 20-token windows of generated texts that may be copied.")
    ] = 0.5,
    dtype: Annotated[
        str | None, typer.Option(help="float16 halves the file of a neural model, int8 quarters it.  [default: as it was saved]")
    ] = None,
    space: Annotated[
        bool, typer.Option("--space", help="Also publish a page that generates with the model, as a static Space of that name.")
    ] = False,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Check a saved model and publish it on the Hugging Face Hub as one commit.

    Its vocabulary and 200 generated texts are scanned for personal data, and the texts for spans copied from the training text.
    This is a check, not a guarantee.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the client's bars would break the status line
    from reviewgen.api import load

    if dtype not in (None, "float32", "float16", "int8"):
        raise ConfigError(f"--dtype must be float32, float16 or int8; got {quoted(dtype)}.")
    trained = load(model)
    show_log()
    given: dict[str, Any] = {
        "commit_message": message,
        "private": private,
        "token": token,
        "create_pr": pull_request,
        "license": license,
        "model_card_kwargs": {} if language is None else {"language": _split(language)},
        "allow": _split(allow),
        "copy_limit": copy_limit,
        "dtype": dtype,
    }
    with notes.status("Checking and publishing ..."):
        facts = _publish(trained, repository, given, space)
    if as_json:
        print_json(facts)
        return
    echo(f"Published: {facts['url']}")
    if space:
        echo(f"Its page: {facts['space']}")


def _publish(model: "ReviewModel", repository: str, given: dict[str, Any], space: bool) -> dict[str, str]:
    """Publish a model, and its page if asked for; return the addresses."""
    if not space:
        return {"url": model.push_to_hub(repository, **given)}
    from reviewgen.export import push_with_space

    return dict(zip(("url", "space"), push_with_space(model, repository, **given), strict=True))


def pull(
    repository: Repository,
    out: Annotated[Path | None, typer.Option(help="Also copy the model into this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again even if the files are cached.")] = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="With --out: also take files that were edited on the Hub.")
    ] = False,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Download a model from the Hugging Face Hub into its cache (HF_HOME); from then on it loads without a network."""
    from reviewgen.hub.download import pull as pull_model

    show_log()
    facts = pull_model(repository, out=out, token=token, force_download=force, accept_changes=accept_changes)
    if as_json:
        print_json(facts)
        return
    bits = facts["bits_per_character"]
    quality = "not evaluated" if bits is None else f"{bits:.4f} bits per character"
    echo(f"{repository}: {facts['preset']}, {quality}, {facts['megabytes']:.1f} MB, in {facts['folder']}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
