"""``export_html``: trained models in one HTML page that generates in the browser, without a server
or a network.

``push_with_space`` publishes a model with such a page on the Hub.

For each model, a page contains a JSON manifest and a blob of arrays that are compressed with
deflate. docs/reference/page-format.md describes the format, and ``web/static/model.js`` reads it.
The matrices of a model that was trained by gradient descent are stored with 5, 6 or 8 bits per
weight and a scale for each row, or with 16 or 32 bits. For 8, 16 and 32 bits the values are the
same as those that ``save_pretrained(dtype=...)`` stores. All other arrays, such as those of an
n-gram, are stored unchanged.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from reviewgen.blending.model import Blend
from reviewgen.compiled.linear import quantize
from reviewgen.config.bounded import MAX_RECORD, read_text
from reviewgen.config.settings import check_list, check_text, to_dict
from reviewgen.errors import BundleError, ConfigError, HubError, UnknownPlugin, quoted
from reviewgen.export.folders import read_tokenizer_files
from reviewgen.formats.bigrams import ask_model
from reviewgen.hub.card import brief_facts, metadata_of
from reviewgen.hub.download import parse_repository
from reviewgen.hub.publish import inspect_repository, inspect_space, push_space
from reviewgen.lexicon.lexicon import joined_automata
from reviewgen.model.review_model import ReviewModel
from reviewgen.protocols.model import CountTrained
from reviewgen.registry.metadata import Plugin
from reviewgen.registry.plugins import find_web_stepper, find_web_tokenizer
from reviewgen.registry.saved import plugin_of_saved
from reviewgen.saving.layout import Bundle
from reviewgen.storage import temporary_folder, to_path
from reviewgen.web.composing import PackedModel, compose
from reviewgen.web.rendering import refuse_file, save_text

BITS = (5, 6, 8, 16, 32)
# pairs of the bits per weight, and the max number of weights that get them; larger networks get 5
_DEFAULT_BITS = ((8, 4_000_000), (6, 5_000_000))
_ALIGNMENT = 8  # the offset of each array is a multiple of this many bytes
# The dtypes for which JavaScript has typed arrays. Other dtypes are stored as a narrower dtype.
_DTYPES = {"float32", "float64", "int32", "int16", "int8", "uint32", "uint16", "uint8"}
_NARROWER = {"int64": np.int32, "uint64": np.uint32, "bool": np.uint8}


def export_html(
    model: ReviewModel | Sequence[ReviewModel],
    path: str | os.PathLike[str],
    *,
    bits: int | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page that contains models: one HTML file that works without a network, also when it
    is opened from ``file://``.

    Args:
        model: A model, or several models to generate with side by side.
        path: The file; its suffix must be .html.
        bits: Bits per weight: 5, 6 or 8 (with a scale for each row of a matrix), 16 or 32. The
            default is 8; it is 6 for networks with more than 4 million weights, and 5 for more than
            5 million. Fewer bits hardly make such networks worse.
        title: The title of the page. By default the names of the models. The name of a model is
            that of the folder or repository that it was loaded from, or that of its preset.
        overwrite: Whether to replace an existing file.

    Returns:
        The file.

    Raises:
        ConfigError: A setting is out of range, the suffix is not .html, or a model is a blend of
            models with different tokenizers.
        UnknownPlugin: The package of a model or of a tokenizer has no JavaScript for it.
        OutputExists: The file exists, and ``overwrite`` is false.
        StorageError: The disk is full, or the folder is not writable; nothing is left behind.
    """
    file = refuse_file(to_path("path", path), overwrite=overwrite)
    check_text("title", title, optional=True)
    models = (
        [model] if isinstance(model, ReviewModel) else check_list("model", model, "[ngram, lstm]")
    )
    if not models or not all(isinstance(item, ReviewModel) for item in models):
        raise ConfigError(
            "export_html takes a ReviewModel, as reviewgen.load returns it, or a list of them."
        )
    bundles = [item.bundle for item in models]
    steppers, tokenizers = _scripts(bundles)
    names = _names(bundles)
    packed = [pack(bundle, name, bits) for bundle, name in zip(bundles, names, strict=True)]
    save_text(compose(packed, steppers, tokenizers, title or " · ".join(names)), file)
    return file


