"""Writes a bundle as a folder that appears whole or not at all."""

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from reviewgen.bundle.layout import CARD, CONFIG, GENERATION, NOVELTY, SCHEMA, TRAINING, WEIGHTS, Bundle, files_of
from reviewgen.config import to_dict
from reviewgen.errors import ConfigError, OutputExists, StorageError, storage_errors
from reviewgen.novelty import write_index
from reviewgen.registry import Plugin
from reviewgen.version import __version__

__all__ = ["copy_bundle", "refuse_existing", "write_bundle", "write_or_rescue"]

_DTYPES = ("float32", "float16")


def refuse_existing(folder: Path) -> None:
    """Raise where a folder to be written is there already.

    Raises:
        OutputExists: It is there.
        StorageError: No folder can be there.
    """
    with storage_errors(folder):
        if folder.exists() or folder.is_symlink():
            raise OutputExists(f"{folder} is there already. Give another folder, or remove it first.")
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise StorageError(f"{folder} may not be written: {parent} is no writable folder. Choose another place.")


def write_bundle(bundle: Bundle, folder: Path, *, overwrite: bool = False, dtype: str = "float32") -> None:
    """Write a bundle as a folder that appears whole or not at all.

    Args:
        bundle: It.
        folder: Where.
        overwrite: Whether a saved model that is there may be replaced.
        dtype: What the weights of a network are saved as; "float16" halves the file.

    Raises:
        ConfigError: The dtype is neither, or the weights do not fit it.
        OutputExists: The folder is there and ``overwrite`` is false, or what is there is no saved model.
        StorageError: The disk is full or the place may not be written; nothing is left behind.
    """
    with _appearing(folder, overwrite) as scratch:
        try:
            _write_files(bundle, scratch, dtype)
        except SafetensorError as error:  # the library wraps what the operating system said
            raise OSError(_errno_of(error), str(error)) from None


def copy_bundle(source: Path, folder: Path) -> None:
    """Copy the files of a saved model, byte for byte, into a folder that appears whole or not at all.

    Raises:
        OutputExists: The folder is there.
        StorageError: The disk is full or the place may not be written; nothing is left behind.
    """
    with _appearing(folder, overwrite=False) as scratch:
        names = files_of(json.loads((source / CONFIG).read_text(encoding="utf-8")))
        for name in sorted(name for name in names if (source / name).is_file()):
            shutil.copyfile(source / name, scratch / name)
        (scratch / CARD).touch()  # one may have been deleted on the Hub


@contextlib.contextmanager
def _appearing(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder to fill, which gets its name at the end, or is gone."""
    if not overwrite:
        refuse_existing(folder)
    with storage_errors(folder):
        if not _may_replace(folder):
            raise OutputExists(f"{folder} is there already and is no saved model, so it is not replaced. Give another folder.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield scratch
            _publish(scratch, folder, overwrite)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def write_or_rescue(bundle: Bundle, folder: Path) -> None:
    """Write a bundle, somewhere else if need be: hours of training are not lost to a full disk.

    Raises:
        StorageError: It could not be written as the folder; says where it was written instead.
    """
    try:
        write_bundle(bundle, folder)
    except OSError as error:
        rescue = Path(tempfile.mkdtemp(prefix="reviewgen-")) / folder.name
        write_bundle(bundle, rescue)
        raise StorageError(f"{error} The trained model was saved as {rescue} instead.") from None


def _may_replace(folder: Path) -> bool:
    """Return whether nothing, an empty folder or a saved model is there; a slip must not cost somebody's own files."""
    return not folder.exists() or (folder.is_dir() and ((folder / CONFIG).is_file() or not any(folder.iterdir())))


def _write_files(bundle: Bundle, folder: Path, dtype: str) -> None:
    save_file(_narrow(_apart(bundle.model.state_dict()), bundle, dtype), folder / WEIGHTS, metadata={"format": "pt"})
    bundle.tokenizer.save(folder)
    tokenizer_files = sorted(file.name for file in folder.iterdir() if file.name != WEIGHTS)
    if bundle.index is not None:
        write_index(bundle.index, folder / NOVELTY)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o666 & ~_umask())  # the library leaves them readable by their owner only
    _write_json(folder / CONFIG, _describe(bundle, tokenizer_files))
    _write_json(folder / GENERATION, to_dict(bundle.generation))
    _write_json(folder / TRAINING, bundle.training)
    (folder / CARD).write_text(bundle.card, encoding="utf-8", errors="backslashreplace")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without any that share memory, as tied weights do; only those are copied, for some are large."""
    found: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if place in places or plain.untyped_storage().nbytes() != plain.nbytes else plain
        places.add(place)
    return found


def _narrow(tensors: dict[str, Tensor], bundle: Bundle, dtype: str) -> dict[str, Tensor]:
    """Return the tensors with numbers of 32 bits as those of a dtype.

    Raises:
        ConfigError: It is none that is read again, the model is no network, or a weight is too large for it.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}.")
    if dtype == "float32":
        return tensors
    if not isinstance(bundle.model, nn.Module):
        raise ConfigError(f"dtype={dtype} is for networks, and {bundle.preset} is none: leave it out.")
    narrow = {name: tensor.half() if tensor.dtype == torch.float32 else tensor for name, tensor in tensors.items()}
    if large := [name for name, tensor in narrow.items() if not tensor.isfinite().all() and tensors[name].isfinite().all()]:
        raise ConfigError(f"{large[0]} holds numbers that are too large for dtype={dtype}: leave it out.")
    return narrow


def _describe(bundle: Bundle, tokenizer_files: list[str]) -> dict[str, Any]:
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


def _write_json(file: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    file.write_text(text, encoding="utf-8", errors="backslashreplace")  # a lone surrogate becomes JSON's own escape


def _publish(scratch: Path, folder: Path, overwrite: bool) -> None:
    """Give the finished folder its name; an old one of that name goes only when the new one stands."""
    for file in scratch.iterdir():
        _sync(file)
    scratch.chmod(0o777 & ~_umask())
    if not overwrite:
        _rename_new(scratch, folder)
        return
    aside = scratch.with_name(scratch.name + "-old")
    if os.path.lexists(folder):
        folder.rename(aside)
    try:
        scratch.rename(folder)
    except BaseException:
        if os.path.lexists(aside):
            aside.rename(folder)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)


def _rename_new(scratch: Path, folder: Path) -> None:
    """Rename where nothing is there; another program may have made a folder of that name in the meantime."""
    try:
        scratch.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise OutputExists(f"{folder} is there already. Give another folder, or remove it first.") from None
        raise


def _sync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _errno_of(error: SafetensorError) -> int:
    """Return the number of the operating system's error inside a safetensors error."""
    match = re.search(r"os error (\d+)", str(error))
    return int(match[1]) if match else errno.EIO
