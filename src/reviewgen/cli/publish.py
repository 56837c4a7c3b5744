"""``reviewgen export | push | pull | search | serve | demo``: a model for other runtimes, on the
Hugging Face Hub, and over HTTP.
"""

import importlib.util
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

from reviewgen import api
from reviewgen.cli.console import Result, make_table, note, refuse_outputs, show, show_status
from reviewgen.cli.options import declared, takes
from reviewgen.config.settings import parse_duration
from reviewgen.errors import ConfigError, ReviewgenError, quoted
from reviewgen.registry.plugins import list_presets
from reviewgen.registry.saved import describe_weights
from reviewgen.serving.options import (
    Limits,
    ServerOptions,
    accepted_hosts,
    is_loopback,
    name_sources,
    read_keys,
)

_HOST = "127.0.0.1"  # the demo asks for no API key, so no other machine may reach it
# If a server listens on all addresses, the address of this machine is printed instead.
_SHOWN_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_FIRST = "lstm-word"  # the preset that the page offers first
_DEMO_SECONDS = 1.0  # after Ctrl-C, the demo waits this long for unfinished texts
# the limits that ``serve`` takes in another form, as durations such as "5m"
_SECONDS = ("request_seconds", "stall_seconds", "shutdown_seconds")
_Port = Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)]


