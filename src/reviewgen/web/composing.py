"""Writes the page that generates texts as one HTML file. The file contains modules, manifests and
weights, and works without a network, also from ``file://``.

A browser does not load a module from a file beside the page, since a file has no origin. So the
modules are ``data:`` URLs in an import map. A ``data:`` URL has no folder, so an import of
"./links.js" from it would lead nowhere. Each such import is rewritten to the bare name
"reviewgen/links.js", which the import map contains.

The Content-Security-Policy allows two scripts by their hashes: the import map, and the script that
starts ``main.js``. By 'strict-dynamic', it also allows what this script adds and imports. It allows
no connection. 'wasm-unsafe-eval' lets these scripts compile WebAssembly, as ``tensors.js`` does for
products, but does not let them run text as JavaScript. Manifests, weights and the mark of synthetic
texts are data blocks, which do not run. In them, ``<`` is escaped, so that a vocabulary, a prompt
or a card cannot end its block.

A server delivers the same page as files. All paths are relative, so the page works below any URL
prefix. This page computes no products, so its policy does not allow WebAssembly.
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
# an import or export from "./FILE.js" at the beginning of a line: what stands before the quotation
# mark, the quotation mark, and the name of the file
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
# replaces the characters of base85 that have a meaning in HTML by characters that base85 lacks
_PLAIN = str.maketrans("&<>", ",./")
# escapes for JSON in a script element: of what could end the element, or a line of JavaScript
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
    """Return the page with models in it: one HTML file that needs no network and no other file.

    Args:
        packed: The models, in the order of their menu.
        steppers: The source of the ES module of each stepper that the models need, by the name of
            the model plugin.
        tokenizers: The source of the ES module of each tokenizer, by the name of the tokenizer
            plugin.
        title: The title of the page.
    """
    modules = {}
    for file in sorted(_STATIC.glob("*.js")):
        source = file.read_text(encoding="utf-8")
        # from "./links.js" to "reviewgen/links.js"
        modules[f"reviewgen/{file.name}"] = _IMPORT.sub(r"\1\2reviewgen/\3\2", source)
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
    """Return a value as JSON for the text of a script element, escaped so that it cannot end the
    element.
    """
    return json.dumps(value, ensure_ascii=False).translate(_ESCAPED)


def _hashes(*texts: str) -> str:
    """Return the hashes of inline scripts or styles, as a Content-Security-Policy contains them."""
    return " ".join(
        f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts
    )


def page_for_server() -> str:
    """Return the page that requests texts from a server. It loads its files from ``static/`` and
    calls ``v1/``, both relative to the page.
    """
    return render("web/page.html", title="reviewgen", policy=_SERVED_POLICY, style=None)


def static_files() -> Mapping[str, Path]:
    """Return the files that a server delivers under ``static/``, by name: the style and the
    modules.
    """
    return {file.name: file for file in sorted(_STATIC.iterdir()) if file.suffix in (".css", ".js")}
