"""The second stage: decide the split of each row of the cleaned sources, or why it is in none.

    split-KEY/codes.npy    the code of each row of all sources, (rows,) uint8

No text is written again: a corpus consists of the files of the first stage and of these codes. A
code is the index of a split, or the reason why a row is left out. The split of a text depends on
its content hash, so it is the same in any order of the texts. A source of one long text is
different: it is cut into blocks for the splits (see ``documents``).

Near duplicates are texts with similar sets of lower-case word trigrams. They are found by MinHash
(Broder 1997) and banding (Leskovec et al., ch. 3), both from ``rensa``. A text is left out if its
estimated Jaccard similarity to an earlier kept text reaches the threshold.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from reviewgen.config.settings import Bound, check, to_dict
from reviewgen.data.clean import (
    HELD_OUT,
    Cleaned,
    clean_source,
    read_texts_of,
    read_values,
)
from reviewgen.data.cleaning import CleaningReport, first_of_each
from reviewgen.data.columns import DataConfig, Example, SourceInfo
from reviewgen.data.documents import SPLIT_CYCLE
from reviewgen.data.open import SPLITS, Source, open_source
from reviewgen.data.stage import (
    Progress,
    cache_folder,
    open_rows,
    read_column,
    run_stage,
    share,
    size_of,
    slices,
    workspace,
)
from reviewgen.data.weighting import (
    compare_languages,
    describe_times,
    find_times,
    join_sources,
    refuse_same,
)
from reviewgen.errors import ConfigError, DataError
from reviewgen.novelty import COPY_CHARACTERS, TextWindows
from reviewgen.storage import save_array

# The code of a row is the index of its split in SPLITS, or the reason why it is in no split.
TRAIN = 0
_KEPT = 0  # the code of every row that will be in a split, until the splits are decided
_VALIDATION = 1
_HELD_OUT_CODES = (1, 2)  # validation and test
_DUPLICATE = 3
_NEAR_DUPLICATE = 4
_LEAKING = 5
_MINIMA = 128  # number of hash functions of a MinHash; each gives one minimum
_SEED = 1  # seed of the hash functions
_SHINGLE = 3  # words in each of a text's n-grams, which are hashed
_RECALL = 0.99  # min probability that banding finds a pair at the threshold
_SAMPLE_CHARACTERS = 1 << 18  # characters, about, of a sample of held-out texts that is checked
_GROUP_CHARACTERS = 1 << 20  # characters, about, of the held-out texts that are checked at once


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which texts are left out of a corpus.

    Attributes:
        near_duplicates: A text is left out if an earlier kept text is at least this similar
            (Jaccard similarity); None keeps all.
        decontaminate: Held-out texts that share a run of this many characters with a training text
            are left out; None keeps all.

    Raises:
        ConfigError: A value is out of range, or rensa is not installed.
    """

    near_duplicates: Annotated[float | None, Bound(at_least=0.3, at_most=1)] = None
    decontaminate: Annotated[int | None, Bound(at_least=20, at_most=1_000_000_000)] = None

    def __post_init__(self) -> None:
        check(self)
        if self.near_duplicates is not None and find_spec("rensa") is None:
            raise ConfigError(
                "near_duplicates needs rensa: pip install 'reviewgen[near-duplicates]'."
            )


