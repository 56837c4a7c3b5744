"""Writes a bundle as a folder that appears whole or not at all. Needs torch."""

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reviewgen.bundle.layout import (
    CARD,
    CONFIG,
    GENERATION,
    LEXICON,
    MANIFEST,
    NOVELTY,
    PARTS,
    SCHEMA,
    SCRATCH,
    TOLERATED,
    TRAINING,
    WEIGHTS,
    Bundle,
    files_of,
    fingerprint,
)
from reviewgen.bundle.manifest import SavedFile, changing, compare, digest_files, read_manifest, write_manifest
from reviewgen.bundle.read import read_bundle
from reviewgen.bundle.tensors import FORMAT, SCALE, SavedTensors, digest_of
from reviewgen.bundle.tokenizer_files import save_tokenizer
from reviewgen.config import (
    MAX_RECORD,
    MAX_SETTINGS,
    GenerationConfig,
    check_saved_generation,
    dump_json,
    encode_text,
    read_json,
    to_dict,
)
from reviewgen.errors import BundleError, ConfigError, OutputExists, StorageError, quoted, storage_errors
from reviewgen.lexicon import write_lexicon
from reviewgen.novelty import Index, write_index
from reviewgen.registry import Plugin, find_weights
from reviewgen.storage import (
    default_mode,
    fsync_folder,
    new_folder,
    refuse_existing,
    safetensors_errors,
    write_file,
)
from reviewgen.version import __version__

_DTYPES = ("float32", "float16", "int8")
_LARGEST_INT8 = 127


def write_bundle(bundle: Bundle, folder: Path, *, overwrite: bool = False, dtype: str = "float32") -> None:
    """Write a bundle as a folder that appears whole or not at all.

    Args:
        bundle: The model to save.
        folder: The target folder.
        overwrite: Whether to replace a saved model or an empty folder that exists there.
        dtype: The dtype of a neural model's saved weights: "float16" halves the file, and "int8" quarters it, with a scale for
            each row of a matrix.

    Raises:
        ConfigError: The dtype is unknown, the model is not a neural one, or a weight is too large for the dtype.
        OutputExists: The folder exists and ``overwrite`` is false, or it exists and is not a saved model, or has other files.
        StorageError: The disk is full or the folder cannot be written; nothing is left behind.
        BundleError: A file would be too large to be read again.
        BrokenPlugin: The tokenizer cannot be saved; see ``save_tokenizer``.
    """
    with _new_model_folder(folder, overwrite) as scratch, safetensors_errors():
        _write_files(bundle, scratch, dtype)


