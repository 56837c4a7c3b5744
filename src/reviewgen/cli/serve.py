"""``reviewgen serve | demo``: serves models over HTTP with the OpenAI protocol; opens a page that uses such a server."""

import json
import os
import shlex
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from reviewgen.cli.console import note, show, working
from reviewgen.cli.options import declared, takes
from reviewgen.errors import ConfigError, ReviewgenError, quoted
from reviewgen.registry import describe_weights, list_presets
from reviewgen.serving.options import Limits, ServerOptions, accepted_hosts, is_loopback, name_sources, read_keys

_HOST = "127.0.0.1"  # the demo has no keys, so no other machine may reach it
_FIRST = "lstm-word"  # what the page offers first
_DEMO_SECONDS = 1.0  # texts that are not finished when it ends are cut off
_SECONDS = ("request_seconds", "stall_seconds", "shutdown_seconds")
_Port = Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)]


@takes(declared(Limits, without=_SECONDS, is_bounded=False))
def serve(
    models: list[str],
    *,
    host: str = _HOST,
    port: _Port = 8000,
    api_key_file: Path | None = None,
    cors_origin: list[str] | None = None,
    allowed_host: list[str] | None = None,
    workers: Annotated[int, typer.Option(help="The number of processes; each loads the models.", min=1, max=256)] = 1,
    request_timeout: str = "5m",
    stall_timeout: str = "1m",
    shutdown_timeout: str = "30s",
    bits: int = 32,
    access_log: bool = False,
    as_json: bool = False,
    **options: Any,
) -> None:
    """Serve models over HTTP with the OpenAI protocol: completions, as text or as a stream.

    Args:
        models: Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names one.
        host: The address to listen at; 0.0.0.0 is every address of this machine.
        api_key_file: A file of API keys, one a line; requests must have one.
        cors_origin: An origin whose pages may call the server, as in https://example.org.
        allowed_host: A name that requests may call the server by, as in example.org; * is any. [default: at a loopback address
            those of this machine, else any]
        request_timeout: The time of a request, after which its texts are cut off.
        stall_timeout: The time that a client may read or send nothing.
        shutdown_timeout: The time that running requests have after SIGTERM or Ctrl-C.
        access_log: Log each request to standard error.
    """
    from reviewgen.config import parse_duration

    seconds = map(parse_duration, (request_timeout, stall_timeout, shutdown_timeout))
    _require_extra("serve")
    for origin in cors_origin or ():
        scheme, _, rest = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not rest or "/" in rest):
            raise ConfigError(f"{quoted(origin)} is not an origin: give scheme and host only, as in https://example.org, or *.")
    options |= dict(zip(_SECONDS, seconds, strict=True))
    limits = Limits(**options)
    digests, remarks = (None, list[str]()) if api_key_file is None else read_keys(api_key_file)
    if api_key_file is None and not is_loopback(host):
        remarks = [f"other machines reach {host}, and the server asks for no key: give --api-key-file FILE."]
    for remark in remarks:
        note(f"warning: {remark}", "yellow")
    given = ServerOptions(
        sources=name_sources(models),
        weight_bits=bits,
        limits=limits,
        key_digests=digests,
        cors_origins=tuple(cors_origin or ()),
        access_log=access_log,
    )

    def describe(url: str, names: list[str]) -> list[str]:
        body = shlex.quote(json.dumps({"model": names[0], "prompt": "The ", "max_tokens": 40}))
        key = "" if digests is None else '-H "Authorization: Bearer $KEY" '
        command = [f"curl {url}/v1/completions {key}\\", "  -H 'Content-Type: application/json' \\", f"  -d {body}"]
        where = f"Serving {', '.join(names)} at {url}/v1"
        return [where, f"Fields of a request: {url}/docs. Ctrl-C ends the server. Try:", "", *command, ""]

    _run(given, host, port, describe, as_json, allowed=allowed_host or (), workers=workers)


@takes()
def demo(
    models: list[str] | None = None,
    *,
    port: _Port = 0,
    open_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    bits: int = 32,
    as_json: bool = False,
) -> None:
    """Write on a page in the browser: prompts, settings, several models, and the probability of each token.

    The page comes from a server that only this machine reaches. Ctrl-C ends it.

    Args:
        models: Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names one.  [default:
            every preset with installed weights]
    """
    _require_extra("demo")

    def describe(url: str, names: list[str]) -> list[str]:
        if open_browser:  # some browsers return when they are closed
            threading.Thread(target=_open_page, args=[url], daemon=True).start()
        return [f"The page is at {url} until Ctrl-C. Its models: {', '.join(names)}."]

    limits = Limits(shutdown_seconds=_DEMO_SECONDS)
    given = ServerOptions(sources=name_sources(models or _installed()), weight_bits=bits, limits=limits, page=True)
    _run(given, _HOST, port, describe, as_json)


def _run(
    given: ServerOptions,
    host: str,
    port: int,
    describe: Callable[[str, list[str]], list[str]],
    as_json: bool,
    allowed: Sequence[str] = (),
    workers: int = 1,
) -> None:
    """Open the port, load the models, print where the server is, and serve until Ctrl-C."""
    from reviewgen.serving.server import load_engines, open_socket, run

    listening = open_socket(host, port, given.limits.stall_seconds)
    address, port = listening.getsockname()[:2]
    given = replace(given, hosts=accepted_hosts(host, address, allowed))
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url, failed = f"http://{shown}:{port}{'/' if given.page else ''}", dict[str, str]()

    def leave_out(name: str, error: ReviewgenError) -> None:
        failed[name] = str(error)
        note(f"{name} is left out: {error}", "yellow")

    with working(f"Loading {', '.join(given.sources)} ..."):
        engines = load_engines(given, leave_out)
    names = list(engines)
    try:
        show({"url": url, "models": names, "failed": failed}, as_json, describe(url, names))
        sys.stdout.flush()
    except OSError as error:  # it serves on
        note(f"Standard output cannot be written ({error.strerror}); the server is at {url}.", "yellow")
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (the stream of the process)
    run(given, engines, listening, workers)


def _installed() -> list[str]:
    """Return the presets with installed weights, those of other packages included; the first is the one to begin with.

    Raises:
        ConfigError: There are none.
    """
    names = {plugin.name for plugin in list_presets() if plugin.problem is None}
    named = sorted((name for name in names if describe_weights(name) is not None), key=lambda name: (name != _FIRST, name))
    if not named:
        raise ConfigError("No trained weights are installed: name a model, as in `reviewgen demo ./my-model`.")
    return named


def _open_page(url: str) -> None:
    try:
        is_open = webbrowser.open(url)
    except webbrowser.Error:
        is_open = False
    if not is_open:
        note(f"No browser was found: open {url} yourself.", "yellow")


def _require_extra(command: str) -> None:
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
