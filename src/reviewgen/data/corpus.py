"""Make the cleaned corpus: Arrow files of texts, their conditions and their splits, from the units
of a source.

    raw/0-00012-00000.arrow   the cleaned texts of a part of a source, with their hashes and what
                              cleaning did
    raw/0-00012-00000.lines   the same without repeated lines, if they are dropped
    corpus/00012.arrow        the same without duplicates, with the split of each text; a file of
                              ``datasets``
    corpus/corpus.json        how the sources were read, written last

The division into these parts depends on the source only. The split of a text depends on its content
hash, so the split is the same in any order and in any process. A source of one long text is
different: it is cut into blocks for the splits (see ``documents``). Memory grows by 9 bytes for
each text.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from reviewgen.conditions import label_of
from reviewgen.config.bounded import MAX_RECORD, read_json
from reviewgen.data.cleaning import (
    CleaningReport,
    add_reports,
    first_of_each,
    hash_text,
    note_mojibake,
)
from reviewgen.data.columns import Example, SourceInfo
from reviewgen.data.documents import SPLIT_CYCLE, cut_text, divide_text, find_repeated_lines
from reviewgen.data.parts import (
    Filters,
    SharedJob,
    read_column,
    read_part,
    rows_of,
    size_of,
    split_by_part,
    write_part,
)
from reviewgen.data.sources import SPLITS, Source
from reviewgen.data.tables import Unit
from reviewgen.data.weighting import (
    compare_languages,
    count_copies,
    describe_times,
    find_times,
    join_sources,
)
from reviewgen.errors import DataError, counted

if TYPE_CHECKING:
    import pyarrow

CORPUS_FILE = "corpus.json"
HELD_OUT = 0.05  # share of the texts for validation; test gets the same share
# The code of a text is the index of its split in SPLITS, or the reason why it is in no split:
_DUPLICATE = 3
_NEAR_DUPLICATE = 4
_LEAKING = 5
_SAMPLE_CHARACTERS = 1 << 24  # characters of a source that are searched for repeated lines
_NAMED = 5  # number of repeated lines that a message shows
_PART_CHARACTERS = 1 << 22  # min characters in each part of a unit that several processes share

Cut: TypeAlias = Callable[[str], list[str]]
"""A function that cuts a long text into consecutive pieces."""


@dataclass
class Corpus:
    """The cleaned texts of a source, each with its split, and the facts about them.

    Attributes:
        fingerprint: A hash of the texts, their splits and their condition values.
        source: How the source was read.
        report: What cleaning did.
        counts: The number of texts of each split.
        validation: ``source`` and ``report`` of a separate validation source; None if there is
            none.
        notes: Sentences that the user should see.
        names: The conditions.
        files: The Arrow files of the texts; empty if only the facts are known, as in a token store.
        corpora: The corpora that this one is joined from, if they have weights; else empty.
        weight, times: If this is one of several joined corpora, its weight, and how often its
            training texts are read in an epoch.
    """

    fingerprint: str
    source: SourceInfo
    report: CleaningReport
    counts: Mapping[str, int]
    validation: tuple[SourceInfo, CleaningReport] | None = None
    notes: list[str] = field(default_factory=list)
    names: Sequence[str] = ()
    files: Sequence[Path] = ()
    corpora: Sequence["Corpus"] = ()
    weight: float = 1.0
    times: float = 1.0

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Return the corpus in a folder.

        Raises:
            OSError, ValueError, KeyError, TypeError: The corpus is missing or damaged.
        """
        facts = read_json(folder / CORPUS_FILE, MAX_RECORD)
        corpus = cls.from_json(facts, folder)
        if not all(file.is_file() for file in corpus.files):
            raise FileNotFoundError(f"{folder} has lost a part")
        return corpus

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""

        def described(source: SourceInfo, report: CleaningReport) -> dict[str, Any]:
            return {"stream": asdict(source), "cleaning": asdict(report)}

        corpora = [
            {
                **corpus.to_json(),
                "weight": corpus.weight,
                "times": corpus.times,
                "parts": [file.name for file in corpus.files],
            }
            for corpus in self.corpora
        ]
        return {
            "fingerprint": self.fingerprint,
            "texts": dict(self.counts),
            "source": described(self.source, self.report),
            "validation": described(*self.validation) if self.validation else None,
            "notes": self.notes,
            "conditions": list(self.names),
            **({"corpora": corpora} if corpora else {}),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], folder: Path | None = None) -> "Corpus":
        """Return the corpus that ``to_json`` has described. Without ``folder``, it has no texts."""

        def read(entry: Mapping[str, Any]) -> tuple[SourceInfo, CleaningReport]:
            return SourceInfo(**entry["stream"]), CleaningReport(**entry["cleaning"])

        second = read(facts["validation"]) if facts["validation"] else None
        return cls(
            facts["fingerprint"],
            *read(facts["source"]),
            counts=facts["texts"],
            validation=second,
            notes=list(facts["notes"]),
            names=facts.get("conditions", ()),
            files=[folder / name for name in facts["parts"]] if folder else (),
            corpora=[cls.from_json(entry, folder) for entry in facts.get("corpora", ())],
            weight=facts.get("weight", 1.0),
            times=facts.get("times", 1.0),
        )

    def texts(self, split: str) -> Iterator[str]:
        """Yield the texts of a split, in the order of the source."""
        return (text for (text,) in rows_of(self.files, ["text"], SPLITS.index(split)))

    def column(self, name: str) -> Iterator[str | float | None]:
        """Yield the value of a condition of each training text."""
        return (value for (value,) in rows_of(self.files, [name], SPLITS.index("train")))

    def conditions(self, split: str) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of each text of a split."""
        return (values for _, values in self.examples(split))

    def examples(self, split: str) -> Iterator[Example]:
        """Yield the texts of a split with their condition values."""
        rows = rows_of(self.files, ["text", *self.names], SPLITS.index(split))
        return ((text, values) for text, *values in rows)

    @property
    def times_of_files(self) -> list[float]:
        """How often the training texts of each file are read in an epoch."""
        times = dict.fromkeys(self.files, 1.0)
        for corpus in self.corpora:
            times |= dict.fromkeys(corpus.files, corpus.times)
        return list(times.values())

    @property
    def splits(self) -> np.ndarray:
        """The split of each text, (texts,) uint8, an index into ``SPLITS``."""
        return read_column(self.files, "split", np.uint8)

    @property
    def split_method(self) -> Literal["hash", "blocks", "source"]:
        """How texts are held out: by the hash of each, as blocks of one long text, or as a separate
        validation source.
        """
        if self.validation is not None:
            return "source"
        return "blocks" if self.source.is_one_text else "hash"

    def describe_held_out(self) -> str:
        """Describe for the user how texts are held out."""
        if self.corpora and self.validation is None:
            return "; ".join(dict.fromkeys(corpus.describe_held_out() for corpus in self.corpora))
        if self.split_method == "blocks":
            blocks = self.counts["validation"] + self.counts["test"]
            characters = round(self.report.characters * 2 * HELD_OUT / blocks)
            return (
                f"{blocks:,} blocks of about {characters:,} characters, spread evenly over one"
                " text, each between two parts of the training text"
            )
        return {"hash": "texts chosen by a hash of each", "source": "a separate source"}[
            self.split_method
        ]


def training_texts(file: Path, times: float = 1.0) -> list[str]:
    """Return the training texts of a part, each repeated as often as it is read in an epoch."""
    texts = [text for (text,) in rows_of([file], ["text"], 0)]
    if times == 1:
        return texts
    copies = map(itertools.repeat, texts, count_copies(texts, times).tolist())
    return list(itertools.chain.from_iterable(copies))


def make_corpus(
    sources: Sequence[Source], work: SharedJob, filters: Filters, weights: Sequence[float] = ()
) -> Corpus:
    """Read and clean sources into the folder ``corpus`` of a job.

    Files that an interrupted earlier run of the job has finished are kept.

    Args:
        sources: The source, or one source for each weight; then the validation source, if any.
        work: The job and its processes; all processes call this function.
        filters: Which texts are left out.
        weights: For several sources, the share of each in the characters to train on.

    Raises:
        DataError: A source cannot be read, or too few texts are left after cleaning.
        StorageError: The disk is full.
        WorkerError: A worker process was killed.
    """
    folder = work.job.path("corpus")
    count = len(weights) or 1  # number of sources to train on
    if work.job.done(f"corpus/{CORPUS_FILE}"):
        return Corpus.open(folder)
    work.progress("Reading and cleaning")
    cleaned = _clean_all(sources, count, work)
    notes = _assign_splits(cleaned, count, filters, work)
    work.progress("Writing the corpus")
    members, training_characters = _write_texts(cleaned, folder, work)
    counts = {split: sum(member.counts[split] for member in members) for split in SPLITS}
    validation = (members[-1].source, members[-1].report) if len(members) > count else None
    names = members[0].names
    info = members[0].source
    report = members[0].report
    corpora = members[:count] if weights else []
    files = list(itertools.chain(*(member.files for member in members)))
    if corpora:
        notes = [*_weigh(corpora, training_characters[:count], weights), *notes]
        info, report = join_sources(
            [member.source for member in corpora], [member.report for member in corpora]
        )
    fingerprint = _fingerprint(cleaned, names, files, corpora)
    corpus = Corpus(
        fingerprint, info, report, counts, validation, [*info.notes, *notes], names, files, corpora
    )
    content = json.dumps({**corpus.to_json(), "parts": [file.name for file in files]}).encode()
    work.main(
        lambda: work.job.write(f"corpus/{CORPUS_FILE}", lambda file: file.write_bytes(content))
    )
    return corpus


@dataclass
class _Cleaned:
    """A source with its cleaned parts.

    Attributes:
        source: The source.
        files: The Arrow files of its parts.
        report: What cleaning did.
        hashes: The content hash of each text.
        codes: The code of each text: its split, or the reason why it is in no split.
    """

    source: Source
    files: list[Path]
    report: CleaningReport
    hashes: np.ndarray
    codes: np.ndarray = field(init=False)


def _clean_all(sources: Sequence[Source], count: int, work: SharedJob) -> list[_Cleaned]:
    """Clean the sources, and drop repeated lines.

    The first ``count`` sources are to train on. The repeated lines of a validation source are not
    searched for: those of the training sources are dropped from it.
    """
    cut = divide_text if len(sources) > count else partial(cut_text, held_out=HELD_OUT)
    raw = [_clean(source, number, cut, work) for number, source in enumerate(sources)]
    lines = [
        _find_lines(source, paths, work)
        for source, paths in zip(sources[:count], raw, strict=False)
    ]
    lines.append(list(dict.fromkeys(itertools.chain(*lines))))  # for a validation source
    for number, source in enumerate(sources):
        if lines[number]:
            source.info.repeated_lines = list(lines[number])
            drop = partial(_drop_lines, replace(source, units=()))
            raw[number] = work.share(drop, [(file,) for file in raw[number]], size_of(raw[number]))
    return [
        _Cleaned(source, paths, _add_up(source, paths), read_column(paths, "hash", np.uint64))
        for source, paths in zip(sources, raw, strict=True)
    ]


def _assign_splits(
    cleaned: Sequence[_Cleaned], count: int, filters: Filters, work: SharedJob
) -> list[str]:
    """Set the code of each text; return notes for the user."""
    files = list(itertools.chain(*(each.files for each in cleaned)))
    has_validation = len(cleaned) > count
    work.progress("Looking for duplicates")
    codes = np.concatenate(
        [_find_duplicates(group) for group in (cleaned[:count], cleaned[count:]) if group]
    )
    if filters.near_duplicates is not None:
        work.progress("Looking for near duplicates")
        keep = codes == 0
        codes[keep & ~work.main(partial(filters.find_distinct, files, keep))] = _NEAR_DUPLICATE
    ends = np.cumsum([len(each.hashes) for each in cleaned])
    for number, (each, view) in enumerate(zip(cleaned, np.split(codes, ends[:-1]), strict=True)):
        each.codes = view  # a view: setting its values also sets those of ``codes``
        keep = view == 0
        named = SPLITS.index("validation" if number == count else "train")
        view[keep] = named if has_validation else _split(each, keep)
    work.progress("Looking for held-out texts in the training texts")
    leaking, notes = filters.find_leaks(files, codes, work)
    codes[leaking] = _LEAKING
    hashes = np.concatenate([each.hashes for each in cleaned])
    if has_validation and (both := int(np.isin(hashes[codes == 1], hashes[codes == 0]).sum())):
        notes.insert(
            0,
            f"{both} of {np.count_nonzero(codes == 1)} validation texts are also in the training"
            " text.",
        )
    return notes


def _write_texts(
    cleaned: Sequence[_Cleaned], folder: Path, work: SharedJob
) -> tuple[list[Corpus], list[int]]:
    """Write the texts that have a split.

    Returns:
        The corpus of each source, and the number of characters in the training texts of each.
    """
    names = cleaned[0].source.config.columns
    raw = list(itertools.chain(*(each.files for each in cleaned)))
    targets = [folder / f"{number:05d}.arrow" for number in range(len(raw))]
    types = [
        {str(read_part(file).schema.field(f"c{number}").type) for file in raw}
        for number in range(len(names))
    ]
    columns = {
        name: "string" if "string" in kinds else "double"
        for name, kinds in zip(names, types, strict=True)
    }
    codes = split_by_part(np.concatenate([each.codes for each in cleaned]), raw)
    tasks = list(zip(raw, targets, codes, strict=True))
    finished = iter(work.share(partial(_finish_part, columns), tasks, size_of(raw)))
    written = iter(targets)
    members = list[Corpus]()
    training_characters = list[int]()
    for each in cleaned:
        info = each.source.info
        report = each.report
        counts = np.bincount(each.codes, minlength=6).tolist()
        *sizes, report.duplicates, report.near_duplicates, report.leaking = counts
        report.kept = report.read - report.empty if info.is_one_text else sum(sizes)
        report.characters, training = map(
            sum, zip(*itertools.islice(finished, len(each.files)), strict=True)
        )
        training_characters.append(training)
        files = list(itertools.islice(written, len(each.files)))
        split_sizes = dict(zip(SPLITS, sizes, strict=True))
        members.append(Corpus("", info, report, split_sizes, names=names, files=files))
    return members, training_characters


def _clean(source: Source, number: int, cut: Cut, work: SharedJob) -> list[Path]:
    """Read and clean the units of a source into parts; return their files, in order."""
    size = sum(unit.size for unit in source.units)
    is_here = source.facts is None  # the texts are Python objects, which only this process has
    shares = 1 if is_here else work.ranks.world_size * work.count_workers(size)
    characters = max(_PART_CHARACTERS, size // 128)
    clean = partial(
        _clean_unit, replace(source, units=()), characters, cut if source.info.is_one_text else None
    )
    tasks = list[tuple[Any, ...]]()
    for index, unit in enumerate(source.units):
        path = work.job.path(f"raw/{number}-{index:05d}")
        count = shares if unit.is_shared else 1
        tasks += [(path, unit, share, count) for share in range(count)]
    if is_here:
        parts = work.main(lambda: list(itertools.starmap(clean, tasks)))
    else:
        parts = work.share(clean, tasks, size)
    return sorted(itertools.chain(*parts))


def _clean_unit(
    source: Source,
    characters: int,
    cut: Cut | None,
    path: Path,
    unit: Unit,
    share: int,
    shares: int,
) -> list[Path]:
    """Read a unit, and write this task's share of its parts; return their files.

    The task writes the parts ``share``, ``share + shares``, ``share + 2 * shares`` and so on,
    except those that an earlier run has written. A unit that several tasks share, or that comes
    from Python objects, is cut into parts of about ``characters`` characters. Any other unit is one
    part.
    """
    examples = source.examples(unit)
    written = []
    is_cut = unit.is_shared or source.facts is None
    for number, part in enumerate(_cut_parts(examples, characters) if is_cut else [examples]):
        if number % shares == share:
            written.append(path.with_name(f"{path.name}-{number:05d}.arrow"))
            write_part(written[-1], partial(_clean_part, part, source, cut))
    return written


def _cut_parts(examples: Iterable[Example], characters: int) -> Iterator[list[Example]]:
    part: list[Example] = []
    size = 0
    for example in examples:
        part.append(example)
        size += len(example[0])
        if size >= characters:
            yield part
            part = []
            size = 0
    yield part


def _clean_part(examples: Iterable[Example], source: Source, cut: Cut | None) -> "pyarrow.Table":
    """Clean examples; return a table of them and their hashes. Its metadata holds the cleaning
    report.
    """
    import pyarrow

    cleaner = source.cleaner()
    rows = []
    for text, values in examples:
        if (cleaned := cleaner(text)) is not None:
            pieces = (
                [cleaned]
                if cut is None
                else [(piece, hash_text(piece)) for piece in cut(cleaned[0])]
            )
            rows += [(*piece, *values) for piece in pieces]
    texts, hashes, *columns = zip(*rows, strict=True) if rows else [()] * (2 + len(source.columns))
    arrays = {
        "text": pyarrow.array(texts, pyarrow.string()),
        "hash": pyarrow.array(np.array(hashes, np.uint64)),
    }
    if source.is_cleaned:
        arrays["split"] = pyarrow.array([int(code or 0) for code in columns.pop()], pyarrow.int64())
    for number, column in enumerate(columns):
        arrays[f"c{number}"] = _as_array(
            column, is_text=any(isinstance(value, str) for value in column)
        )
    report = json.dumps({"counts": asdict(cleaner.report), "mojibake": cleaner.mojibake})
    return pyarrow.table(arrays).replace_schema_metadata({"report": report})


def _find_lines(source: Source, files: Sequence[Path], work: SharedJob) -> list[str]:
    """Find the repeated lines of a source, add a note about them, and return the lines to drop.

    Return an empty list if lines are not to be dropped, or if the lines to drop were given and
    cleaning has dropped them.
    """
    config = source.config
    info = source.info
    may_look = config.repeated_lines is None and not source.is_cleaned and not info.is_one_text
    if not may_look or not (config.clean or config.drop_repeated_lines):
        return []
    if counts := work.main(partial(_count_lines, files)):
        named = [
            f"{shorten(line, 60)!r} in {count:,}"
            for line, count in itertools.islice(counts.items(), _NAMED)
        ]
        more = f" and {len(counts) - _NAMED} more" if len(counts) > _NAMED else ""
        drop = (
            "they are dropped"
            if config.drop_repeated_lines
            else "--drop-repeated-lines (drop_repeated_lines=True) drops them"
        )
        info.notes.append(
            f"Lines that occur in many texts of {info.name}: {', '.join(named)}{more}; {drop}."
        )
    return list(counts) if config.drop_repeated_lines else []


def _count_lines(files: Sequence[Path]) -> dict[str, int]:
    """Return the repeated lines and the number of texts that have each.

    Only the first texts of each part are searched, so that memory stays bounded.
    """
    from pyarrow import compute

    texts = dict[int, str]()  # by hash, so that duplicates count once
    limit = _SAMPLE_CHARACTERS // len(files)
    for table in map(read_part, files):
        ends = np.cumsum(compute.utf8_length(table.column("text")))
        head = table[: int(ends.searchsorted(limit)) + 1]
        texts |= zip(head.column("hash").to_pylist(), head.column("text").to_pylist(), strict=True)
    return find_repeated_lines(texts.values())


def _drop_lines(source: Source, file: Path) -> Path:
    """Write a copy of a part without the repeated lines of its source; return the file."""
    import pyarrow

    def make() -> pyarrow.Table:
        table = read_part(file)
        cleaner = source.cleaner()
        texts = list(map(cleaner.drop_lines, table.column("text").to_pylist()))
        report = json.loads(table.schema.metadata[b"report"])
        report["counts"]["lines_dropped"] = cleaner.report.lines_dropped
        table = table.set_column(0, "text", pyarrow.array(texts, pyarrow.string()))
        hashes = np.array(list(map(hash_text, texts)), np.uint64)
        return table.set_column(1, "hash", pyarrow.array(hashes)).replace_schema_metadata(
            {"report": json.dumps(report)}
        )

    target = file.with_suffix(".lines")
    write_part(target, make)
    return target


def _as_array(values: Iterable[str | float | None], *, is_text: bool) -> Any:
    """Return the values of a condition as an array of numbers or of strings."""
    import pyarrow

    if not is_text:
        return pyarrow.array(values, pyarrow.float64())
    return pyarrow.array(
        [label_of(value) if isinstance(value, float) else value for value in values],
        pyarrow.string(),
    )


def _add_up(source: Source, files: Sequence[Path]) -> CleaningReport:
    """Return the cleaning report of a source, the sum over its parts; add a note on mojibake to the
    source.
    """
    parts = [json.loads(read_part(file).schema.metadata[b"report"]) for file in files]
    report = add_reports(CleaningReport(**part["counts"]) for part in parts)
    report.decode_errors = source.info.decode_errors
    source.info.notes += note_mojibake(
        report.mojibake, next(filter(None, (part["mojibake"] for part in parts)), None)
    )
    require_texts(source.info, report)
    return report


def require_texts(source: SourceInfo, report: CleaningReport) -> None:
    """Raise if cleaning has kept no texts.

    Raises:
        DataError: No texts are kept.
    """
    if report.read == report.empty:
        counts = f"{report.read} read, {report.empty} empty" if report.read else "none read"
        raise DataError(f"No reviews are left of {source.name} after cleaning ({counts}).")


def _weigh(
    corpora: Sequence[Corpus], characters: Sequence[int], weights: Sequence[float]
) -> list[str]:
    """Set how often each corpus is read in an epoch; return notes for the user.

    ``characters`` holds the number of characters in the training texts of each corpus.
    """
    names = [corpus.source.name for corpus in corpora]
    times = find_times(names, characters, weights)
    for corpus, weight, passes in zip(corpora, weights, times, strict=True):
        corpus.weight = weight
        corpus.times = passes
    texts = [corpus.texts("train") for corpus in corpora]
    return [*describe_times(names, characters, times), *compare_languages(names, texts)]


def _find_duplicates(cleaned: Sequence[_Cleaned]) -> np.ndarray:
    """Return a code for each text of the sources: ``_DUPLICATE`` if it equals an earlier text, else
    0.
    """
    sources = [each.source for each in cleaned]
    hashes = [each.hashes for each in cleaned]
    may_drop = [
        bool(source.config.clean) and not source.info.is_one_text and not source.is_cleaned
        for source in sources
    ]
    is_duplicate = ~first_of_each(np.concatenate(hashes)) & np.repeat(
        may_drop, list(map(len, hashes))
    )
    return np.where(is_duplicate, np.uint8(_DUPLICATE), np.uint8(0))


def _split(cleaned: _Cleaned, keep: np.ndarray) -> np.ndarray:
    """Return the split of each kept text of a source; ``keep`` (N,) is the mask of these."""
    if cleaned.source.is_cleaned:
        codes = read_column(cleaned.files, "split", np.uint8)
    elif cleaned.source.info.is_one_text:
        codes = np.resize([SPLITS.index(split) for split in SPLIT_CYCLE], len(keep))
    else:
        return split_by_hash(cleaned.hashes[keep])
    return np.asarray(codes[keep])


def split_by_hash(hashes: np.ndarray) -> np.ndarray:
    """Return the split of each text from its content hash, (texts,) uint8: 90 % train, 5 %
    validation, 5 % test.

    In a corpus of a few texts, train or validation may be empty by chance. Then one text, chosen by
    its hash, is moved to the empty split; its duplicates move with it if they were kept.
    """
    share_of = hashes / 2.0**64
    codes = np.digitize(share_of, (1 - 2 * HELD_OUT, 1 - HELD_OUT)).astype(np.uint8)
    train, validation, test = range(3)
    if len(codes) and train not in codes:
        codes[hashes == hashes.min()] = train
    if len(codes) and validation not in codes:
        in_train = hashes[codes == train]
        donors = in_train if in_train.min() < in_train.max() else hashes[codes == test]
        if donors.size:  # otherwise there is only one text
            codes[hashes == donors.max()] = validation
    return codes


def _finish_part(
    columns: Mapping[str, str], raw: Path, target: Path, codes: np.ndarray
) -> tuple[int, int]:
    """Write a part of the corpus from a raw part: the texts that have a split.

    Args:
        columns: The type of each condition, by name.
        raw: The raw part.
        target: The file to write.
        codes: The code of each text of the raw part.

    Returns:
        The number of characters of all texts written, and of the training texts.
    """
    import pyarrow
    from pyarrow import compute

    table = read_part(raw).filter(codes < _DUPLICATE)
    codes = codes[codes < _DUPLICATE]
    arrays = {"text": table.column("text")}
    for number, (name, kind) in enumerate(columns.items()):
        column = table.column(f"c{number}")
        arrays[name] = (
            column if column.type == kind else _as_array(column.to_pylist(), is_text=True)
        )
    types = {
        name: {"dtype": str(column.type).replace("double", "float64"), "_type": "Value"}
        for name, column in arrays.items()
    }
    arrays["split"] = pyarrow.array(codes.astype(np.int64))
    features = {**types, "split": {"names": list(SPLITS), "_type": "ClassLabel"}}
    # the same metadata as ``datasets`` writes
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    write_part(target, lambda: pyarrow.table(arrays).replace_schema_metadata(metadata))
    lengths = np.asarray(compute.utf8_length(table.column("text")))
    return int(lengths.sum()), int(lengths[codes == 0].sum())


def _fingerprint(
    cleaned: Sequence[_Cleaned],
    conditions: Sequence[str],
    files: Sequence[Path],
    corpora: Sequence[Corpus],
) -> str:
    """Return a hash that identifies a corpus: of the content hashes and splits of its texts, their
    condition values, and how often weighted corpora are read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in ("hashes", "codes"):
        for each in cleaned:
            digest.update(getattr(each, name)[each.codes < _DUPLICATE].tobytes())
    if conditions:
        digest.update(json.dumps(conditions).encode())
    for table in map(read_part, files) if conditions else ():
        for row in zip(*(table.column(name).to_pylist() for name in conditions), strict=True):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    if corpora:
        digest.update(json.dumps([[corpus.counts, corpus.times] for corpus in corpora]).encode())
    return digest.hexdigest()