@dataclass(frozen=True)
class CorpusSpec:
    """The settings that determine the texts of a corpus.

    Attributes:
        source: The source; see ``open_source``. With weights, a list with one source for each
            weight.
        config: How the sources are read and cleaned.
        validation: A second source to validate on, instead of a part of the first.
        validation_split: The split of a dataset to validate on, from the second source if there is
            one, else from the first.
        filters: Which texts are left out.
        allow_missing: Whether a condition without a column counts as not given.
    """

    source: Any
    config: DataConfig
    validation: Any = None
    validation_split: str | None = None
    filters: Filters = field(default_factory=Filters)
    allow_missing: bool = False

    def open(self, folder: Path) -> list[Source]:
        """Open the sources, the validation source last; ``folder`` is for the copies of their
        files.
        """
        weights = self.config.weights
        pairs = [(source, self.config) for source in (self.source if weights else [self.source])]
        if self.validation is not None or self.validation_split is not None:
            second = self.source if self.validation is None else self.validation
            pairs.append((second, replace(self.config, split=self.validation_split)))
        opened: list[Source] = []
        for number, (source, config) in enumerate(pairs):
            subfolder = folder / str(number)
            subfolder.mkdir(exist_ok=True)
            # the validation source, whose lines are joined as those of the training texts are
            if number == (len(weights) or 1):
                config = replace(config, width=opened[0].info.width)
            opened.append(open_source(source, config, subfolder, allow_missing=self.allow_missing))
        refuse_same(opened[: len(weights)])
        return opened


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
        corpora: The corpora that this one is joined from, if they have weights; else empty.
        weight: The weight, if this is one of several joined corpora.
        times: How often the training texts are read in an epoch; 1 without weights.
        files: The Arrow files of the texts; empty if only the facts are known, as in a token store.
        codes: The codes of the rows of each file, (rows,) uint8 each.
        is_label: For each condition, whether its values are strings; else they are numbers.
    """

    fingerprint: str
    source: SourceInfo
    report: CleaningReport
    counts: Mapping[str, int]
    validation: tuple[SourceInfo, CleaningReport] | None = None
    notes: list[str] = field(default_factory=list)
    names: Sequence[str] = ()
    corpora: Sequence["Corpus"] = ()
    weight: float = 1.0
    times: float = 1.0
    files: Sequence[Path] = ()
    codes: Sequence[np.ndarray] = ()
    is_label: Sequence[bool] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""

        def described(source: SourceInfo, report: CleaningReport) -> dict[str, Any]:
            """Return how a source was read and cleaned, as JSON values."""
            return {"stream": asdict(source), "cleaning": asdict(report)}

        corpora = [
            {**corpus.to_json(), "weight": corpus.weight, "times": corpus.times}
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
    def from_json(cls, facts: Mapping[str, Any]) -> "Corpus":
        """Return the corpus that ``to_json`` has described, without its texts."""

        def read(entry: Mapping[str, Any]) -> tuple[SourceInfo, CleaningReport]:
            """Convert what ``described`` in ``to_json`` returns back to its arguments."""
            return SourceInfo(**entry["stream"]), CleaningReport(**entry["cleaning"])

        return cls(
            facts["fingerprint"],
            *read(facts["source"]),
            counts=facts["texts"],
            validation=read(facts["validation"]) if facts["validation"] else None,
            notes=list(facts["notes"]),
            names=facts.get("conditions", ()),
            corpora=[cls.from_json(entry) for entry in facts.get("corpora", ())],
            weight=facts.get("weight", 1.0),
            times=facts.get("times", 1.0),
        )

    def examples(self, split: str | None = None) -> Iterator[Example]:
        """Yield the texts of a split, or of all splits, with their condition values, in the order
        of the source.
        """
        return zip(self.texts(split), self.values(split), strict=True)

    def values(self, split: str | None = None) -> Iterator[Sequence[str | float | None]]:
        """Yield the condition values of the texts of a split, or of all splits."""
        for file, codes in zip(self.files, self.codes, strict=True):
            yield from read_values(file, _are_in(split, codes), self.is_label)

    def texts(self, split: str | None = None) -> Iterator[str]:
        """Yield the texts of a split, or of all splits."""
        return read_texts_of(self.files, _are_in(split, np.concatenate(self.codes)))

    @property
    def splits(self) -> np.ndarray:
        """The split of each text, (texts,) uint8, an index into ``SPLITS``."""
        codes = np.concatenate(self.codes)
        return codes[codes < _DUPLICATE]

    def attach_rows(self, cleaned: Sequence[Cleaned]) -> None:
        """Set the files, codes and ``is_label`` of the corpus from its sources, the validation
        source last. If the corpus is joined from ``corpora``, also set those of each: corpus i has
        source i.
        """
        for corpus, source in zip(self.corpora, cleaned, strict=False):
            corpus.attach_rows([source])
        self.files = list(itertools.chain(*(each.files for each in cleaned)))
        self.codes = _by_file(np.concatenate([each.codes for each in cleaned]), self.files)
        schemas = [open_rows(file).schema for file in self.files]
        # ``clean`` stores the values of condition i in the column "ci"
        self.is_label = [
            any(str(schema.field(f"c{number}").type) == "string" for schema in schemas)
            for number in range(len(self.names))
        ]

    @property
    def times_of_files(self) -> list[float]:
        """How often the training texts of each file are read in an epoch."""
        times = list[float]()
        for corpus in self.corpora:
            times += [corpus.times] * len(corpus.files)
        return times + [1.0] * (len(self.files) - len(times))  # validation files come last

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


def _are_in(split: str | None, codes: np.ndarray) -> np.ndarray:
    """Return a mask of the codes that are those of a split, or of any split."""
    return codes < _DUPLICATE if split is None else codes == SPLITS.index(split)


def read_corpus(
    spec: CorpusSpec, root: Path | None = None, progress: Progress = lambda step: None
) -> Corpus:
    """Return a corpus: open, clean and split its sources.

    Args:
        spec: The texts.
        root: The folder for the stages; None is the cache.
        progress: Called with each step.

    Raises:
        DataError: A source cannot be read, or too few texts are left after cleaning.
        HubError: The Hub cannot be reached, or has no such dataset.
        StorageError: The disk is full.
        WorkerError: A worker was killed.
    """
    with workspace() as folder:
        return split_sources(spec.open(folder), spec, root or cache_folder(), progress)


def split_sources(
    sources: Sequence[Source], spec: CorpusSpec, root: Path, progress: Progress
) -> Corpus:
    """Return the corpus of opened sources; see ``read_corpus``."""
    weights = spec.config.weights
    training_count = len(weights) or 1  # number of sources to train on
    progress("Reading and cleaning")
    cut: Any = "blocks" if len(sources) > training_count else "splits"
    cleaned = [clean_source(source, root, cut) for source in sources[:training_count]]
    # validation texts lose the lines that repeat in the training texts
    lines = list(dict.fromkeys(itertools.chain(*(each.dropped_lines for each in cleaned))))
    cleaned += [clean_source(source, root, cut, lines) for source in sources[training_count:]]
    identities = [[each.key, each.source.info.name] for each in cleaned]
    inputs = [identities, training_count, to_dict(spec.filters), list(weights)]
    stage = run_stage(
        root,
        "split",
        inputs,
        lambda folder: _split(cleaned, training_count, spec.filters, weights, folder, progress),
    )
    corpus = Corpus.from_json(stage.facts)
    _attach_codes(cleaned, np.load(stage.folder / "codes.npy"))
    corpus.attach_rows(cleaned)
    return corpus


def _split(
    cleaned: Sequence[Cleaned],
    training_count: int,
    filters: Filters,
    weights: Sequence[float],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Make the files of the stage, and return its facts: those of the corpus.

    Args:
        cleaned: The sources, the validation source last.
        training_count: The number of sources to train on.
        filters: Which texts are left out.
        weights: For several sources, the share of each in the characters to train on.
        folder: The folder of the stage.
        progress: Called with each step.
    """
    codes, notes = _decide_codes(cleaned, training_count, filters, progress)
    described = list(map(_describe_source, cleaned))
    members = [member for member, _ in described]
    corpus = members[0]
    if weights:
        training = members[:training_count]
        info, report = join_sources(
            [member.source for member in training], [member.report for member in training]
        )
        corpus = replace(corpus, source=info, report=report, corpora=training)
    corpus.counts = {split: sum(member.counts[split] for member in members) for split in SPLITS}
    if len(members) > training_count:
        corpus.validation = (members[-1].source, members[-1].report)
    corpus.attach_rows(cleaned)
    if weights:
        characters = [size for _, size in described[:training_count]]
        notes = [*_weigh(corpus.corpora, characters, weights), *notes]
    corpus.notes = [*corpus.source.notes, *notes]
    corpus.fingerprint = _fingerprint(corpus, cleaned)
    folder.mkdir(parents=True, exist_ok=True)
    save_array(folder / "codes.npy", codes)
    return corpus.to_json()


