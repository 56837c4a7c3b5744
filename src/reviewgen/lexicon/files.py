"""A lexicon on disk: one safetensors file. Equal lexicons give equal bytes.

Reading is strict, since the compiled loops do not check bounds: a damaged array must not reach them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reviewgen.errors import BundleError, quoted, storage_errors
from reviewgen.lexicon.automaton import MAX_WORDS, Automaton, node_places
from reviewgen.lexicon.lexicon import Lexicon
from reviewgen.storage import safetensors_file

_SCHEMA = "1"
_HEADER = "reviewgen.lexicon"
_PARTS = "words", "separators"


def write_lexicon(lexicon: Lexicon, file: Path) -> None:
    """Write a lexicon; an existing file is replaced.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    with storage_errors(file), safetensors_file(file):
        save_file({part: getattr(lexicon, part).nodes for part in _PARTS}, file, metadata={_HEADER: _SCHEMA})


def read_lexicon(file: Path) -> Lexicon:
    """Read a lexicon.

    Raises:
        BundleError: The file is missing, damaged, not a lexicon, or of an unknown schema.
    """
    try:
        with safe_open(file, framework="numpy") as tensors:
            schema = (tensors.metadata() or {}).get(_HEADER)
            if schema is None or set(tensors.keys()) != set(_PARTS):
                raise BundleError("is damaged, or not a lexicon: it does not have the header and arrays of one.")
            if schema != _SCHEMA:
                raise BundleError(f"has the schema {quoted(schema)}; this version of reviewgen reads schema {_SCHEMA}.")
            words, separators = (_read_part(tensors, part) for part in _PARTS)
    except BundleError as error:
        raise BundleError(f"The lexicon {file} {error}") from None
    except OSError as error:
        raise BundleError(f"The lexicon {file} cannot be read: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise BundleError(f"The lexicon {file} is damaged, or not a lexicon: {' '.join(str(error).split())}.") from None
    return Lexicon(words, separators)


def _read_part(tensors: Any, part: str) -> Automaton:
    """Return an automaton after checking it: each node comes after those that it leads to, so there are no circles.

    Raises:
        BundleError: It is damaged.
    """
    header = tensors.get_slice(part)
    if header.get_dtype() != "U32" or len(header.get_shape()) != 1 or not 2 <= header.get_shape()[0] < MAX_WORDS // 4:
        raise BundleError(f"is damaged: its {part} have a wrong dtype or shape.")
    nodes: np.ndarray = tensors.get_tensor(part)
    places = np.array(node_places(nodes))
    edges = (nodes[places] >> 1).astype(np.int64)
    if nodes[0] or places[-1] + 1 + edges[-1] != len(nodes):
        raise BundleError(f"is damaged: its {part} do not end where the array does.")
    words = np.delete(nodes, places)
    targets, owners = (words >> 8).astype(np.int64), np.repeat(np.arange(len(places)), edges)
    if not (np.isin(targets, places[1:]) & (targets < places[owners])).all():
        raise BundleError(f"is damaged: its {part} lead to nodes that do not exist.")
    if not ((np.diff((words & 255).astype(np.int64)) > 0) | (np.diff(owners) > 0)).all():
        raise BundleError(f"is damaged: the bytes of its {part} are not sorted.")
    return Automaton(nodes, int(places[-1]))
