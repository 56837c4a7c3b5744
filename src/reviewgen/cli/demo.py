"""``reviewgen demo``: opens the page in a browser, over a server of this machine that has every model."""

import threading
import webbrowser
from typing import Annotated

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.cli.serve import announcing, leave_out, require_extra
from reviewgen.errors import ConfigError
from reviewgen.registry import describe_weights, list_presets, name_of

_HOST = "127.0.0.1"  # the demo has no keys, so no other machine may reach it
_FIRST = "lstm-word"  # what the page offers first
_SHUTDOWN_SECONDS = 1.0  # texts that are not finished then are cut off


def demo(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub; NAME=MODEL names one.  "
            "[default: every preset with installed weights]",
            show_default=False,
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 0,
    open_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Whether to open the page in a browser.")] = True,
    bits: Annotated[int, typer.Option(help="The bits of a weight: 32, 16 or 8.")] = 32,
    as_json: options.AsJson = False,
) -> None:
    """Write on a page in the browser: prompts, settings, several models, and the probability of each token.

    The page comes from a server that only this machine reaches. Ctrl-C ends it.
    """
    require_extra("demo")
    from reviewgen.serving.limits import Limits
    from reviewgen.serving.models import check_names, name_source
    from reviewgen.serving.server import ServerOptions, load_engines, make_app, open_socket, run

    named = [name_source(given) for given in models or installed_models()]
    check_names(named)
    limits = Limits(shutdown_seconds=_SHUTDOWN_SECONDS)
    listening = open_socket(_HOST, port, limits.stall_seconds)
    url = f"http://{_HOST}:{listening.getsockname()[1]}/"
    failed: dict[str, str] = {}
    with notes.status(f"Loading {', '.join(name for name, _ in named)} ..."):
        loaded = load_engines(dict(named), bits, leave_out(failed), limits.max_rows)
    hosts = frozenset((_HOST,))  # as of every server that only this machine reaches
    app = make_app(ServerOptions(sources=dict(named), weight_bits=bits, limits=limits, hosts=hosts, page=True), loaded)

    def announce() -> None:
        """Print the address of the page, and open it."""
        with announcing(url):
            if as_json:
                print_json({"url": url, "models": list(loaded), "failed": failed})
            else:
                echo(f"The page is at {url} until Ctrl-C. Its models: {', '.join(loaded)}.")
        if open_browser:  # some browsers return when they are closed
            threading.Thread(target=open_page, args=[url], daemon=True).start()

    run(app, listening, announce)


def installed_models() -> list[str]:
    """Return the presets with installed weights, those of other packages included; the first is the one to begin with.

    Raises:
        ConfigError: There are none.
    """
    names = [name_of("preset", plugin.name, plugin.package) for plugin in list_presets()]
    named = sorted((name for name in names if describe_weights(name) is not None), key=lambda name: (name != _FIRST, name))
    if not named:
        raise ConfigError("No trained weights are installed: name a model, as in `reviewgen demo ./my-model`.")
    return named


def open_page(url: str) -> None:
    """Open the page in a browser; a note says if no browser was found."""
    try:
        is_open = webbrowser.open(url)
    except webbrowser.Error:
        is_open = False
    if not is_open:
        note(f"No browser was found: open {url} yourself.", "yellow")
