"""Writes the folder of a saved model, copies such a folder, and changes single files in it. A new
folder appears only once it is complete. Needs torch.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reviewgen.compiled.linear import quantize
from reviewgen.config.bounded import MAX_RECORD, MAX_SETTINGS, dump_json, encode_text, read_json
from reviewgen.config.generation import GenerationConfig, check_saved_generation
from reviewgen.config.settings import to_dict
from reviewgen.errors import (
    BrokenPlugin,
    BundleError,
    ConfigError,
    OutputExists,
    ReviewgenError,
    StorageError,
    quoted,
    storage_errors,
)
from reviewgen.formats.bigrams import write_bigrams
from reviewgen.lexicon.lexicon import write_lexicon
from reviewgen.novelty import write_index
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.registry.saved import saved_facts
from reviewgen.saving import layout
from reviewgen.saving.layout import Bundle
from reviewgen.saving.read import read_bundle
from reviewgen.saving.tensors import FORMAT, SCALE, SavedTensors
from reviewgen.storage import (
    atomic_file,
    atomic_folder,
    check_output,
    safetensors_file,
    temporary_folder,
)
from reviewgen.version import __version__

_DTYPES = ("float32", "float16", "int8")
_MAX_REASON = 200  # maximum characters of a plugin's own error message


def write_bundle(
    bundle: Bundle, folder: Path, *, overwrite: bool = False, dtype: str = "float32"
) -> None:
    """Write a bundle as a folder. The folder appears only once it is complete.

    Args:
        bundle: The model to save.
        folder: The target folder.
        overwrite: Whether to replace a saved model or an empty folder at this path.
        dtype: The dtype of a neural model's saved weights. "float16" halves the size of the file.
            "int8" quarters the size, and stores a scale for each row of a matrix.

    Raises:
        ConfigError: The dtype is unknown, the model is not a neural one, or a weight is too large
            for the dtype.
        OutputExists: The folder exists, and ``overwrite`` is false; or the folder to replace is not
            a saved model, or has files that do not belong to one.
        StorageError: The disk is full or the folder cannot be written; nothing is left behind.
        BundleError: A file would be too large to be read again, or has a number that is NaN or
            infinite.
        BrokenPlugin: The tokenizer cannot be saved; see ``save_tokenizer``.
    """
    with _new_model_folder(folder, overwrite) as scratch:
        tokenizer_plugin = bundle.tokenizer_plugin
        tokenizer_files = save_tokenizer(bundle.tokenizer, tokenizer_plugin.name, scratch)
        tensors, tied = _store_once(bundle.model.state_dict())
        _save_tensors(_narrow(tensors, tied, bundle, dtype), tied, scratch / layout.WEIGHTS)
        # the tokenizer's config may have changed since the index was read
        if bundle.index is not None:
            fingerprint = layout.fingerprint(
                bundle.training, tokenizer_plugin.name, to_dict(bundle.tokenizer_config)
            )
            write_index(replace(bundle.index, fingerprint=fingerprint), scratch / layout.NOVELTY)
        if bundle.lexicon is not None:
            write_lexicon(bundle.lexicon, scratch / layout.LEXICON)
        if bundle.bigrams is not None:
            write_bigrams(bundle.bigrams, scratch / layout.BIGRAMS)
        config: dict[str, Any] = {
            "schema": layout.SCHEMA,
            "library": "reviewgen",
            "library_version": __version__,
            "preset": bundle.preset,
            "model": saved_facts(bundle.model_plugin, bundle.model.config),
            "tokenizer": saved_facts(tokenizer_plugin, bundle.tokenizer_config),
        }
        config["tokenizer"]["files"] = tokenizer_files
        if bundle.conditions:
            config["conditions"] = bundle.conditions.to_json()
        _write(scratch / layout.CONFIG, config)
        _write(scratch / layout.GENERATION, to_dict(bundle.generation))
        _write(scratch / layout.TRAINING, bundle.training, MAX_RECORD)
        _write(scratch / layout.CARD, bundle.card)


def write_or_rescue(bundle: Bundle, folder: Path, *, overwrite: bool = False) -> None:
    """Write a bundle. If the target folder cannot be written, write the bundle into a temporary
    folder instead, so that hours of training are not lost when a disk is full.

    Raises:
        StorageError: The target could not be written. The message names the folder that was written
            instead.
    """
    try:
        write_bundle(bundle, folder, overwrite=overwrite)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="reviewgen-")) / folder.name
        write_bundle(bundle, rescue)
        raise StorageError(f"{error} The trained model was saved as {rescue} instead.") from None


def copy_bundle(bundle: Bundle, folder: Path, generation: GenerationConfig | None = None) -> None:
    """Copy the files that a model was loaded from, byte for byte. The new folder appears only once
    it is complete.

    If the model is a blend that uses the installed weights of presets, the copy gets a weights file
    of its own.

    Args:
        bundle: The model.
        folder: The new folder.
        generation: Generation defaults that replace those of the saved model.

    Raises:
        BundleError: The saved model no longer exists, or has changed since it was loaded; or the
            installed weights that a blend uses are missing or have changed.
        OutputExists: The folder exists.
        StorageError: The disk is full or the folder cannot be written; nothing is left behind.
    """
    saved = bundle.folder
    if saved is None or not (saved / layout.CONFIG).is_file():
        raise BundleError(
            f"{saved}, from which the model was loaded, no longer exists. Save it with"
            " save_pretrained."
        )
    with _new_model_folder(folder, overwrite=False) as scratch:
        config = read_json(saved / layout.CONFIG)
        names = layout.files_of(config) - {layout.MANIFEST}
        for name in names:
            if (saved / name).is_file():
                shutil.copyfile(saved / name, scratch / name)
        for name in layout.find_changes(bundle.digests, layout.digest_files(scratch, names)):
            # changed generation defaults are no error if they are replaced below
            if generation is None or name != layout.GENERATION:
                raise BundleError(
                    f"{name} of {saved} has changed since the model was loaded. Load it again."
                )
        (scratch / layout.CARD).touch()  # a user may have deleted the card on the Hub
        if layout.SHARED_WEIGHTS in config:
            shared = SavedTensors.find(saved, config.pop(layout.SHARED_WEIGHTS))
            tensors, tied = _store_once(shared.load_as_stored(load_file))
            _save_tensors(tensors, tied, scratch / layout.WEIGHTS)
            _write(scratch / layout.CONFIG, config)
        if generation is not None:
            _write(scratch / layout.GENERATION, to_dict(generation))


def save_defaults(bundle: Bundle, folder: Path, generation: GenerationConfig) -> None:
    """Save generation defaults in the folder that a model was loaded from, or in a copy of it.

    Args:
        bundle: The model.
        folder: The model's folder, or a new folder that becomes a copy of the model.
        generation: The defaults.

    Raises:
        OutputExists: The folder exists and is not the one that the model was loaded from.
        StorageError: The disk is full or the folder cannot be written.
        ConfigError: The model was not loaded from a folder, or a default exceeds the limits for a
            saved model.
    """
    check_saved_generation(generation)
    if bundle.folder is None:
        raise ConfigError(
            "The model was not loaded from a folder: save it with save_pretrained, and load it."
        )
    with storage_errors(folder):
        if not bundle.is_saved_in(folder):
            copy_bundle(bundle, folder, generation)
            return
        manifest = layout.read_manifest(folder)
        with atomic_file(folder / layout.GENERATION) as new:
            new.write_bytes(dump_json(to_dict(generation)))
        facts = layout.digest_files(folder, [layout.GENERATION])
        bundle.digests |= facts
        # The entries of the other files are kept, so that changes of these files are still found.
        if manifest is not None:
            layout.write_manifest(folder, manifest | facts)


def accept_changes(folder: Path) -> list[str]:
    """Write a new manifest for the current files of a saved model. Return the names of the files
    that had changed.

    Raises:
        BundleError: The model cannot be read from the current files, or is of transformers.
        StorageError: The folder cannot be written.
    """
    bundle = read_bundle(folder, accept_changes=True)
    if bundle.folder is None:
        raise BundleError(
            f"{folder} is of transformers and has no manifest, so there is nothing to accept."
        )
    now = bundle.digests
    before: dict[str, layout.FileFacts] = {}
    with contextlib.suppress(BundleError):  # a damaged manifest is replaced
        before = layout.read_manifest(folder) or {}
    with storage_errors(folder):
        layout.write_manifest(folder, now)
    return layout.find_changes(before, now)


def check_tokenizer_files(tokenizer: Tokenizer, name: str) -> None:
    """Check that a tokenizer can be saved, before a model is trained with it. Raises the errors of
    ``save_tokenizer``.
    """
    with temporary_folder() as folder:
        save_tokenizer(tokenizer, name, folder)


def save_tokenizer(tokenizer: Any, name: str, folder: Path) -> list[str]:
    """Save a tokenizer into an empty folder, and return the names of its files.

    The tokenizer is a plugin, which chooses the names of its files. So this function checks that no
    other file of a saved model has such a name.

    Args:
        tokenizer: The tokenizer.
        name: The name of the tokenizer's plugin.
        folder: The folder.

    Raises:
        BrokenPlugin: The tokenizer writes a file with a reserved name, a subfolder, a link or a
            program, or it cannot be saved.
        OSError: The operating system refused a step.
    """
    try:
        tokenizer.save(folder)
    except (OSError, ReviewgenError):
        raise
    except Exception as error:  # a plugin's code may raise anything
        reason = f"{type(error).__name__}: {error!s:.{_MAX_REASON}}"
        raise BrokenPlugin(f"The tokenizer {name!r} cannot be saved: {reason}") from error
    paths = sorted(folder.iterdir())
    if odd := [path.name for path in paths if path.is_symlink() or not path.is_file()]:
        raise BrokenPlugin(
            f"The tokenizer {name!r} saves {ascii(odd[0])[:60]}, which is not a plain file: a saved"
            " model has no subfolders and no links."
        )
    files = [path.name for path in paths]
    try:
        layout.files_of({"tokenizer": {"files": files}})
    except BundleError as error:
        raise BrokenPlugin(
            f"The tokenizer {name!r} saves files that no saved model can have: {error}"
        ) from None
    return files


@contextlib.contextmanager
def _new_model_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a scratch folder that becomes the saved model when the block ends. Raises the errors of
    ``write_bundle``.
    """
    if not overwrite:
        check_output(folder)
    with storage_errors(folder):
        refuse_other_files(folder)
        with atomic_folder(folder, overwrite=overwrite) as scratch:
            yield scratch
            layout.write_manifest(scratch)