def copy_bundle(
    source: Path, folder: Path, generation: GenerationConfig | None = None, digests: Mapping[str, str] | None = None
) -> None:
    """Copy the files of a saved model, byte for byte, into a folder that appears whole or not at all.

    A copy of a blend that shares the weights of installed presets has them in a file of its own.

    Args:
        source: The saved model.
        folder: The new folder.
        generation: Generation defaults, in place of those of the saved model.
        digests: The SHA-256 of each file when the model was loaded.

    Raises:
        BundleError: The weights that a blend shares are not installed, or are other ones; or the saved model does not exist, or
            has changed since it was loaded.
        OutputExists: The folder exists.
        StorageError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    if not (source / CONFIG).is_file():
        raise _gone(source)
    with _new_model_folder(folder, overwrite=False) as scratch:
        config = read_json(source / CONFIG)
        names = files_of(config)
        for name in sorted(name for name in names if (source / name).is_file()):
            shutil.copyfile(source / name, scratch / name)
        (scratch / MANIFEST).unlink(missing_ok=True)
        if digests is not None:
            _refuse_changes(source, digest_files(scratch, names), digests, with_defaults=generation is None)
        (scratch / CARD).touch()  # the card may have been deleted on the Hub
        if parts := config.pop(PARTS, {}):
            with safetensors_errors():
                _save_tensors(*_store_once(SavedTensors.find(source, parts).load_as_stored(load_file)), scratch / WEIGHTS)
            (scratch / WEIGHTS).chmod(default_mode())
            _write_json(scratch / CONFIG, config)
        if generation is not None:
            _write_json(scratch / GENERATION, to_dict(generation))


def share_weights(folder: Path, presets: Sequence[str]) -> None:
    """Remove the weights of a saved blend that are those of installed presets, and name the presets in its config instead.

    The folder is replaced in one step.

    Args:
        folder: The saved blend.
        presets: The preset of each part, in order.

    Raises:
        BundleError: The weights of a preset are not installed, or are not those of the part; or a file of the blend or of the
            installed weights has changed since it was saved.
    """
    config = read_json(folder / CONFIG)
    installed = {preset: find_weights(preset) for preset in presets}
    for each in (folder, *filter(None, installed.values())):
        names = files_of(read_json(each / CONFIG))
        saved = read_manifest(each, names)
        if saved is not None:
            compare(each, saved, digest_files(each, names))
    parts = {preset: digest_of(found / WEIGHTS) for preset, found in installed.items() if found is not None}
    shared, own = (_widen(SavedTensors.find(folder, each).load_as_stored(load_file)) for each in (parts, {}))
    if len(parts) < len(presets) or shared.keys() != own.keys() or not all(shared[name].equal(own[name]) for name in own):
        raise BundleError(f"The parts of {folder} are not the installed weights of {', '.join(presets)}.")
    with _new_model_folder(folder, overwrite=True) as scratch:
        for name in sorted(files_of(config) - {WEIGHTS, MANIFEST}):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, scratch / name)
        _write_json(scratch / CONFIG, config | {PARTS: parts})


def _widen(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file as they are used: float16 as float32, int8 matrices times their scales."""
    scaled = {name for name, tensor in stored.items() if tensor.dtype == torch.int8 and name + SCALE in stored}
    return {
        name: tensor * stored[name + SCALE][:, None]
        if name in scaled
        else tensor.float()
        if tensor.dtype == torch.half
        else tensor
        for name, tensor in stored.items()
        if name.removesuffix(SCALE) not in scaled or name in scaled
    }


def save_defaults(bundle: Bundle, folder: Path, generation: GenerationConfig) -> None:
    """Save generation defaults in the folder that a model was loaded from, or in a copy of it.

    Args:
        bundle: The model.
        folder: Its folder, or one that does not exist, into which the model is copied.
        generation: The defaults.

    Raises:
        OutputExists: The folder is another one, and exists.
        StorageError: The disk is full or the folder cannot be written.
        ConfigError: The model was not loaded from a folder, or the defaults are above the limits of a saved model.
    """
    check_saved_generation(generation)
    if bundle.folder is None:
        raise ConfigError("The model was not loaded from a folder: save it with save_pretrained, and load it.")
    if not (bundle.folder / CONFIG).is_file():
        raise _gone(bundle.folder)
    with storage_errors(folder):
        is_own = folder.is_dir() and folder.samefile(bundle.folder)
    if not is_own:
        copy_bundle(bundle.folder, folder, generation, bundle.digests)
        return
    with changing(folder):
        names = files_of(read_json(folder / CONFIG))
        _refuse_changes(folder, digest_files(folder, names), bundle.digests, with_defaults=False)
        bundle.digests[GENERATION] = _replace_defaults(folder, names, generation)


def _replace_defaults(folder: Path, names: Collection[str], generation: GenerationConfig) -> str:
    """Replace the generation defaults of a saved model, and return the SHA-256 of the file."""
    scratch = folder / SCRATCH
    with storage_errors(folder):
        try:
            write_file(scratch, dump_json(to_dict(generation)))
            new = digest_files(folder, [SCRATCH])[SCRATCH]
            write_manifest(folder, names, {GENERATION: new})
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
        with contextlib.suppress(FileNotFoundError):  # then a process that reads has done it: see ``finish_defaults``
            scratch.replace(folder / GENERATION)
        fsync_folder(folder)
    return new.sha256


def accept_changes(folder: Path) -> list[str]:
    """Write the manifest of a saved model for its files as they are now, and return the names of those that had changed.

    Raises:
        BundleError: The model cannot be read with these files.
        StorageError: The folder cannot be written.
    """
    read_bundle(folder, accept_changes=True)
    with changing(folder):
        names = files_of(read_json(folder / CONFIG))
        try:
            before = read_manifest(folder, names) or {}
        except BundleError:
            before = {}
        with storage_errors(folder):
            write_manifest(folder, names)
        now = digest_files(folder, names)
    return [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]


