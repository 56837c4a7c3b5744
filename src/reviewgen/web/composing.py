"""The page as one HTML file that works without a network, from ``file://`` too: modules, manifests
and weights inside.

A browser loads no module from a file beside the page (a file has no origin), so the modules are
``data:`` URLs in an import map. A ``data:`` URL has no folder, so an import of "./links.js" from it
leads nowhere: each is rewritten to the bare name "reviewgen/links.js", which the import map knows.

The Content-Security-Policy allows two scripts by their hashes, the import map and the one that
starts ``main.js``, and what that one adds and imports ('strict-dynamic'); it allows no connection.
'wasm-unsafe-eval' lets these scripts compile WebAssembly, as ``tensors.js`` does for products, and
no text as JavaScript. Manifests and weights are data blocks, which do not run; in them ``<`` is
escaped, so that no vocabulary, prompt or card ends its block.

A server hands out the same page as files, by relative paths, so that any prefix will do. That page
computes no products, so its policy allows no WebAssembly.
"""

import json
import re
from base64 import b64encode, b85encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from reviewgen.web.rendering import render

_STATIC = Path(__file__).with_name("static")
_IMPORT = re.compile(r"""^((?:import|export)\b[^;"']*?)(["'])\./([\w-]+\.js)\2""", re.MULTILINE)
_START = """
// A policy with 'strict-dynamic' allows what an allowed script adds.
const script = document.createElement("script");
script.type = "module";
script.src = import.meta.resolve("reviewgen/main.js");
document.head.append(script);
"""
_SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " base-uri 'none'; form-action 'none'"
)
# in the alphabet of base85: characters that mean nothing in HTML
_PLAIN = str.maketrans("&<>", ",./")
_ESCAPED = str.maketrans({"<": "\\u003c", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class PackedModel(NamedTuple):
    """A model as the browser loads it.

    Attributes:
        manifest: Its contents, as JSON values.
        blob: Its arrays, compressed with deflate (RFC 1951).
    """

    manifest: Mapping[str, Any]
    blob: bytes


def compose(
    packed: Sequence[PackedModel],
    steppers: Mapping[str, str],
    tokenizers: Mapping[str, str],
    title: str = "reviewgen",
) -> str:
    """Return the page with models inside: one HTML file that needs no network and no other file.

    Args:
        packed: The models, in the order of their menu.
        steppers: The source of a stepper's ES module by the model's name: those that the models
            need.
        tokenizers: The same of tokenizers.
        title: The title of the page.
    """
    front_end = {
        file.name: file.read_text(encoding="utf-8") for file in sorted(_STATIC.glob("*.js"))
    }
    modules = {
        f"reviewgen/{name}": _IMPORT.sub(r"\1\2reviewgen/\3\2", source)
        for name, source in front_end.items()
    }
    modules |= {f"stepper/{name}": source for name, source in steppers.items()}
    modules |= {f"tokenizer/{name}": source for name, source in tokenizers.items()}
    urls = {
        name: f"data:text/javascript;base64,{b64encode(source.encode()).decode()}"
        for name, source in modules.items()
    }
    imports = _data_block({"imports": urls})
    style = (_STATIC / "page.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(imports, _START)} 'strict-dynamic'"
        f" 'wasm-unsafe-eval'; style-src {_hashes(style)}; img-src data:; base-uri 'none';"
        " form-action 'none'"
    )
    contents = {
        "models": [model.manifest for model in packed],
        "steppers": sorted(steppers),
        "tokenizers": sorted(tokenizers),
    }
    return render(
        "web/page.html",
        title=title,
        policy=policy,
        style=Markup(style),  # our own file, as are the scripts; the data blocks are escaped
        imports=Markup(imports),
        start=Markup(_START),
        contents=Markup(_data_block(contents)),
        blobs=[b85encode(model.blob).decode("ascii").translate(_PLAIN) for model in packed],
    )


def _data_block(value: Any) -> str:
    """Return a JSON value as the text of a script element, which it cannot end."""
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED)


def _hashes(*texts: str) -> str:
    """Return inline scripts or styles as a Content-Security-Policy names them."""
    return " ".join(
        f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts
    )


def page_for_server() -> str:
    """Return the page that asks a server for texts: it takes its files from ``static/`` and calls
    ``v1/`` beside it.
    """
    return render("web/page.html", title="reviewgen", policy=_SERVED_POLICY, style=None)


def static_files() -> Mapping[str, Path]:
    """Return the files that a server hands out under ``static/``, by name: the style and the
    modules.
    """
    return {file.name: file for file in sorted(_STATIC.iterdir()) if file.suffix in (".css", ".js")}
