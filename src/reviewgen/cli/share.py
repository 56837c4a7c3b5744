"""``reviewgen push | pull``: trained models to and from the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import notes, print_json, show_log
from reviewgen.errors import ConfigError

__all__ = ["pull", "push"]

Repository = Annotated[str, typer.Argument(help="owner/name on the Hub, with or without @revision.", show_default=False)]


def push(
    model: options.Model,
    repository: Repository,
    license: Annotated[str | None, typer.Option(help="As the Hub spells it: apache-2.0, mit, cc-by-4.0 ...")] = None,
    language: Annotated[str | None, typer.Option(help="Of the texts, for the card: en, de ... Several with commas.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Of the commit.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Who sees a new repository.  [default: as its owner has set]")
    ] = None,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Open a pull request in place of a commit.")] = False,
    allow: Annotated[
        str,
        typer.Option(help="Publish it although this was found, with commas: email, url, phone, handle, copies, text, license."),
    ] = "",
    copy_limit: Annotated[float, typer.Option(help="The largest share of its texts' 20-token windows that may be copied.")] = 0.5,
    dtype: Annotated[str | None, typer.Option(help="float16 halves a network's file.  [default: as it was saved]")] = None,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Look a saved model over, and publish it on the Hugging Face Hub as one commit.

    200 texts that it writes and its vocabulary are searched for personal details, and the texts for what they copy: a check, not
    a guarantee.
    """
    from reviewgen.api import load

    if dtype not in (None, "float32", "float16"):
        raise ConfigError(f"--dtype is float32 or float16; got {dtype!r}.")
    trained = load(model)
    show_log()
    card: dict[str, Any] = {} if language is None else {"language": _split(language)}
    with notes.status("Looking it over, and publishing it ..."):
        address = trained.push_to_hub(
            repository,
            commit_message=message,
            private=private,
            token=token,
            create_pr=pull_request,
            license=license,
            model_card_kwargs=card,
            allow=_split(allow),
            copy_limit=copy_limit,
            dtype=dtype,  # type: ignore[arg-type]  # was looked at
        )
    if as_json:
        print_json({"url": address})
        return
    typer.echo(f"Published: {address}")


def pull(
    repository: Repository,
    out: Annotated[Path | None, typer.Option(help="Copy it into this folder, too.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what was fetched before.")] = False,
    token: options.Token = None,
    as_json: options.AsJson = False,
) -> None:
    """Fetch a model from the Hugging Face Hub; it is kept in HF_HOME, and loads without a network from then on."""
    from reviewgen.hub.fetch import fetch

    show_log()
    with notes.status(f"Fetching {repository} ..."):
        facts = fetch(repository, out=out, token=token, force_download=force)
    if as_json:
        print_json(facts)
        return
    bits = facts["bits_per_character"]
    told = "not evaluated" if bits is None else f"{bits:.4f} bits per character"
    typer.echo(f"{repository}: {facts['preset']}, {told}, {facts['megabytes']:.1f} MB, in {facts['folder']}")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