def _gone(folder: Path) -> BundleError:
    return BundleError(f"{folder}, from which the model was loaded, no longer exists. Save it with save_pretrained.")


def _refuse_changes(folder: Path, now: Mapping[str, SavedFile], loaded: Mapping[str, str], *, with_defaults: bool = True) -> None:
    """Raise if the files of a folder, with or without its generation defaults, are not those that a model was loaded from.

    Raises:
        BundleError: One of them differs.
    """
    present = {name: file.sha256 for name, file in now.items()}
    for name in sorted(present.keys() | loaded.keys()):
        if present.get(name) != loaded.get(name) and (with_defaults or name != GENERATION):
            raise BundleError(f"{name} of {folder} has changed since the model was loaded. Load it again.")


def write_or_rescue(bundle: Bundle, folder: Path, *, overwrite: bool = False) -> None:
    """Write a bundle, into a temporary folder if the target fails, so that a full disk does not lose hours of training.

    Raises:
        StorageError: The target could not be written; the message names the folder that was written instead.
    """
    try:
        write_bundle(bundle, folder, overwrite=overwrite)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="reviewgen-")) / folder.name
        write_bundle(bundle, rescue)
        raise StorageError(f"{error} The trained model was saved as {rescue} instead.") from None


@contextlib.contextmanager
def _new_model_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder that becomes a saved model; raises as ``write_bundle``."""
    if not overwrite:
        refuse_existing(folder)
    with storage_errors(folder):
        _refuse_others(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(folder, overwrite=overwrite) as scratch:
            yield scratch
            write_manifest(scratch)


def _refuse_others(folder: Path) -> None:
    """Raise unless nothing, an empty folder or a saved model alone exists there; a typo must not cost the user other files.

    Raises:
        OutputExists: Something else does.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        config = read_json(folder / CONFIG)
        known = files_of(config) | TOLERATED if isinstance(config, dict) and config.get("library") == "reviewgen" else None
    except (OSError, ValueError, BundleError):  # not a folder, without a config, or with a damaged one
        known = None
    if known is None:
        raise OutputExists(f"{folder} already exists and is not a saved model, so it is not replaced. Give another folder.")
    if others := sorted(path.name for path in folder.iterdir() if path.name not in known or path.is_dir()):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise OutputExists(
            f"{folder} already exists and has other files than a saved model, {quoted(others[0])}{more}, so it is not replaced. "
            "Move them, or give another folder."
        )


def _write_files(bundle: Bundle, folder: Path, dtype: str) -> None:
    tokenizer_files = save_tokenizer(bundle.tokenizer, bundle.tokenizer_plugin.name, folder)
    tensors, names = _store_once(bundle.model.state_dict())
    _save_tensors(_narrow(tensors, names, bundle, dtype), names, folder / WEIGHTS)
    if bundle.index is not None:
        write_index(_with_fingerprint(bundle.index, bundle), folder / NOVELTY)
    if bundle.lexicon is not None:
        write_lexicon(bundle.lexicon, folder / LEXICON)
    for file in folder.glob("*.safetensors"):
        file.chmod(default_mode())  # the library leaves them readable by their owner only
    _write_json(folder / CONFIG, _config_json(bundle, tokenizer_files))
    _write_json(folder / GENERATION, to_dict(bundle.generation))
    _write_json(folder / TRAINING, bundle.training, MAX_RECORD)
    with _bounds(folder / CARD):
        (folder / CARD).write_bytes(encode_text(bundle.card))


def _with_fingerprint(index: Index, bundle: Bundle) -> Index:
    """Return an index that belongs to the model as it is saved now; its tokenizer may have had other settings before."""
    return replace(
        index, fingerprint=fingerprint(bundle.training, bundle.tokenizer_plugin.name, to_dict(bundle.tokenizer_config))
    )


def _save_tensors(tensors: dict[str, Tensor], names: Mapping[str, str], file: Path) -> None:
    """Write the tensors of a model, and the further names of tied ones."""
    save_file(tensors, file, metadata={FORMAT: "pt", **names})