def _decide_codes(
    cleaned: Sequence[Cleaned], training_count: int, filters: Filters, progress: Progress
) -> tuple[np.ndarray, list[str]]:
    """Return the code of each row of all sources, (rows,), and notes for the user."""
    files = list(itertools.chain(*(each.files for each in cleaned)))
    has_validation = len(cleaned) > training_count
    progress("Looking for duplicates")
    codes = np.concatenate(
        [_mark_duplicates(cleaned[:training_count]), _mark_duplicates(cleaned[training_count:])]
    )
    if filters.near_duplicates is not None:
        progress("Looking for near duplicates")
        is_unique = codes == _KEPT
        is_distinct = _find_distinct(files, is_unique, filters.near_duplicates)
        codes[is_unique & ~is_distinct] = _NEAR_DUPLICATE
    _attach_codes(cleaned, codes)
    # each.codes is a view of ``codes``: what is written to it below is also in ``codes``
    for number, each in enumerate(cleaned):
        is_kept = each.codes == _KEPT
        if has_validation:
            # the validation source comes after those to train on
            each.codes[is_kept] = _VALIDATION if number == training_count else TRAIN
        else:
            each.codes[is_kept] = _split_rows(each, is_kept)
    progress("Looking for held-out texts in the training texts")
    is_leaking, notes = _find_leaks(cleaned, codes, filters.decontaminate)
    codes[is_leaking] = _LEAKING
    if has_validation:
        hashes = np.concatenate([each.hashes for each in cleaned])
        validation = hashes[codes == _VALIDATION]
        in_both = int(np.isin(validation, hashes[codes == TRAIN]).sum())
        if in_both:
            counts = f"{in_both} of {len(validation)} validation texts"
            notes.insert(0, f"{counts} are also in the training text.")
    return codes, notes