@takes()
def export(
    model: str,
    *,
    page: Path | None = None,
    title: str | None = None,
    onnx: Path | None = None,
    transformers: Path | None = None,
    gguf: Path | None = None,
    arpa: Path | None = None,
    tokenizer: Path | None = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> Result:
    """Export a model for browsers and other runtimes.

    Args:
        page: One HTML file that contains the model, and generates without a connection.
        title: The title of the page; by default the name of the folder, repository or preset.
        onnx: The model as ONNX, with its tokenizer and settings; checked by onnxruntime.
        transformers: A transformer, as a folder that transformers loads without code.
        gguf: A transformer of words, as a file that llama.cpp runs.
        arpa: An n-gram, as an .arpa file that KenLM and SRILM read.
        tokenizer: The tokenizer alone, in the format that AutoTokenizer of transformers loads.
        bits: Bits per weight in the page: 5, 6, 8, 16 or 32; by default 8, or 6 or 5 for large
            networks.
    """
    from reviewgen.export.arpa import export_arpa
    from reviewgen.export.folders import ONNX, TRANSFORMERS, check_target, export_tokenizer
    from reviewgen.export.html import export_html
    from reviewgen.export.onnx import export_onnx
    from reviewgen.export.pretrained import export_gguf, export_transformers

    if all(target is None for target in (page, onnx, transformers, gguf, arpa, tokenizer)):
        raise ConfigError(
            "Say what to export: --out PAGE.html, --onnx FOLDER, --transformers FOLDER,"
            " --gguf FILE, --arpa FILE or --tokenizer FOLDER."
        )
    refuse_outputs(html=page, overwrite=overwrite)  # targets are checked before the model is loaded
    for folder, kind in (onnx, ONNX), (transformers, TRANSFORMERS), (tokenizer, TRANSFORMERS):
        if folder is not None:
            check_target(folder, kind, overwrite)
    if onnx is not None and transformers is not None and onnx.absolute() == transformers.absolute():
        raise ConfigError("--onnx and --transformers name the same folder; give each its own.")
    trained = api.load(model)
    facts: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    with show_status("Exporting ..."):
        if page is not None:
            export_html(trained, page, bits=bits, title=title, overwrite=overwrite)
            megabytes = page.stat().st_size / 1e6
            facts["html"] = {"file": str(page), "megabytes": round(megabytes, 3)}
            lines.append(f"Wrote {page} ({megabytes:.1f} MB).")
        if onnx is not None:
            done = export_onnx(trained, onnx, overwrite=overwrite)
            facts["onnx"] = {
                "folder": str(onnx),
                "megabytes": round(done.megabytes, 3),
                "largest_difference": done.largest_difference,
                "tokenizer_json": done.tokenizer_json,
            }
            lines.append(
                f"Wrote {onnx} ({done.megabytes:.1f} MB). onnxruntime gives the model's logits"
                f" within {done.largest_difference:.0e}."
            )
        if transformers is not None:
            export_transformers(trained, transformers, overwrite=overwrite)
            facts["transformers"] = {"folder": str(transformers)}
            lines.append(
                f"Wrote {transformers}: AutoModelForCausalLM.from_pretrained({str(transformers)!r})"
                " loads it."
            )
        if gguf is not None:
            export_gguf(trained, gguf, overwrite=overwrite)
            facts["gguf"] = {"file": str(gguf)}
            lines.append(f"Wrote {gguf}.")
        if arpa is not None:
            export_arpa(trained, arpa, overwrite=overwrite)
            facts["arpa"] = {"file": str(arpa)}
            lines.append(f"Wrote {arpa}: kenlm.Model({str(arpa)!r}) loads it.")
        if tokenizer is not None:
            export_tokenizer(trained, tokenizer, overwrite=overwrite)
            facts["tokenizer"] = {"folder": str(tokenizer)}
            lines.append(
                f"Wrote {tokenizer}: AutoTokenizer.from_pretrained({str(tokenizer)!r}) loads it."
            )
    return Result(facts, lines)


@takes()
def push(
    model: str,
    repository: str,
    *,
    license: str | None = None,
    language: str | None = None,
    message: str | None = None,
    private: bool | None = None,
    pull_request: bool = False,
    allow: str = "",
    copy_limit: float = 0.5,
    dtype: str | None = None,
    space: bool = False,
    dry_run: bool = False,
    token: str | None = None,
) -> Result:
    """Check a saved model and publish it on the Hugging Face Hub as one commit.

    Its vocabulary and 200 generated texts are scanned for personal data, and the texts for spans
    copied from the training text. This is a check, not a guarantee.

    Args:
        repository: owner/name on the Hub, optionally with @revision.
        license: A license identifier of the Hub: apache-2.0, mit, cc-by-4.0 ...
        language: The language of the texts, for the card: en, de ... Separate several by commas.
        message: The commit message.
        private: The visibility of a new repository. [default: the owner's setting]
        pull_request: Open a pull request instead of a commit.
        allow: Publish despite these findings: email, url, phone, handle, copies, text, license.
            Separate several by commas.
        copy_limit: The maximum share of 20-token windows of generated texts that may be copied.
        dtype: float16 halves the file of a neural model, int8 quarters it. [default: as it was
            saved]
        space: Also publish a page that generates with the model, as a static Space of that name.
        dry_run: Make all checks of the model, and publish nothing.
    """
    from reviewgen.export.html import push_with_space

    # the progress bars of the Hub's client would break the status line
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    trained = api.load(model)
    arguments: dict[str, Any] = {
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
    with show_status("Checking and publishing ..."):
        if dry_run:
            url = trained.push_to_hub(repository, dry_run=True, **arguments)
            line = f"All checks passed; nothing was published at {url}"
            return Result({"url": url, "published": False}, [line])
        if space:
            url, page = push_with_space(trained, repository, **arguments)
            return Result({"url": url, "space": page}, [f"Published: {url}", f"Its page: {page}"])
        url = trained.push_to_hub(repository, **arguments)
        return Result({"url": url}, [f"Published: {url}"])


@takes()
def pull(
    repository: str,
    *,
    out: Path | None = None,
    force: bool = False,
    accept_changes: bool = False,
    token: str | None = None,
) -> Result:
    """Download a model from the Hugging Face Hub into its cache (HF_HOME); from then on it loads
    without a network.

    Args:
        repository: owner/name on the Hub, optionally with @revision.
        out: Also copy the model into this folder.
        force: Download again even if the files are cached.
        accept_changes: With --out: also accept files that were edited on the Hub.
    """
    from reviewgen.hub.download import pull as pull_model

    with show_status(f"Downloading {repository} ..."):
        facts = pull_model(
            repository, out=out, token=token, force_download=force, accept_changes=accept_changes
        )
    bits = facts["bits_per_character"]
    quality = "not evaluated" if bits is None else f"{bits:.4f} bits per character"
    size = f"{facts['megabytes']:.1f} MB"
    line = f"{repository}: {facts['preset']}, {quality}, {size}, in {facts['folder']}"
    return Result(facts, [line])


@takes()
def search(
    words: list[str] | None = None,
    *,
    limit: Annotated[int, typer.Option(help="The maximum number of models.", min=1)] = 20,
    token: str | None = None,
) -> Result:
    """List the models on the Hugging Face Hub that have the tag reviewgen, which push writes.

    Args:
        words: Words in the name of the repository.  [default: every model]
    """
    from reviewgen.hub.download import search as search_hub

    with show_status("Searching ..."):
        models = search_hub(words or [], limit=limit, token=token)
    facts = {"models": models}
    if not models:
        return Result(
            facts, [f"No model has the tag reviewgen and {quoted(' '.join(words or []))}."]
        )
    rows = [["–" if value is None else value for value in model.values()] for model in models]
    columns = ("repository", "preset", "bits/char", "license")
    texts = ("repository", "preset", "license")
    return Result(facts, [make_table(*columns, rows=rows, left=texts)])


def _split(text: str) -> list[str]:
    """Split a text at its commas; empty parts are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


@takes(declared(Limits, without=_SECONDS, is_bounded=False))
def serve(
    models: list[str],
    *,
    host: str = _HOST,
    port: _Port = 8000,
    api_key_file: Path | None = None,
    cors_origin: list[str] | None = None,
    allowed_host: list[str] | None = None,
    workers: Annotated[
        int, typer.Option(help="The number of processes; each loads the models.", min=1, max=256)
    ] = 1,
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
        models: Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub;
            NAME=MODEL names one.
        host: The address to listen on; 0.0.0.0 is every address of this machine.
        api_key_file: A file of API keys, one per line; requests must have one.
        cors_origin: An origin whose pages may call the server, as in https://example.org.
        allowed_host: A host name that requests may use, such as example.org; * allows any.
            [default: the names of this machine for a loopback address, else any]
        request_timeout: The time limit of a request, after which its texts are cut off.
        stall_timeout: The time for which a client may read or send nothing.
        shutdown_timeout: The time that running requests have after SIGTERM or Ctrl-C.
        access_log: Log each request to standard error.
    """
    _require_extra("serve")
    for origin in cors_origin or ():
        scheme, _, rest = origin.partition("://")
        if origin != "*" and (scheme not in ("http", "https") or not rest or "/" in rest):
            raise ConfigError(
                f"{quoted(origin)} is not an origin: give scheme and host only, as in"
                " https://example.org, or *."
            )
    limits = Limits(
        request_seconds=parse_duration(request_timeout),
        stall_seconds=parse_duration(stall_timeout),
        shutdown_seconds=parse_duration(shutdown_timeout),
        **options,
    )
    digests = None
    remarks: list[str] = []
    if api_key_file is not None:
        digests, remarks = read_keys(api_key_file)
    elif not is_loopback(host):
        remarks = [
            f"other machines reach {host}, and the server asks for no key: give --api-key-file"
            " FILE."
        ]
    for remark in remarks:
        note(f"warning: {remark}", "yellow")
    server_options = ServerOptions(
        sources=name_sources(models),
        weight_bits=bits,
        limits=limits,
        key_digests=digests,
        cors_origins=tuple(cors_origin or ()),
        access_log=access_log,
    )

    def describe(url: str, names: list[str]) -> list[str]:
        """Return the lines to print once the models are loaded, with a command to try."""
        body = shlex.quote(json.dumps({"model": names[0], "prompt": "The ", "max_tokens": 40}))
        key = "" if digests is None else '-H "Authorization: Bearer $KEY" '
        return [
            f"Serving {', '.join(names)} at {url}/v1",
            f"Fields of a request: {url}/docs. Ctrl-C ends the server. Try:",
            "",
            f"curl {url}/v1/completions {key}\\",
            "  -H 'Content-Type: application/json' \\",
            f"  -d {body}",
            "",
        ]

    _run(server_options, host, port, describe, as_json, allowed=allowed_host or (), workers=workers)


@takes()
def demo(
    models: list[str] | None = None,
    *,
    port: _Port = 0,
    open_browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    bits: int = 32,
    as_json: bool = False,
) -> None:
    """Open a web page to generate text: prompts, settings, several models, token probabilities.

    The page comes from a server that can be reached only from this machine. Ctrl-C ends it.

    Args:
        models: Models: presets (lstm-word), saved folders (./my-model) or owner/name on the Hub;
            NAME=MODEL names one.  [default: every preset with installed weights]
    """
    _require_extra("demo")

    def describe(url: str, names: list[str]) -> list[str]:
        """Open the page, and return the line to print."""
        if open_browser:
            # in a thread, since with some browsers the call returns only when the browser is closed
            threading.Thread(target=_open_page, args=[url], daemon=True).start()
        return [f"The page is at {url} until Ctrl-C. Its models: {', '.join(names)}."]

    server_options = ServerOptions(
        sources=name_sources(models or _installed()),
        weight_bits=bits,
        limits=Limits(shutdown_seconds=_DEMO_SECONDS),
        page=True,
    )
    _run(server_options, _HOST, port, describe, as_json)


def _run(
    options: ServerOptions,
    host: str,
    port: int,
    describe: Callable[[str, list[str]], list[str]],
    as_json: bool,
    allowed: Sequence[str] = (),
    workers: int = 1,
) -> None:
    """Open the port, load the models, print where the server is, and serve until Ctrl-C.

    ``describe`` returns the lines to print, from the address and the names of the models.
    """
    from reviewgen.serving.server import load_engines, open_socket, run

    listening = open_socket(host, port, options.limits.stall_seconds, workers)
    address, port = listening.getsockname()[:2]  # if the port was 0, this is the free one it took
    options = replace(options, hosts=accepted_hosts(host, address, allowed))
    url_host = f"[{host}]" if ":" in host else host  # an IPv6 address has brackets in a URL
    path = "/" if options.page else ""
    url = f"http://{_SHOWN_HOSTS.get(host, url_host)}:{port}{path}"
    failed: dict[str, str] = {}

    def leave_out(name: str, error: ReviewgenError) -> None:
        """Note that a model could not be loaded; the others are served without it."""
        failed[name] = str(error)
        note(f"{name} is left out: {error}", "yellow")

    with show_status(f"Loading {', '.join(options.sources)} ..."):
        engines = load_engines(options, leave_out)
    names = list(engines)
    show({"url": url, "models": names, "failed": failed}, as_json, describe(url, names))
    sys.stdout.flush()
    run(options, engines, listening, workers)


def _installed() -> list[str]:
    """Return the names of the presets with installed weights, from all packages. The page of the
    demo starts with the first of them.

    Raises:
        ConfigError: No weights are installed.
    """
    names = sorted(plugin.name for plugin in list_presets() if plugin.problem is None)
    with_weights = [name for name in names if describe_weights(name) is not None]
    if not with_weights:
        raise ConfigError(
            "No trained weights are installed: name a model, as in `reviewgen demo ./my-model`."
        )
    return sorted(with_weights, key=lambda name: name != _FIRST)  # False comes before True


def _open_page(url: str) -> None:
    """Open a page in the browser; if there is none, tell the user the address."""
    if not webbrowser.open(url):
        note(f"No browser was found: open {url} yourself.", "yellow")


def _require_extra(command: str) -> None:
    """Check that the packages which only the server needs are installed.

    Raises:
        ConfigError: A package is missing; the message says what to install.
    """
    for name in "prometheus_client", "starlette", "uvicorn":
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"{command} needs {name}: pip install 'reviewgen[serve]'.")
