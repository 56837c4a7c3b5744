"""The cleaned corpus: from the units of a source to Arrow files of texts, their conditions and their splits.

    raw/0-00012-00000.arrow   the cleaned texts of a part of a source, with their hashes and what cleaning did
    corpus/00012.arrow        the same without duplicates, with the split of each text; a file of ``datasets``
    corpus/corpus.json        how the sources were read, written last

The parts depend on the source only. The split of a text depends on its content hash, so it is the same in any order and in any
process; a source of one long text is cut into parts instead (see ``documents``). Memory grows by 9 bytes for each text.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from reviewgen.conditions import label_of
from reviewgen.config import MAX_RECORD, Bound, check, read_json, to_dict
from reviewgen.data.cleaning import CleaningReport, first_of_each, hash_text
from reviewgen.data.columns import MAX_TEXT_CHARACTERS, Example, SourceInfo
from reviewgen.data.documents import SPLIT_CYCLE, cut_text, divide_text
from reviewgen.data.filters import drop_near_duplicates, find_leaks
from reviewgen.data.parts import (
    OneProcess,
    Progress,
    Ranks,
    count_workers,
    examples_of,
    main_only,
    read_column,
    read_part,
    share,
    write_part,
)
from reviewgen.data.sources import SPLITS, Source, Unit
from reviewgen.errors import ConfigError, DataError, counted
from reviewgen.storage import Job, write_file

if TYPE_CHECKING:
    import pyarrow

CORPUS_FILE = "corpus.json"
HELD_OUT = 0.05  # share of the texts in validation, and again in test
DROPPED = len(SPLITS)  # the code of a text that is in no split
_PART_CHARACTERS = 1 << 22  # of a part of a unit that several processes share


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How a source is read and cleaned.

    Attributes:
        text_column: The column that holds the text, ``a.b`` for the field b of the column a; guessed if None.
        documents: How a txt file is cut into texts: by "line", by "paragraph" (blank lines between), by "sentence", or not at
            all ("file"; a source of one such file is one long text, whose parts are split).
        clean: Whether to decode HTML entities, remove HTML tags, apply NFC, and drop empty and duplicate texts.
        lowercase: Whether to lower-case the texts.
        strip_markdown: Whether to keep only the words of markdown.
        fix_encoding: Whether to mend texts that were decoded wrongly, with ftfy.
        conditions: The columns, such as stars or genre, that the model is conditioned on.
        max_text_characters: The maximum number of characters of a text; a txt file that is one text has no limit.
        sql: The query of a SQLite file; None reads its only table.
        subset: The subset of a Hub dataset.
        dataset_split: The split of a dataset that is read; None reads train, or the first one.

    Raises:
        ConfigError: A value is of the wrong type or not allowed, or a condition is named twice.
    """

    text_column: str | None = None
    documents: Literal["line", "paragraph", "sentence", "file"] = "line"
    clean: bool = True
    lowercase: bool = False
    strip_markdown: bool = False
    fix_encoding: bool = False
    conditions: Annotated[tuple[str, ...], Bound(at_least=1)] = ()
    max_text_characters: Annotated[int, Bound(at_least=1, at_most=1 << 40)] = MAX_TEXT_CHARACTERS
    sql: str | None = None
    subset: str | None = None
    dataset_split: str | None = None

    def __post_init__(self) -> None:
        check(self)
        if len(set(self.conditions)) < len(self.conditions):
            raise ConfigError(f"A condition is named twice: {', '.join(self.conditions)}.")
        if reserved := {"text", "split"}.intersection(self.conditions):
            raise ConfigError(f"A condition cannot be named {reserved.pop()!r}, as a column of the corpus is: rename it.")

    @property
    def cleaning(self) -> dict[str, bool]:
        """The options of the ``Cleaner``."""
        names = ("clean", "lowercase", "strip_markdown", "fix_encoding")
        return {name: getattr(self, name) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return what the texts depend on, as JSON values: the settings without the limit of their length."""
        return {name: value for name, value in to_dict(self).items() if name != "max_text_characters"}


@dataclass
class Corpus:
    """The cleaned texts of a source, each with its split, and the facts about them.

    Attributes:
        fingerprint: A hash of the texts, their splits and their condition values.
        source: How the source was read.
        report: What cleaning did.
        counts: The number of texts of each split.
        validation: The first two for a separate validation source; None if there is none.
        notes: Sentences that the user should see.
        names: The conditions.
        files: The Arrow files of the texts; empty if only the facts are known, as of a token store.
    """

    fingerprint: str
    source: SourceInfo
    report: CleaningReport
    counts: Mapping[str, int]
    validation: tuple[SourceInfo, CleaningReport] | None = None
    notes: list[str] = field(default_factory=list)
    names: Sequence[str] = ()
    files: Sequence[Path] = ()

    @classmethod
    def open(cls, folder: Path) -> "Corpus":
        """Return the corpus in a folder."""
        facts = read_json(folder / CORPUS_FILE, MAX_RECORD)
        return replace(cls.from_json(facts), files=[folder / name for name in facts["parts"]])

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        sources = [(self.source, self.report), *((self.validation,) if self.validation else ())]
        described = [{"stream": asdict(source), "cleaning": asdict(report)} for source, report in sources]
        return {
            "fingerprint": self.fingerprint,
            "texts": dict(self.counts),
            "source": described[0],
            "validation": described[1] if self.validation else None,
            "notes": self.notes,
            "conditions": list(self.names),
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Corpus":
        """Return the corpus that ``to_json`` has described, without its texts."""
        described = (facts["source"], *((facts["validation"],) if facts["validation"] else ()))
        sources = [(SourceInfo(**each["stream"]), CleaningReport(**each["cleaning"])) for each in described]
        others = facts["fingerprint"], *sources[0], facts["texts"], sources[1] if sources[1:] else None
        return cls(*others, list(facts["notes"]), facts.get("conditions", ()))

    def texts(self, split: str) -> Iterator[str]:
        """Yield the texts of a split, in the order of the source."""
        return (text for text, _ in self.examples(split))

    def conditions(self, split: str) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of each text of a split."""
        return (values for _, values in self.examples(split))

    def examples(self, split: str) -> Iterator[Example]:
        """Yield the texts of a split with their condition values."""
        return examples_of(self.files, self.names, SPLITS.index(split))

    @property
    def splits(self) -> np.ndarray:
        """The split of each text, (texts,) uint8, an index into ``SPLITS``."""
        return read_column(self.files, "split", np.uint8)

    @property
    def split_method(self) -> Literal["hash", "blocks", "source"]:
        """How texts are held out: by the hash of each, as blocks of one long text, or as a separate validation source."""
        if self.validation is not None:
            return "source"
        return "blocks" if self.source.is_one_text else "hash"

    def describe_held_out(self) -> str:
        """Return how texts are held out, in words."""
        if self.split_method == "blocks":
            blocks = self.counts["validation"] + self.counts["test"]
            characters = round(self.report.characters * 2 * HELD_OUT / blocks)
            return (
                f"{blocks:,} blocks of about {characters:,} characters, spread evenly over one text, each between two parts of "
                "the training text"
            )
        return {"hash": "texts chosen by a hash of each", "source": "a separate source"}[self.split_method]

    def count(self, split: str) -> int:
        """Return the number of texts in a split."""
        return int(self.counts[split])


def make_corpus(
    sources: Sequence[Source],
    config: DataConfig,
    job: Job,
    ranks: Ranks,
    progress: Progress,
    *,
    near_duplicates: float | None = None,
    decontaminate: int | None = None,
) -> Corpus:
    """Read and clean sources into the folder ``corpus`` of a job; what an earlier try has finished there is kept.

    Args:
        sources: The source, and the validation source if there is one.
        config: How to clean.
        job: The job.
        ranks: The processes that share the work; all call this.
        progress: Called with each stage.
        near_duplicates: Of texts that are at least as similar, only the first is kept.
        decontaminate: Held-out texts that share a run of this many characters with a training text are left out.

    Raises:
        DataError: A source cannot be read, or too few texts are left after cleaning.
        StorageError: The disk is full.
        WorkerError: A worker process was killed.
    """
    if job.done(f"corpus/{CORPUS_FILE}"):
        return Corpus.open(job.path("corpus"))
    progress("Reading and cleaning")
    raw = [_clean(source, number, config, job, ranks, is_alone=len(sources) == 1) for number, source in enumerate(sources)]
    files = [*raw[0], *(raw[1] if raw[1:] else ())]
    reports = [_add_up(source, own, config) for source, own in zip(sources, raw, strict=True)]
    hashes = [read_column(own, "hash", np.uint64) for own in raw]
    progress("Looking for duplicates")
    keep = np.concatenate([_find_new(source, own, config) for source, own in zip(sources, hashes, strict=True)])
    sizes, workers = [len(own) for own in hashes], count_workers(ranks, sum(file.stat().st_size for file in files))
    _count(reports, sizes, "duplicates", ~keep)
    if near_duplicates is not None:
        progress("Looking for near duplicates")
        before, keep = keep, drop_near_duplicates(files, keep, near_duplicates, ranks)
        _count(reports, sizes, "near_duplicates", before & ~keep)
    codes = _split(sources, raw, hashes, keep)
    progress("Looking for held-out texts in the training texts")
    leaking, notes = find_leaks(files, codes, decontaminate, ranks, workers)
    codes[leaking] = DROPPED
    reports[-1].leaking = int(leaking.sum())
    progress("Writing the corpus")
    return _finish(sources, config, job, ranks, files, codes, hashes, reports, notes, workers)


def _count(reports: Sequence[CleaningReport], sizes: Sequence[int], name: str, mask: np.ndarray) -> None:
    """Set a count of each source's report to the number of its texts in a mask."""
    for report, own in zip(reports, np.split(mask, np.cumsum(sizes)[:-1]), strict=True):
        setattr(report, name, int(own.sum()))


def _clean(source: Source, number: int, config: DataConfig, job: Job, ranks: Ranks, *, is_alone: bool) -> list[Path]:
    """Read and clean the units of a source into parts; return their files, in order."""
    cut: Callable[[str], list[str]] | None = None
    if source.info.is_one_text:
        cut = functools.partial(cut_text, held_out=HELD_OUT) if is_alone else divide_text
    size = sum(unit.size for unit in source.units)
    characters = max(_PART_CHARACTERS, size // 128)
    common, (job_folder, prefix) = replace(source, units=()), (job.path("raw"), f"{number}-")
    is_here = source.facts is None  # objects of this process
    workers = 1 if is_here else count_workers(ranks, size)
    tasks = []
    for place, unit in enumerate(source.units):
        shares = ranks.world_size * workers if unit.is_shared and not is_here else 1
        tasks += [(job_folder, f"{prefix}{place:05d}", common, unit, config, cut, characters, n, shares) for n in range(shares)]
    if is_here:
        names = main_only(ranks, functools.partial(share, OneProcess(), _clean_unit, tasks))
    else:
        names = share(ranks, _clean_unit, tasks, workers)
    return sorted(job_folder / name for name in itertools.chain.from_iterable(names))


def _clean_unit(
    folder: Path,
    name: str,
    source: Source,
    unit: Unit,
    config: DataConfig,
    cut: Callable[[str], list[str]] | None,
    characters: int,
    own: int,
    shares: int,
) -> list[str]:
    """Read a unit, and write every ``shares``-th of its parts from ``own`` on, unless an earlier try has; return their names.

    A part of a unit that is shared has about as many characters as asked for; any other unit is one part.
    """
    examples = source.examples(unit)
    parts = _cut_parts(examples, characters) if unit.is_shared or source.facts is None else iter([examples])
    written = []
    for number, part in enumerate(parts):
        file = f"{name}-{number:05d}.arrow"
        if number % shares == own:
            written.append(file)
            write_part(folder / file, functools.partial(_clean_part, part, source, config, cut))
    return written


def _cut_parts(examples: Iterable[Example], characters: int) -> Iterator[list[Example]]:
    part: list[Example] = []
    size = 0
    for example in examples:
        part.append(example)
        size += len(example[0])
        if size >= characters:
            yield part
            part, size = [], 0
    yield part


def _clean_part(
    examples: Iterable[Example], source: Source, config: DataConfig, cut: Callable[[str], list[str]] | None
) -> "pyarrow.Table":
    """Clean examples; return them with their hashes, and what cleaning did in the metadata."""
    import pyarrow

    cleaner = source.cleaner(config.cleaning)
    texts, rows, hashes = [], [], []
    for text, values in examples:
        cleaned = cleaner(text)
        if cleaned is not None:
            pieces = [cleaned] if cut is None else [(piece, hash_text(piece)) for piece in cut(cleaned[0])]
            for piece, hashed in pieces:
                texts.append(piece)
                hashes.append(hashed)
                rows.append(values)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(source.conditions)
    arrays = {"text": pyarrow.array(texts, pyarrow.string()), "hash": pyarrow.array(np.array(hashes, np.uint64))}
    if source.is_cleaned:
        arrays["split"] = pyarrow.array([SPLITS.index(str(split)) for split in columns.pop()] if rows else [], pyarrow.int64())
    arrays |= {f"c{number}": _as_array(column) for number, column in enumerate(columns[: len(source.conditions)])}
    report = json.dumps({"counts": asdict(cleaner.report), "mojibake": cleaner.mojibake})
    return pyarrow.table(arrays).replace_schema_metadata({"report": report})


def _as_array(values: Iterable[str | float | None]) -> Any:
    """Return values as an array of numbers, or of strings if there is one."""
    import pyarrow

    known = list(values)
    if any(isinstance(value, str) for value in known):
        return pyarrow.array([_label(value) if isinstance(value, float) else value for value in known], pyarrow.string())
    return pyarrow.array(known, pyarrow.float64())


def _add_up(source: Source, files: Sequence[Path], config: DataConfig) -> CleaningReport:
    """Return what cleaning did to a source, and add its notes to the source's."""
    cleaner = source.cleaner({})
    cleaner.report.decode_errors = source.info.decode_errors
    for file in files:
        cleaner.add(**json.loads(read_part(file).schema.metadata[b"report"]))
    source.info.notes += cleaner.notes()
    require_texts(source.info, cleaner.report)
    return cleaner.report


def require_texts(source: SourceInfo, report: CleaningReport) -> None:
    """Raise if cleaning has kept no texts.

    Raises:
        DataError: It has kept none.
    """
    if report.read == report.empty:
        counts = f"{report.read} read, {report.empty} empty" if report.read else "none read"
        raise DataError(f"No reviews are left of {source.name} after cleaning ({counts}).")


def _find_new(source: Source, hashes: np.ndarray, config: DataConfig) -> np.ndarray:
    may_drop = config.clean and not source.info.is_one_text and not source.is_cleaned
    return first_of_each(hashes) if may_drop else np.ones(len(hashes), np.bool_)


def _split(
    sources: Sequence[Source], raw: Sequence[Sequence[Path]], hashes: Sequence[np.ndarray], keep: np.ndarray
) -> np.ndarray:
    """Return the code of each text of all sources: its split, or that it is dropped."""
    codes = np.full(len(keep), DROPPED, np.uint8)
    if len(sources) > 1:
        codes[: len(hashes[0])], codes[len(hashes[0]) :] = SPLITS.index("train"), SPLITS.index("validation")
    elif sources[0].is_cleaned:
        codes[:] = read_column(raw[0], "split", np.uint8)
    elif sources[0].info.is_one_text:
        codes[:] = np.resize([SPLITS.index(split) for split in SPLIT_CYCLE], len(codes))
    else:
        codes[keep] = split_by_hash(hashes[0][keep])
    codes[~keep] = DROPPED
    return codes


def split_by_hash(hashes: np.ndarray) -> np.ndarray:
    """Return the split of each text from its content hash, (texts,) uint8: 90 % train, 5 % validation, 5 % test.

    In a corpus of a few texts, train or validation may be empty by chance. One text is then moved there, chosen by its hash,
    together with its duplicates if those were kept.
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


def _finish(
    sources: Sequence[Source],
    config: DataConfig,
    job: Job,
    ranks: Ranks,
    files: Sequence[Path],
    codes: np.ndarray,
    hashes: Sequence[np.ndarray],
    reports: Sequence[CleaningReport],
    notes: Sequence[str],
    workers: int,
) -> Corpus:
    """Write the parts of the corpus, and its facts."""
    kinds = [{str(read_part(file).schema.field(f"c{n}").type) for file in files} for n in range(len(config.conditions))]
    columns = [(name, "string" in kind) for name, kind in zip(config.conditions, kinds, strict=True)]
    parts = np.split(codes, np.cumsum([len(read_part(file)) for file in files])[:-1])
    targets = [job.path(f"corpus/{number:05d}.arrow") for number in range(len(files))]
    lengths = share(ranks, _finish_part, [(*task, columns) for task in zip(files, targets, parts, strict=True)], workers)
    for number, report in enumerate(reports):
        own = [pair for pair, file in zip(lengths, files, strict=True) if file.name.startswith(f"{number}-")]
        report.kept, report.characters = sum(texts for texts, _ in own), sum(size for _, size in own)
        if sources[number].info.is_one_text:
            report.kept = report.read - report.empty
    counts = dict(zip(SPLITS, np.bincount(codes, minlength=DROPPED + 1)[:DROPPED].tolist(), strict=True))
    kept = codes != DROPPED
    values = (row for file in targets for row in _value_rows(file, config.conditions))
    corpus = Corpus(
        _fingerprint(np.concatenate(hashes)[kept], codes[kept], config.conditions, values),
        sources[0].info,
        reports[0],
        counts,
        (sources[1].info, reports[1]) if len(sources) > 1 else None,
        [*sources[0].info.notes, *_note_shared(hashes, kept), *notes],
        config.conditions,
        targets,
    )
    content = json.dumps({**corpus.to_json(), "parts": [file.name for file in targets]}).encode()
    main_only(ranks, lambda: job.write(f"corpus/{CORPUS_FILE}", lambda file: write_file(file, content)))
    return corpus


def _finish_part(raw: Path, target: Path, codes: np.ndarray, columns: Sequence[tuple[str, bool]]) -> tuple[int, int]:
    """Write a part of the corpus from its raw part and the codes of its texts; return the numbers of its texts and characters."""
    import pyarrow
    from pyarrow import compute

    table = read_part(raw).filter(codes != DROPPED)
    arrays = {"text": table.column("text")}
    for number, (name, is_text) in enumerate(columns):
        column = table.column(f"c{number}")
        is_other = is_text and column.type != pyarrow.string()
        arrays[name] = _as_array(map(_label, column.to_pylist())) if is_other else column
    kinds = {"text": "string", **{name: "string" if is_text else "float64" for name, is_text in columns}}
    types: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    arrays["split"] = pyarrow.array(codes[codes != DROPPED].astype(np.int64))
    features = {**types, "split": {"names": list(SPLITS), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}  # as ``datasets`` writes it
    write_part(target, lambda: pyarrow.table(arrays).replace_schema_metadata(metadata))
    return len(table), compute.sum(compute.utf8_length(table.column("text"))).as_py() or 0


def _label(value: float | None) -> str | None:
    return None if value is None else label_of(value)


def _value_rows(file: Path, conditions: Sequence[str]) -> Iterator[bytes]:
    table = read_part(file)
    for row in zip(*(table.column(name).to_pylist() for name in conditions), strict=True):
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _fingerprint(hashes: np.ndarray, codes: np.ndarray, conditions: Sequence[str], values: Iterable[bytes]) -> str:
    """Return a hash of the texts of a corpus by their content hashes, of their splits and of their condition values."""
    digest = hashlib.blake2b(hashes.tobytes(), digest_size=16)
    digest.update(codes.tobytes())
    if conditions:
        digest.update(json.dumps(conditions).encode())
        for line in values:
            digest.update(line)
    return digest.hexdigest()


def require_splits(corpus: Corpus) -> None:
    """Raise if there are no texts to train on and to validate on.

    Raises:
        DataError: There are none.
    """
    if sum(corpus.counts.values()) < 2:
        raise DataError(
            "The corpus is a single review; at least two are needed, one to train on and one to hold out. "
            "A text file is cut by line or by paragraph. To train on one long text, save it as a .txt file and set "
            "documents='file': it is cut into parts to train on and parts to hold out."
        )
    if not corpus.counts["validation"]:
        raise DataError("No validation texts are left. Give more texts, or a larger number of characters to decontaminate by.")


def _note_shared(hashes: Sequence[np.ndarray], kept: np.ndarray) -> list[str]:
    """Return a sentence on the validation texts that are also training texts, if there are any."""
    if len(hashes) < 2:
        return []
    train, own = (each[mask] for each, mask in zip(hashes, np.split(kept, [len(hashes[0])]), strict=True))
    both = int(np.isin(own, train).sum())
    return [f"{both} of {len(own)} validation texts are also in the training text."] if both else []


def describe(source: SourceInfo, report: CleaningReport) -> list[str]:
    """Return lines for the user on what was read and changed: the text column, three texts, the counts of the cleaning."""
    lines = list(source.notes)
    if source.text_column is not None:
        others = [column for column in source.columns if column != source.text_column]
        guess = f" (guessed; others: {', '.join(others)})" if source.guessed and others else ""
        lines.append(f"Text column: {source.text_column!r}{guess}")
    lines += [f"  | {shorten(text)}" for text in source.preview]
    changes = {
        "empty": report.empty,
        "duplicates": report.duplicates,
        "near duplicates": report.near_duplicates,
        "held-out texts left out, as they share runs with training texts": report.leaking,
        "line-break tags replaced": report.breaks_replaced,
        "other tags removed": report.tags_removed,
        "entities decoded": report.entities_decoded,
        "changed by NFC": report.normalized,
        "encodings mended": report.encodings_fixed,
        "decode errors": report.decode_errors,
    }
    counts = "".join(f", {name} {count:,}" for name, count in changes.items() if count)
    kept = f"{report.kept:,} ({counted(report.characters, 'character')})"
    return [*lines, f"Read {counted(report.read, 'review')}, kept {kept}{counts}."]


def shorten(text: str, width: int = 100) -> str:
    """Return a text on one line, cut after a word to at most a width in characters."""
    line = " ".join(text.split())
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    return (cut if line[width - 3] == " " else cut.rpartition(" ")[0] or cut) + "..."