def _attach_codes(cleaned: Sequence[Cleaned], codes: np.ndarray) -> None:
    """Set the codes of each source to a view of its part of the codes of all rows."""
    ends = np.cumsum([len(each.hashes) for each in cleaned])
    for each, view in zip(cleaned, np.split(codes, ends[:-1]), strict=True):
        each.codes = view


def _mark_duplicates(cleaned: Sequence[Cleaned]) -> np.ndarray:
    """Return a code for each row of the sources: ``_DUPLICATE`` if its text equals an earlier one,
    else ``_KEPT``.
    """
    hashes = [np.empty(0, np.uint64)]
    may_drop = [np.empty(0, np.bool_)]
    for each in cleaned:
        hashes.append(each.hashes)
        may_drop.append(np.full(len(each.hashes), each.source.drops_duplicates))
    is_duplicate = ~first_of_each(np.concatenate(hashes)) & np.concatenate(may_drop)
    return np.where(is_duplicate, np.uint8(_DUPLICATE), np.uint8(_KEPT))


def _split_rows(cleaned: Cleaned, is_kept: np.ndarray) -> np.ndarray:
    """Return the split of each kept row of a source; ``is_kept`` (rows,) is the mask of these."""
    if not (cleaned.source.is_cleaned or cleaned.source.info.is_one_text):
        return split_by_hash(cleaned.hashes[is_kept])
    if cleaned.source.is_cleaned:
        splits = read_column(cleaned.files, "split", np.uint8)
    else:
        # the cycle of splits, repeated for all rows
        splits = np.resize([SPLITS.index(split) for split in SPLIT_CYCLE], len(is_kept))
    return np.asarray(splits[is_kept])