def require_splits(corpus: Corpus) -> None:
    """Raise unless a corpus has texts to train on and to validate on.

    Raises:
        DataError: The corpus has fewer than two texts, or none for validation.
    """
    if sum(corpus.counts.values()) < 2:
        raise DataError(
            "The corpus is a single review; at least two are needed, one to train on and one to"
            " hold out. A text file is cut by line or by paragraph. To train on one long text, save"
            " it as a .txt file and set documents='file': it is cut into parts to train on and"
            " parts to hold out."
        )
    if not corpus.counts["validation"]:
        raise DataError(
            "No validation texts are left. Give more texts, or a larger number of characters to"
            " decontaminate by."
        )


def describe(source: SourceInfo, report: CleaningReport, *, is_brief: bool = False) -> list[str]:
    """Return lines that tell the user what was read and changed: the notes, the text column, three
    texts, and the counts of the cleaning.

    If ``is_brief``, return a single line with the text column and the first two counts.
    """
    others = ", ".join(column for column in source.columns if column != source.text_column)
    guess = f" (guessed; others: {others})" if source.guessed and others else ""
    columns = [] if source.text_column is None else [f"column: {source.text_column!r}{guess}"]
    lines = [
        *source.notes,
        *(f"Text {column}" for column in columns),
        *(f"  | {shorten(text)}" for text in source.preview),
    ]
    changes = {
        "empty": report.empty,
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
        "held-out texts left out, as they share runs with training texts": report.leaking,
        "line-break tags replaced": report.breaks_replaced,
        "other tags removed": report.tags_removed,
        "entities decoded": report.entities_decoded,
        "changed by NFC": report.normalized,
        "encodings repaired": report.encodings_fixed,
        "unwrapped": report.unwrapped,
        "repeated lines dropped": report.lines_dropped,
        "decode errors": report.decode_errors,
    }
    counts = [f", {name} {count:,}" for name, count in changes.items() if count]
    read = f"Read {counted(report.read, 'review')}"
    kept = f"kept {report.kept:,} ({counted(report.characters, 'character')})"
    if is_brief:
        return [
            f"{', '.join([f'{read} of {source.name}', *columns])}; {kept}{''.join(counts[:2])}."
        ]
    return [*lines, f"{read}, {kept}{''.join(counts)}."]


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line. If it is longer than ``width`` characters, cut it after a word and
    add dots.
    """
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    return (cut if line[width - 3] == " " else cut.rpartition(" ")[0] or cut) + "..."
