"""``reviewgen serve``: serves models over HTTP with the OpenAI protocol."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.errors import ConfigError, ReviewgenError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from reviewgen.serving.server import ServerOptions


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names one.",
            show_default=False,
        ),
    ],
    host: Annotated[str, typer.Option(help="The address to listen at; 0.0.0.0 is every address of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[Path | None, typer.Option(help="A file of API keys, one a line; requests must have one.")] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="An origin whose pages may call the server, as in https://example.org. Repeatable.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name that requests may call the server by, as in example.org; * is any. Repeatable.  [default: at a loopback "
            "address those of this machine, else any]"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="The number of processes; each loads the models.", min=1, max=256)] = 1,
    max_tokens_limit: Annotated[int, typer.Option(help="The largest max_tokens of a request.")] = 4096,
    max_texts: Annotated[int, typer.Option(help="The largest number of texts of a request: prompts times n.")] = 128,
    max_rows: Annotated[int, typer.Option(help="Texts per model that are generated side by side; others wait.")] = 64,
    max_waiting: Annotated[int, typer.Option(help="Texts per model that may wait, before requests are refused with 429.")] = 512,
    max_prompt: Annotated[int, typer.Option(help="The largest number of characters of a request's prompts.")] = 16_384,
    max_body: Annotated[int, typer.Option(help="The largest body of a request, in bytes.")] = 1_000_000,
    request_timeout: Annotated[str, typer.Option(help="The time of a request, after which its texts are cut off.")] = "5m",
    stall_timeout: Annotated[str, typer.Option(help="The time that a client may read or send nothing.")] = "1m",
    shutdown_timeout: Annotated[str, typer.Option(help="The time that running requests have after SIGTERM or Ctrl-C.")] = "30s",
    bits: Annotated[int, typer.Option(help="The bits of a weight: 32, 16 or 8.")] = 32,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request to standard error.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Serve models over HTTP with the OpenAI protocol: completions, as text or as a stream."""
    from reviewgen.config import parse_duration

    require_extra("serve")
    from reviewgen.serving.limits import Limits
    from reviewgen.serving.models import check_names, name_source
    from reviewgen.serving.server import ServerOptions

    named = [name_source(given) for given in models]
    check_names(named)
    limits = Limits(
        max_tokens=max_tokens_limit,
        max_texts=max_texts,
        max_rows=max_rows,
        max_waiting=max_waiting,
        max_prompt=max_prompt,
        max_body=max_body,
        request_seconds=parse_duration(request_timeout),
        stall_seconds=parse_duration(stall_timeout),
        shutdown_seconds=parse_duration(shutdown_timeout),
    )
    given = ServerOptions(
        sources=dict(named),
        weight_bits=bits,
        limits=limits,
        cors_origins=_origins(cors_origin),
        access_log=access_log,
        keys=_read_keys(api_key_file, host),
    )
    _run(given, host, port, allowed_host or [], workers, as_json)


def _run(given: "ServerOptions", host: str, port: int, allowed: list[str], workers: int, as_json: bool) -> None:
    """Open the port, load the models, and serve."""
    from reviewgen.serving.hosts import accepted_hosts
    from reviewgen.serving.server import load_engines, make_app, open_socket, run

    listening = open_socket(host, port, given.limits.stall_seconds)
    given = replace(given, hosts=accepted_hosts(host, listening.getsockname()[0], allowed))
    url = _url(host, listening.getsockname()[1])
    failed: dict[str, str] = {}

    def announce(names: list[str]) -> None:
        with announcing(url):
            _announce(url, names, failed, as_json, given.keys is not None)

    if workers > 1:
        from reviewgen.serving.workers import run_workers

        run_workers(given, listening, workers, leave_out(failed), announce)
        return
    with notes.status(f"Loading {', '.join(given.sources)} ..."):
        engines = load_engines(given.sources, given.weight_bits, leave_out(failed), given.limits.max_rows)
    run(make_app(given, engines), listening, lambda: announce(list(engines)), given.access_log)


def leave_out(failed: dict[str, str]) -> "Callable[[str, ReviewgenError], None]":
    """Return a function that notes at once, and in a mapping, why a model is not among those that are served."""

    def say(name: str, error: ReviewgenError) -> None:
        failed[name] = str(error)
        note(f"{name} is left out: {error}", "yellow")

    return say


@contextlib.contextmanager
def announcing(url: str) -> Iterator[None]:
    """Print inside the block where a server is; it serves on if standard output cannot be written."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        note(f"Standard output cannot be written ({error.strerror}); the server is at {url}.", "yellow")
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (the stream of the process)


def _announce(url: str, names: list[str], failed: dict[str, str], as_json: bool, has_keys: bool) -> None:
    """Print where the server is, and a command that calls it."""
    if as_json:
        print_json({"url": url, "models": names, "failed": failed})
    else:
        body = json.dumps({"model": names[0], "prompt": "The ", "max_tokens": 40})
        key = '-H "Authorization: Bearer $KEY" ' if has_keys else ""
        echo(f"Serving {', '.join(names)} at {url}/v1")
        echo(f"Fields of a request: {url}/docs. Ctrl-C ends the server. Try:")
        echo()
        echo(f"curl {url}/v1/completions {key}\\")
        echo("  -H 'Content-Type: application/json' \\")
        echo(f"  -d {_quote(body)}")
        echo()


def _quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


def _url(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _read_keys(file: Path | None, host: str) -> Any:
    """Return the keys of a file, None without one; warns where other machines reach a server that asks for none."""
    from reviewgen.serving.hosts import is_loopback
    from reviewgen.serving.keys import read_keys

    if file is None:
        if not is_loopback(host):
            note(f"warning: other machines reach {host}, and the server asks for no key: give --api-key-file FILE.", "yellow")
        return None
    keys, remarks = read_keys(file)
    for remark in remarks:
        note(f"warning: {remark}", "yellow")
    return keys


def _origins(given: list[str] | None) -> tuple[str, ...]:
    """Return the origins that may call the server.

    Raises:
        ConfigError: One is not an origin.
    """
    for origin in given or ():
        scheme, _, rest = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not rest or "/" in rest):
            raise ConfigError(f"{quoted(origin)} is not an origin: give scheme and host only, as in https://example.org, or *.")
    return tuple(given or ())


def require_extra(command: str) -> None:
    """Raise if what only the server needs is not installed.

    Raises:
        ConfigError: It is not; says what to install.
    """
    try:
        import prometheus_client  # noqa: F401  imported only to see whether it is installed, as are the next two
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{command} needs {error.name}: pip install 'reviewgen[serve]'.") from None