def split_by_hash(hashes: np.ndarray) -> np.ndarray:
    """Return the split of each text from its content hash, (texts,) uint8: 90 % train, 5 %
    validation, 5 % test.

    In a corpus of a few texts, train or validation may be empty by chance. Then one text, chosen by
    its hash, is moved to the empty split; its duplicates move with it if they were kept.
    """
    position = hashes / 2.0**64
    codes = np.digitize(position, (1 - 2 * HELD_OUT, 1 - HELD_OUT)).astype(np.uint8)
    train, validation, test = range(3)
    if len(codes) and train not in codes:
        codes[hashes == hashes.min()] = train
    if len(codes) and validation not in codes:
        in_train = hashes[codes == train]
        # train gives a text if it has two different ones, else test
        donors = in_train if in_train.min() < in_train.max() else hashes[codes == test]
        if donors.size:  # otherwise there is only one text
            codes[hashes == donors.max()] = validation
    return codes


class NearDuplicates:
    """A growing collection of texts, which finds texts that nearly equal one of them.

    Args:
        threshold: The similarity from which on two texts count as equal.
    """

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHashLSH

        # The possible numbers of minima in a band. Of two texts at the threshold, a band is equal
        # with probability threshold**width; banding finds the pair if at least one band is equal.
        widths = [
            width
            for width in (32, 16, 8, 4, 2)
            if 1 - (1 - threshold**width) ** (_MINIMA // width) >= _RECALL
        ]
        self._threshold = threshold
        # the third argument is the number of bands; the widest ones give the fewest false
        # candidates
        self._index = RMinHashLSH(threshold, _MINIMA, _MINIMA // max(widths, default=1))
        self._known: dict[int, Any] = {}

    def find_or_add(self, text: str) -> int | None:
        """Return the number of the known text that nearly equals this one. If there is none, make
        this text a known text, and return None.

        The known texts are numbered from 0, in the order in which they were added.
        """
        from rensa import RMinHash

        words = text.lower().split()
        starts = range(max(1, len(words) - _SHINGLE + 1))
        minima = RMinHash(_MINIMA, _SEED)
        minima.update([" ".join(words[start : start + _SHINGLE]) for start in starts])
        for other in self._index.query(minima):
            if minima.jaccard(self._known[other]) >= self._threshold:
                return int(other)
        number = len(self._known)
        self._index.insert(number, minima)
        self._known[number] = minima
        return None


def _find_distinct(files: Sequence[Path], is_kept: np.ndarray, threshold: float) -> np.ndarray:
    """Return a mask (rows,) of the rows to keep: those of the mask ``is_kept`` whose texts are not
    near duplicates of an earlier kept text.
    """
    duplicates = NearDuplicates(threshold)
    is_distinct = is_kept.copy()
    rows = np.flatnonzero(is_kept).tolist()
    for row, text in zip(rows, read_texts_of(files, is_kept), strict=True):
        is_distinct[row] = duplicates.find_or_add(text) is None
    return is_distinct


def _find_leaks(
    cleaned: Sequence[Cleaned], codes: np.ndarray, length: int | None
) -> tuple[np.ndarray, list[str]]:
    """Find held-out texts that share a run of ``length`` characters with a training text.

    If ``length`` is None, no text is left out: only a sample of the held-out texts is checked, for
    runs of 50 characters.

    Returns:
        A mask (rows,) of the rows to leave out, all False if ``length`` is None; and a list of
        notes for the user.
    """
    run = length or COPY_CHARACTERS
    files = list(itertools.chain(*(each.files for each in cleaned)))
    size = size_of(files)
    num_proc = cleaned[0].source.config.num_proc
    lengths = np.concatenate([each.lengths for each in cleaned])
    held_out = np.flatnonzero(np.isin(codes, _HELD_OUT_CODES))
    stride = 1
    if length is None:
        stride = max(1, math.ceil(lengths[held_out].sum() / _SAMPLE_CHARACTERS))
    checked = held_out[::stride]
    # (checked,): the number of the group in which each text is checked
    groups = np.cumsum(lengths[checked]) // _GROUP_CHARACTERS
    is_training = _by_file(codes == TRAIN, files)
    is_leaking = np.zeros(len(codes), np.bool_)
    for group in np.unique(groups):
        is_in_group = np.zeros(len(codes), np.bool_)
        is_in_group[checked[groups == group]] = True
        texts = list(read_texts_of(files, is_in_group))
        tasks = [
            (texts, run, files[span], np.concatenate(is_training[span]))
            for span in slices(len(files), size, num_proc)
        ]
        # a text leaks if it shares a run with the training texts of any slice
        is_leaking[is_in_group] = np.logical_or.reduce(share(_are_shared, tasks, size, num_proc))
    counts = int(is_leaking.sum()), len(checked), len(held_out)
    if length is None:
        return np.zeros_like(is_leaking), _describe_sample(*counts, run)
    return is_leaking, _describe_leaks(*counts, run)


def _describe_sample(count: int, checked: int, held_out: int, run: int) -> list[str]:
    """Return a note that ``count`` of ``checked`` texts leak, where the checked texts are a sample
    of ``held_out`` texts; an empty list if none leaks.
    """
    if not count:
        return []
    them = "it" if count == 1 else "them"
    found = _count_leaks(count, checked, held_out, run)
    return [f"{found}; --decontaminate {run} leaves {them} out."]


def _describe_leaks(count: int, checked: int, held_out: int, run: int) -> list[str]:
    """Return a note on ``count`` texts that are left out; an empty list if no text was checked."""
    if not checked:
        return []
    found = _count_leaks(count, checked, held_out, run)
    are = "is" if count == 1 else "are"
    return [f"{found}, and {are} left out." if count else f"{found}."]


def _count_leaks(count: int, checked: int, held_out: int, run: int) -> str:
    """Return the first part of a note: how many of the checked texts leak."""
    which = f"{checked:,} held-out texts"
    if checked < held_out:
        which = f"a sample of {checked:,} of {held_out:,} held-out texts"
    verb = "shares" if count == 1 else "share"
    return f"Of {which}, {count:,} {verb} a run of {run} characters or more with a training text"


def _are_shared(
    texts: Sequence[str], length: int, files: Sequence[Path], is_training: np.ndarray
) -> np.ndarray:
    """Return a mask (texts,) of the texts that share a run of ``length`` characters with a training
    text of the files. A task for workers.
    """
    return TextWindows(texts, length).are_shared(read_texts_of(files, is_training))


def _by_file(values: np.ndarray, files: Sequence[Path]) -> list[np.ndarray]:
    """Split an array with one value for each row, (rows,), into views, one for each file."""
    return np.split(values, np.cumsum([len(open_rows(file)) for file in files])[:-1])


def _describe_source(cleaned: Cleaned) -> tuple[Corpus, int]:
    """Complete the cleaning report of a source. Return the facts of the source as a corpus without
    texts, and the number of characters of its training texts.
    """
    info = cleaned.source.info
    report = cleaned.report
    # the number of rows with each of the six codes, the splits first
    *sizes, duplicates, near_duplicates, leaking = np.bincount(cleaned.codes, minlength=6).tolist()
    report.duplicates = duplicates
    report.near_duplicates = near_duplicates
    report.leaking = leaking
    # one long text counts as one, and not as its blocks
    report.kept = report.read - report.empty if info.is_one_text else sum(sizes)
    report.characters = int(cleaned.lengths[cleaned.codes < _DUPLICATE].sum())
    counts = dict(zip(SPLITS, sizes, strict=True))
    corpus = Corpus("", info, report, counts, names=cleaned.source.config.columns)
    return corpus, int(cleaned.lengths[cleaned.codes == TRAIN].sum())


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


def _fingerprint(corpus: Corpus, cleaned: Sequence[Cleaned]) -> str:
    """Return a hash that identifies a corpus: of the content hashes and splits of its texts, their
    condition values, and how often weighted corpora are read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for each in cleaned:
        digest.update(each.hashes[each.codes < _DUPLICATE].tobytes())
    digest.update(corpus.splits.tobytes())
    if corpus.names:
        digest.update(json.dumps(corpus.names).encode())
        for values in corpus.values():
            digest.update(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    if corpus.corpora:
        read = [[joined.counts, joined.times] for joined in corpus.corpora]
        digest.update(json.dumps(read).encode())
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
