"""The README of a model in ONNX: what goes in and out, and programs in Python and JavaScript that generate with it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from reviewgen.export.onnx_graph import flatten_state
from reviewgen.export.tokenizer_files import MODULE, find_script
from reviewgen.version import __version__

if TYPE_CHECKING:
    from reviewgen.model import Bundle, ReviewModel

_ARRAYS = {  # of JavaScript, by the name of the type in onnxruntime-web
    "float32": "Float32Array",
    "float64": "Float64Array",
    "float16": "Uint16Array",
    "int64": "BigInt64Array",
    "int32": "Int32Array",
    "int16": "Int16Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
}


def write_readme(model: "ReviewModel", has_json: bool) -> str:
    """Return the README; ``has_json`` says whether the tokenizer is in the format of the library tokenizers."""
    bundle, first = model.bundle, flatten_state(model.bundle.model.initial_state(1))
    inputs = (f"| `state_{number}` | {_axes(part)} | {_dtype(part)} |" for number, part in enumerate(first))
    values = {
        "preset": model.preset,
        "version": __version__,
        "inputs": "\n".join(inputs),
        "outputs": ", ".join(f"`new_state_{number}`" for number in range(len(first))) or "no state",
        "vocab_size": str(model.conditions.vocab_size),
        "conditions": _conditions(model),
        "tokenizer": _describe_tokenizer(bundle, has_json),
        "packages": "tokenizers" if has_json else f"reviewgen {bundle.tokenizer_plugin.package}",
        "python": _python(bundle, first, has_json),
        "javascript": _javascript(bundle, first),
    }
    return _fill("onnx_readme.md", values)


def _fill(template: str, values: dict[str, str]) -> str:
    text = Path(__file__).with_name(template).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _dtype(part: Tensor) -> str:
    return str(part.dtype).removeprefix("torch.")


def _axes(part: Tensor) -> str:
    return ", ".join(["batch", *map(str, part.shape[1:])])


def _conditions(model: "ReviewModel") -> str:
    if not len(model.conditions):
        return ""
    return f": the beginning of a text, then one id for each of {', '.join(model.conditions.names)}, listed in `condition_ids`"


def _describe_tokenizer(bundle: "Bundle", has_json: bool) -> str:
    name = bundle.tokenizer_plugin.name
    if not has_json:
        return (
            f"The tokenizer is `{name}` of the package {bundle.tokenizer_plugin.package}, which reads its files in this folder."
        )
    return (
        f"`tokenizer.json` is the tokenizer, `{name}`, in the format of the library tokenizers; with the two files beside it, "
        "`AutoTokenizer.from_pretrained` of transformers reads this folder, too."
    )


def _python(bundle: "Bundle", first: list[Tensor], has_json: bool) -> str:
    name = bundle.tokenizer_plugin.name
    state = (f'"state_{number}": np.zeros({tuple(part.shape)}, np.{_dtype(part)})' for number, part in enumerate(first))
    own = "from pathlib import Path\n\nfrom reviewgen.registry import find_tokenizer"
    values = {
        "import_tokenizer": "from tokenizers import Tokenizer" if has_json else own,
        "load_tokenizer": 'Tokenizer.from_file("tokenizer.json")' if has_json else f'find_tokenizer("{name}")[0].load(Path())',
        "encode": 'tokenizer.encode("The").ids' if has_json else 'tokenizer.encode("The")',
        "state": ", ".join(state),
    }
    return _fill("onnx_generate.py.template", values).rstrip()


def _javascript(bundle: "Bundle", first: list[Tensor]) -> str:
    if find_script(bundle) is None:
        return f"The tokenizer `{bundle.tokenizer_plugin.name}` has no form in JavaScript; onnxruntime-web runs `model.onnx`."
    zeros = (f"new {_ARRAYS[_dtype(part)]}({math.prod(part.shape)}), {list(part.shape)}" for part in first)
    state = (
        f'state_{number}: new ort.Tensor("{_dtype(part)}", {value})'
        for number, (part, value) in enumerate(zip(first, zeros, strict=True))
    )
    program = _fill("onnx_generate.mjs.template", {"state": ", ".join(state)}).rstrip()
    return (
        f"In Node; `{MODULE}` is the tokenizer. A page in a browser fetches the files in place of reading them.\n\n"
        f"```bash\nnpm install onnxruntime-web\n```\n\n```javascript\n{program}\n```"
    )