def refuse_other_files(folder: Path) -> None:
    """Raise if a folder may not be replaced by a saved model, since it is neither empty nor a saved
    model without further files. So a mistyped path does not delete the user's files.

    Raises:
        OutputExists: The folder has other files, or the path is not a folder.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    problem = "is not a saved model"
    # raised if the path is not a folder, or has no config.json of this library
    with contextlib.suppress(OSError, ValueError, BundleError, AttributeError):
        config = read_json(folder / layout.CONFIG)
        known = layout.files_of(config) | layout.TOLERATED
        if config.get("library") == "reviewgen":
            paths = sorted(folder.iterdir())
            others = [path.name for path in paths if path.name not in known or path.is_dir()]
            if not others:
                return
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            problem = f"has files that are not of a saved model, {quoted(others[0])}{more}"
    raise OutputExists(
        f"{folder} already exists and {problem}, so it is not replaced. Give another folder."
    )


def _write(file: Path, content: Any, max_bytes: int = MAX_SETTINGS) -> None:
    """Write a text, or a value as JSON.

    Raises:
        BundleError: The content could not be read again: it is too large, or has a number that is
            NaN or infinite.
    """
    try:
        file.write_bytes(
            encode_text(content) if isinstance(content, str) else dump_json(content, max_bytes)
        )
    except ValueError as error:
        raise BundleError(f"{file.name} of the model cannot be saved: {error}.") from None


def _save_tensors(tensors: dict[str, Tensor], tied: Mapping[str, str], file: Path) -> None:
    """Write the tensors of a model. The metadata of the file holds the further names of tied
    tensors.
    """
    with safetensors_file(file):
        save_file(tensors, file, metadata={FORMAT: "pt", **tied})


def _store_once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Prepare tensors for a file in which no two tensors may share memory. Return the tensors to
    store; and a map from each further name of a tied tensor to the name under which the tensor is
    stored, which is its first.

    Tensors that share memory but are different views of it are copied.
    """
    stored: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first_names: dict[tuple[Any, ...], str] = {}
    pointers: set[int] = set()  # the addresses of the memory of the stored tensors
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        first = first_names.setdefault(view, name)
        # A tensor named FORMAT is always stored, since that key of the metadata has another
        # meaning; and so is an empty tensor, whose address says nothing.
        if first != name and name != FORMAT and tensor.numel():
            tied[name] = first
            continue
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        is_view = memory.nbytes() != plain.nbytes  # of a part of the memory
        stored[name] = plain.clone() if is_view or memory.data_ptr() in pointers else plain
        pointers.add(memory.data_ptr())
    return stored, tied