def push_with_space(
    model: ReviewModel, repo_id: str, *, bits: int | None = None, **options: Any
) -> tuple[str, str]:
    """Publish a model on the Hugging Face Hub, and a page that runs the model as a static Space
    with the same name.

    The card links to the Space, and the Space to the model. A page is made before anything is
    published, so that nothing is published if the page cannot be made. After the model is
    published, the page is made again, with the published card.

    Args:
        model: The model.
        repo_id: ``owner/name``.
        bits: Bits per weight in the page; see ``export_html``.
        options: The options of ``ReviewModel.push_to_hub``, except revision and create_pr.

    Returns:
        The URL of the model's commit, and the URL of the Space.

    Raises:
        ConfigError: A revision or a pull request is requested, or an option is out of range.
        UnknownPlugin: The package of the model or of its tokenizer has no JavaScript for it.
        NotPublished: The scan of the model found something that is not allowed.
        HubError: The Hub cannot be reached, or refused the request; or the Space was not published
            by reviewgen; or the Space is public and the model private.
    """
    target = parse_repository(repo_id, options.get("revision"))
    if target.revision is not None or options.get("create_pr"):
        raise ConfigError(
            "A Space shows the model of the branch main: leave out the revision or pull request, or"
            " the Space."
        )
    named = replace(model.bundle, origin=target.repo_id)
    token = options.get("token")
    _compose(named, bits)  # raises if the page cannot be made
    is_private = options.get("private") or inspect_repository(target, token).is_private
    inspect_space(target, is_private, token)
    card = {**(options.pop("model_card_kwargs", None) or {}), "space": target.repo_id}
    message = options.get("commit_message") or f"Publish {model.preset} with reviewgen"
    address = model.push_to_hub(repo_id, model_card_kwargs=card, **options)
    try:
        # Ask for the visibility again, since it may come from the owner's defaults.
        published = inspect_repository(target, token)
        page = _compose(replace(named, card=published.card), bits)
        listed = metadata_of(published.card).get("license")
        license = listed if isinstance(listed, str) else None  # a Space accepts no list of licenses
        return address, push_space(page, target, license, published.is_private, message, token)
    except HubError as error:
        raise HubError(
            "The model was published, but its Space was not; rerun the same command to retry."
            f" {error}"
        ) from None


def _compose(bundle: Bundle, bits: int | None) -> str:
    """Return the HTML of a model's page."""
    with temporary_folder() as scratch:
        file = export_html(ReviewModel(bundle), scratch / "index.html", bits=bits)
        return file.read_text(encoding="utf-8")


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Return the name of each model in the page. It is the name of the model's repository, folder
    or preset, with a number if an earlier model has the same name.
    """
    names = list[str]()
    for bundle in bundles:
        origin = bundle.origin or bundle.preset
        # a repository without its revision
        path = origin.partition("@")[0] if origin.startswith("hf://") else origin
        base = Path(path).resolve().name
        # NAME-2, NAME-3 and so on
        numbered = (f"{base}-{number}" for number in count(2))
        names.append(next(name for name in chain([base], numbered) if name not in names))
    return names


def _scripts(bundles: Sequence[Bundle]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the JavaScript that models need: the scripts of their steppers, by the name of the
    model plugin, and the scripts of their tokenizers, by the name of the tokenizer plugin.

    Raises:
        ConfigError: A model is a blend of models with different tokenizers.
        UnknownPlugin: A model or a tokenizer has no JavaScript.
    """
    steppers = dict[str, str]()
    tokenizers = dict[str, str]()
    for bundle in bundles:
        for model in _models_of(bundle.model_plugin, to_dict(bundle.model.config)):
            steppers[model.name] = _script("model", model.name, find_web_stepper(model))
        tokenizer = bundle.tokenizer_plugin
        script = find_web_tokenizer(tokenizer)
        tokenizers[tokenizer.name] = _script("tokenizer", tokenizer.name, script)
    return steppers, tokenizers