def _store_once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors of which no two share memory, and the stored name of each name that is left out.

    Tied weights are stored under their first name. Views of one tensor that are not the same are copied.
    """
    stored: dict[str, Tensor] = {}
    kept_names: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    pointers: set[int] = set()
    for name, tensor in tensors.items():
        kept = kept_names.setdefault((tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()), name)
        if kept != name and name != FORMAT and tensor.numel():
            names[name] = kept
            continue
        plain = tensor.detach().cpu().contiguous()
        pointer = plain.untyped_storage().data_ptr()
        is_view = plain.untyped_storage().nbytes() != plain.nbytes
        stored[name] = plain.clone() if pointer in pointers or is_view else plain
        pointers.add(pointer)
    return stored, names


def _narrow(tensors: dict[str, Tensor], names: Mapping[str, str], bundle: Bundle, dtype: str) -> dict[str, Tensor]:
    """Return the tensors with float32 ones converted to float16, or its matrices to int8; see ``reviewgen.bundle.tensors``.

    Args:
        tensors: The tensors to store.
        names: The further names of tied ones.
        bundle: The model.
        dtype: See ``write_bundle``.

    Raises:
        ConfigError: The dtype cannot be read again, the model is not a neural one, or a weight is too large for the dtype.
    """
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}; got {quoted(dtype)}.")
    if dtype == "float32":
        return tensors
    if not isinstance(bundle.model, nn.Module):
        raise ConfigError(f"dtype={dtype} is for neural models, and {bundle.preset} is not one: leave it out.")
    own_scales = {name.removesuffix(SCALE) for name in [*tensors, *names] if name.endswith(SCALE)}
    unscaled = own_scales | {names[name] for name in own_scales if name in names}
    matrices = {name for name in tensors if dtype == "int8" and name not in unscaled and _can_be_scaled(tensors[name])}
    narrow = {
        name: tensor.half() if tensor.dtype == torch.float32 else tensor
        for name, tensor in tensors.items()
        if name not in matrices
    }
    if large := [name for name, tensor in narrow.items() if not tensor.isfinite().all() and tensors[name].isfinite().all()]:
        raise ConfigError(f"{large[0]} holds weights that are too large for dtype={dtype}: leave it out.")
    for name in matrices:
        narrow[name], narrow[name + SCALE] = _quantize(tensors[name])
    return narrow


def _can_be_scaled(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.dim() == 2 and bool(tensor.isfinite().all())


def _quantize(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return a float32 matrix as int8, (R, C), and the scale of each row, (R,)."""
    scales = matrix.abs().amax(dim=1) / _LARGEST_INT8
    scales = torch.where(scales > 0, scales, 1.0)
    return (matrix / scales[:, None]).round().clamp(-_LARGEST_INT8, _LARGEST_INT8).to(torch.int8), scales


def _config_json(bundle: Bundle, tokenizer_files: list[str]) -> dict[str, Any]:
    """Return the content of config.json."""
    model, tokenizer = bundle.model_plugin, bundle.tokenizer_plugin
    return {
        "schema": SCHEMA,
        "library": "reviewgen",
        "library_version": __version__,
        "preset": bundle.preset,
        "model": _plugin_facts(model) | {"config": to_dict(bundle.model.config)},
        "tokenizer": _plugin_facts(tokenizer) | {"config": to_dict(bundle.tokenizer_config), "files": tokenizer_files},
        **({"conditions": bundle.conditions.to_json()} if bundle.conditions else {}),
    }


def _plugin_facts(plugin: Plugin) -> dict[str, str]:
    return {"name": plugin.name, "distribution": plugin.package, "version": plugin.version}


def _write_json(file: Path, value: Any, max_bytes: int = MAX_SETTINGS) -> None:
    with _bounds(file):
        file.write_bytes(dump_json(value, max_bytes))


@contextlib.contextmanager
def _bounds(file: Path) -> Iterator[None]:
    """Turn the error about a file that could not be read again into a sentence.

    Raises:
        BundleError: It is too large, or has a number that is NaN or infinite.
    """
    try:
        yield
    except ValueError as error:
        raise BundleError(f"{file.name} of the model cannot be saved: {error}.") from None