def _narrow(
    tensors: dict[str, Tensor], tied: Mapping[str, str], bundle: Bundle, dtype: str
) -> dict[str, Tensor]:
    """Convert float32 tensors to float16. If ``dtype`` is "int8", convert float32 matrices to int8
    with scales instead. The formats are described in ``reviewgen.saving.tensors``.

    Args:
        tensors: The tensors to store.
        tied: The map from each further name of a tied tensor to its stored name.
        bundle: The model.
        dtype: See ``write_bundle``.

    Raises:
        ConfigError: The dtype is unknown, the model is not a neural one, or a weight is too large
            for the dtype.
    """
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}; got {quoted(dtype)}.")
    if dtype == "float32":
        return tensors
    if not isinstance(bundle.model, nn.Module):
        raise ConfigError(
            f"dtype={dtype} is for neural models, and {bundle.preset} is not one: leave it out."
        )
    names = {*tensors, *tied}
    # Matrices that cannot become int8: the model already has a tensor with the name that the tensor
    # of the scales would get.
    kept = {tied.get(name, name) for name in names if name + SCALE in names}
    narrow: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_float32 = tensor.dtype == torch.float32
        is_finite = bool(tensor.isfinite().all())
        can_be_int8 = is_float32 and is_finite and tensor.dim() == 2 and name not in kept
        if dtype == "int8" and can_be_int8:
            rounded, scales = quantize(tensor.cpu().numpy(), 8)
            narrow[name] = torch.from_numpy(rounded).to(torch.int8)
            narrow[name + SCALE] = torch.from_numpy(scales)
            continue
        narrow[name] = tensor.half() if is_float32 else tensor
        if is_finite and not narrow[name].isfinite().all():
            raise ConfigError(
                f"{name} holds weights that are too large for dtype={dtype}: leave it out."
            )
    return narrow