def _models_of(model: Plugin, config: Mapping[str, Any]) -> list[Plugin]:
    """Return the plugins of a model and of its components.

    Raises:
        ConfigError: The model is a blend of models with different tokenizers.
    """
    plugins = [model]
    components = config["models"] if model.name == "blend" else ()
    for entry in components:
        if "characters" in entry:  # its tokenizer differs
            raise ConfigError(
                "A page cannot run a blend of models with different tokenizers: use `reviewgen"
                " serve`."
            )
        plugins += _models_of(plugin_of_saved("model", entry), entry["config"])
    return plugins


def _script(kind: str, name: str, script: Path | None) -> str:
    """Return the JavaScript in a file. ``kind`` and ``name`` are those of its plugin."""
    if script is None:
        raise UnknownPlugin(
            f"The {kind} {name!r} has no JavaScript (entry points reviewgen.web_steppers,"
            " .web_tokenizers), so no page can run it. Use `reviewgen serve` or `reviewgen demo`,"
            " which show the same page, or `reviewgen export --onnx`."
        )
    return read_text(script, MAX_RECORD)


def pack(bundle: Bundle, name: str | None = None, bits: int | None = None) -> PackedModel:
    """Convert a trained model to the form in which a page loads it.

    Args:
        bundle: The model.
        name: The name of the model in the page; by default the name of its preset.
        bits: Bits per weight of a matrix; see ``export_html``.

    Raises:
        ConfigError: ``bits`` is not one of ``BITS``.
        BundleError: A page cannot read a tensor, or a file of the tokenizer.
    """
    if bits is None:
        # only matrices of weights count, and not the arrays of counts
        tensors = bundle.model.state_dict().values()
        weights = sum(
            tensor.numel() for tensor in tensors if tensor.ndim == 2 and tensor.is_floating_point()
        )
        bits = next((width for width, max_weights in _DEFAULT_BITS if weights <= max_weights), 5)
    if not isinstance(bits, int) or bits not in BITS:
        raise ConfigError(f"bits must be one of {', '.join(map(str, BITS))}; got {quoted(bits)}.")
    blob = _Blob()
    # One array has the nodes of up to three automata: for valid UTF-8, known words and separators.
    # ``roots`` has the first node of each. The nodes of the last two begin at ``lexicon_start``.
    nodes, roots, lexicon_start = joined_automata(bundle.lexicon)
    files = {
        file: np.frombuffer(_shorten(text).encode(), np.uint8)
        for file, text in read_tokenizer_files(bundle).items()
    }
    manifest = {
        "id": name or bundle.preset,
        "preset": bundle.preset,
        "model": {"name": bundle.model_plugin.name, "config": to_dict(bundle.model.config)},
        "tokenizer": {
            "name": bundle.tokenizer_plugin.name,
            "config": to_dict(bundle.tokenizer_config),
            "files": {file: blob.add(content) for file, content in files.items()},
        },
        "tensors": _add_tensors(bundle.model, bits, blob),
        "conditions": bundle.conditions.to_json(),
        "defaults": to_dict(bundle.generation),
        "facts": brief_facts(bundle),
        "card": bundle.card,
        "spelling": blob.add(nodes) | {"roots": roots, "known": lexicon_start},
        "bigrams": _add_bigrams(bundle, blob),
    }
    return PackedModel(manifest, blob.deflated + b"\x03\x00")  # an empty last block ends the stream


