"""``reviewgen export | push | pull``: a model for browsers and other runtimes; to and from the Hugging Face Hub."""

import os
from pathlib import Path
from typing import Any

from reviewgen.cli.console import Result, working
from reviewgen.cli.options import takes
from reviewgen.errors import ConfigError, quoted


@takes()
def export(
    model: str,
    *,
    html: Path | None = None,
    onnx: Path | None = None,
    transformers: Path | None = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> Result:
    """Export a model for browsers and other runtimes.

    Args:
        html: One HTML file with the model inside, which generates without a network.
        onnx: The model as ONNX, with its tokenizer and settings; checked by onnxruntime.
        transformers: The tokenizer, as AutoTokenizer of transformers loads it.
        bits: Of a weight in the page: 5, 6, 8, 16 or 32; by default 8, in large networks 6 or 5.
    """
    if html is None and onnx is None and transformers is None:
        raise ConfigError("Say what to export: --html PAGE.html, --onnx FOLDER or --transformers FOLDER.")
    from reviewgen import export as formats
    from reviewgen.api import load
    from reviewgen.export.folders import ONNX, TRANSFORMERS, check_target
    from reviewgen.web.rendering import refuse_file

    if html is not None:  # targets are checked before the model is loaded
        refuse_file(html, overwrite=overwrite)
    for folder, kind in ((onnx, ONNX), (transformers, TRANSFORMERS)):
        if folder is not None:
            check_target(folder, kind, overwrite)
    if onnx is not None and transformers is not None and onnx.absolute() == transformers.absolute():
        raise ConfigError("--onnx and --transformers name the same folder; give each its own.")
    trained, facts, lines = load(model), dict[str, Any](), list[str]()
    with working("Exporting ..."):
        if html is not None:
            formats.export_html(trained, html, bits=bits, overwrite=overwrite)
            megabytes = html.stat().st_size / 1e6
            facts["html"] = {"file": str(html), "megabytes": round(megabytes, 3)}
            lines.append(f"Wrote {html} ({megabytes:.1f} MB).")
        if onnx is not None:
            done = formats.export_onnx(trained, onnx, overwrite=overwrite)
            facts["onnx"] = {"folder": str(onnx), "megabytes": round(done.megabytes, 3)}
            facts["onnx"] |= {"largest_difference": done.largest_difference, "tokenizer_json": done.tokenizer_json}
            lines.append(
                f"Wrote {onnx} ({done.megabytes:.1f} MB). onnxruntime gives the model's logits within "
                f"{done.largest_difference:.0e}."
            )
        if transformers is not None:
            formats.export_transformers(trained, transformers, overwrite=overwrite)
            facts["transformers"] = {"folder": str(transformers)}
            lines.append(f"Wrote {transformers}: AutoTokenizer.from_pretrained({str(transformers)!r}) loads it.")
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
    token: str | None = None,
) -> Result:
    """Check a saved model and publish it on the Hugging Face Hub as one commit.

    Its vocabulary and 200 generated texts are scanned for personal data, and the texts for spans copied from the training text.
    This is a check, not a guarantee.

    Args:
        repository: owner/name on the Hub, optionally with @revision.
        license: A license identifier of the Hub: apache-2.0, mit, cc-by-4.0 ...
        language: The language of the texts, for the card: en, de ... Separate several by commas.
        message: The commit message.
        private: The visibility of a new repository. [default: the owner's setting]
        pull_request: Open a pull request instead of a commit.
        allow: Publish despite these findings: email, url, phone, handle, copies, text, license. Separate several by commas.
        copy_limit: The maximum share of 20-token windows of generated texts that may be copied.
        dtype: float16 halves the file of a neural model, int8 quarters it. [default: as it was saved]
        space: Also publish a page that generates with the model, as a static Space of that name.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # the client's bars would break the status line
    from reviewgen.api import load

    if dtype not in (None, "float32", "float16", "int8"):
        raise ConfigError(f"--dtype must be float32, float16 or int8; got {quoted(dtype)}.")
    trained = load(model)
    given: dict[str, Any] = {"commit_message": message, "private": private, "token": token, "create_pr": pull_request}
    given |= {"license": license, "model_card_kwargs": {} if language is None else {"language": _split(language)}}
    given |= {"allow": _split(allow), "copy_limit": copy_limit, "dtype": dtype}
    with working("Checking and publishing ..."):
        if space:
            from reviewgen.export import push_with_space

            url, page = push_with_space(trained, repository, **given)
            facts, lines = {"url": url, "space": page}, [f"Its page: {page}"]
        else:
            facts, lines = {"url": trained.push_to_hub(repository, **given)}, []
    return Result(facts, [f"Published: {facts['url']}", *lines])


@takes()
def pull(
    repository: str, *, out: Path | None = None, force: bool = False, accept_changes: bool = False, token: str | None = None
) -> Result:
    """Download a model from the Hugging Face Hub into its cache (HF_HOME); from then on it loads without a network.

    Args:
        repository: owner/name on the Hub, optionally with @revision.
        out: Also copy the model into this folder.
        force: Download again even if the files are cached.
        accept_changes: With --out: also take files that were edited on the Hub.
    """
    from reviewgen.hub.download import pull as pull_model

    with working(f"Downloading {repository} ..."):
        facts = pull_model(repository, out=out, token=token, force_download=force, accept_changes=accept_changes)
    bits = facts["bits_per_character"]
    quality = "not evaluated" if bits is None else f"{bits:.4f} bits per character"
    return Result(facts, [f"{repository}: {facts['preset']}, {quality}, {facts['megabytes']:.1f} MB, in {facts['folder']}"])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