class _Blob:
    """A sequence of little-endian arrays. The offset of each array is a multiple of 8 bytes. Each
    array is compressed by itself (deflate, RFC 1951).
    """

    def __init__(self) -> None:
        self.size = 0  # bytes before the compression
        self.deflated = b""

    def add(self, array: np.ndarray, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> dict[str, Any]:
        """Append an array. Return its dtype, its shape, its offset in bytes and its number of
        elements.
        """
        padding = -self.size % _ALIGNMENT  # up to the next multiple
        entry = {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "offset": self.size + padding,
            "length": array.size,
        }
        little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        content = bytes(padding) + little_endian.tobytes()
        # raw deflate at the best level; after a full flush, no later array refers to this one
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, strategy)
        self.deflated += deflate.compress(content) + deflate.flush(zlib.Z_FULL_FLUSH)
        self.size += len(content)
        return entry


def _add_bigrams(bundle: Bundle, blob: _Blob) -> dict[str, Any]:
    """Append the bigrams of a model to the blob. For a model that was saved without them, they are
    estimated from the model. Return the entry of each array by name.
    """
    tokenizer = bundle.tokenizer
    bigrams = bundle.bigrams
    if bigrams is None:
        stepper = ReviewModel(bundle).generator.stepper
        bigrams = ask_model(stepper, tokenizer.vocab_size, tokenizer.bos_id)
    is_small = tokenizer.vocab_size <= 1 << 16
    arrays = {
        "starts": bigrams.starts.astype(np.int32),
        "followers": bigrams.followers.astype(np.uint16 if is_small else np.int32),
        "probs": bigrams.probs,
        "unigrams": bigrams.unigrams,
    }
    return {name: blob.add(array) for name, array in arrays.items()}


def _add_tensors(model: Any, bits: int, blob: _Blob) -> dict[str, Any]:
    """Append the tensors of a model to the blob; tensors that are tied to one another are appended
    only once. Return the entry of each tensor by name.
    """
    models = {"": model}  # by the prefix of the names of their tensors
    if isinstance(model, Blend):
        models = {f"{number}.": component for number, component in enumerate(model.components)}
    # the prefixes of the models that were trained by counting, whose tensors are stored unchanged
    counted = tuple(prefix for prefix, part in models.items() if isinstance(part, CountTrained))
    entries = dict[str, Any]()
    stored = dict[tuple[Any, ...], dict[str, Any]]()
    for name, tensor in model.state_dict().items():
        # tied tensors have the same memory; empty tensors may have the same, but are not tied
        memory = tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if memory not in stored or not tensor.numel():
            on_cpu = tensor.detach().cpu()
            if on_cpu.is_floating_point() and on_cpu.dtype.itemsize == 2:
                on_cpu = on_cpu.float()  # ``bits`` decides how the tensor is stored
            tensor_bits = 32 if name.startswith(counted) else bits
            stored[memory] = _add_tensor(name, on_cpu.numpy(), tensor_bits, blob)
        entries[name] = stored[memory]
    return entries


def _add_tensor(name: str, array: np.ndarray, bits: int, blob: _Blob) -> dict[str, Any]:
    """Append a tensor to the blob. A float32 matrix is stored with ``bits`` bits per weight."""
    if array.dtype.name in _NARROWER:
        narrow = array.astype(_NARROWER[array.dtype.name])
        if not np.array_equal(array, narrow):
            raise BundleError(
                f"The tensor {name} holds integers beyond 32 bits, which a page cannot read."
            )
        array = narrow
    if array.dtype.name not in _DTYPES:
        raise BundleError(
            f"The tensor {name} has the dtype {array.dtype.name}, which a page cannot read."
        )
    is_finite_matrix = array.dtype == np.float32 and array.ndim == 2 and np.isfinite(array).all()
    if bits == 32 or not is_finite_matrix:
        return blob.add(array)
    if bits == 16:
        return blob.add(array.astype(np.float16))
    numbers, scales = quantize(array, bits)
    # Huffman coding only: a search for repeated strings gains nothing, since they occur only by
    # chance in weights
    entry = blob.add(numbers.astype(np.int8), zlib.Z_HUFFMAN_ONLY)
    scale = blob.add(scales)
    return entry | {"scales": {"offset": scale["offset"], "length": scale["length"]}}


def _shorten(text: str) -> str:
    """Remove the white space between JSON values. A text that is not JSON is returned unchanged."""
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return text
